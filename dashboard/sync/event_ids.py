"""What an event's `data` mentions. Pure.

The body of release-flow events is not documented: no shape is relied on. A word in the key above
a text (`project.id`, `pipelineId`, `releaseFlow.stage`) says what the text may be the id of;
whoever asks looks it up among what is known.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

NODES = 500  # parts of an event that are looked at
LONGEST = 255  # characters of an id

# Keys that say nothing themselves: what their text names is said by the key above.
_PLAIN = {"id", "name", "slug", "uid"}


@dataclass(frozen=True, slots=True)
class Mentions:
    """Texts that may be ids, by what their keys call them; `anything` holds all of them."""

    projects: frozenset[str]
    pipelines: frozenset[str]
    stages: frozenset[str]
    anything: frozenset[str]


def mentioned(data: object) -> Mentions:
    """Return what may be an id in the decoded `data` of an event, whatever that is."""
    found = list(_texts(data))

    def called(word: str) -> frozenset[str]:
        return frozenset(text for key, text in found if word in key)

    return Mentions(
        called("project"),
        called("pipeline"),
        frozenset(text.capitalize() for text in called("stage")),
        frozenset(text for _, text in found),
    )


def _texts(data: object) -> Iterator[tuple[str, str]]:
    """Yield each text with the telling key above it, in lower case."""
    to_see: deque[tuple[str, object]] = deque([("", data)])  # what lies deepest is seen last
    for _ in range(NODES):
        if not to_see:
            return
        above, part = to_see.popleft()
        if isinstance(part, dict):
            for key, value in list(part.items())[:NODES]:
                name = str(key).lower()
                to_see.append((above if name in _PLAIN else name, value))
        elif isinstance(part, list):
            to_see.extend((above, value) for value in part[:NODES])
        # No id holds a NUL, which PostgreSQL refuses, or half a surrogate pair, which all do.
        elif isinstance(part, str) and 0 < len(part) <= LONGEST and part.isprintable():
            yield above, part
