"""Extract possible ids from the `data` of a webhook event. Pure.

The body of release flow events is not documented, so no shape is assumed. The key of a text
(`project.id`, `pipelineId`, `releaseFlow.stage`) shows what kind of id it may be; the caller looks
it up in the database.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

MAX_NODES = 500  # nodes of an event that are visited
MAX_ID_LENGTH = 255  # characters of an id

# Keys without a kind of their own: the key above them gives it.
_GENERIC_KEYS = {"id", "name", "slug", "uid"}


@dataclass(frozen=True, slots=True)
class EventIds:
    """Texts that may be ids, grouped by their keys; `candidates` holds all of them."""

    projects: frozenset[str]
    pipelines: frozenset[str]
    stages: frozenset[str]
    candidates: frozenset[str]


def extract_event_ids(data: object) -> EventIds:
    """Return all texts in the decoded `data` of an event that may be ids, whatever its shape."""
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
    """Yield each text with the nearest key that is not generic, in lower case."""
    queue: deque[tuple[str, object]] = deque([("", data)])  # breadth first
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
        # Excludes NUL, which PostgreSQL rejects, and lone surrogates, which every database rejects.
        elif isinstance(node, str) and 0 < len(node) <= MAX_ID_LENGTH and node.isprintable():
            yield parent_key, node
