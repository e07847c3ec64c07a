"""What an event's `data` mentions. Pure.

The body of release-flow events is not documented: no shape is relied on. A word in the key above
a text (`project.id`, `pipelineId`, `releaseFlow.stage`) says what the text may be the id of;
whoever asks looks it up among what is known.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

MAX_NODES = 500  # parts of an event that are looked at
MAX_ID_LENGTH = 255  # characters of an id

# Keys that say nothing themselves: what their text names is said by the key above.
_GENERIC_KEYS = {"id", "name", "slug", "uid"}


@dataclass(frozen=True, slots=True)
class EventIds:
    """Texts that may be ids, by what their keys call them; `anything` holds all of them."""

    projects: frozenset[str]
    pipelines: frozenset[str]
    stages: frozenset[str]
    candidates: frozenset[str]


def extract_event_ids(data: object) -> EventIds:
    """Return what may be an id in the decoded `data` of an event, whatever that is."""
    texts = list(_texts(data))

    def with_key(key_part: str) -> frozenset[str]:
        return frozenset(text for key, text in texts if key_part in key)

    return EventIds(
        with_key("project"),
        with_key("pipeline"),
        frozenset(text.capitalize() for text in with_key("stage")),
        frozenset(text for _, text in texts),
    )


def _texts(data: object) -> Iterator[tuple[str, str]]:
    """Yield each text with the telling key above it, in lower case."""
    queue: deque[tuple[str, object]] = deque([("", data)])  # what lies deepest is seen last
    for _ in range(MAX_NODES):
        if not queue:
            return
        parent_key, node = queue.popleft()
        if isinstance(node, dict):
            for key, value in list(node.items())[:MAX_NODES]:
                key_name = str(key).lower()
                queue.append((parent_key if key_name in _GENERIC_KEYS else key_name, value))
        elif isinstance(node, list):
            queue.extend((parent_key, value) for value in node[:MAX_NODES])
        # No id holds a NUL, which PostgreSQL refuses, or half a surrogate pair, which all do.
        elif isinstance(node, str) and 0 < len(node) <= MAX_ID_LENGTH and node.isprintable():
            yield parent_key, node
