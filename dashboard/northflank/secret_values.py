"""Known secrets, which no line of a log may show. Pure; those of a run are kept in memory only."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote, unquote

from dashboard.northflank.values import Json

MIN_LENGTH = 8  # characters: shorter values are too often part of ordinary words

# Of fields with such names all texts below count: the keys of an environment are the user's own.
_NAMES = re.compile(
    r"""argument|^env|environment|variable|secret|credential|passw|passphrase|token|(?:files|mounts)$
    |connection_?string|webhook|import_?url|dsn$|(?:api|access|private)_?key""",
    re.IGNORECASE | re.VERBOSE,
)
_REFERENCE = re.compile(r"\$\{[^{}]*\}")
_URL_PASSWORD = re.compile(r"://[^\s/@]*?:(?P<password>\S+)@")


class SecretValues:
    """Texts to be removed from others; shown nowhere, so not in an error report either.

    A text of MIN_LENGTH characters or more is removed as it is, in JSON, percent-encoded and in
    Base64, alone or within more.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms = {form for value in values for form in _forms(value)}

    def __repr__(self) -> str:
        return f"<{len(self._forms)} secret values>"

    def __or__(self, other: "SecretValues") -> "SecretValues":
        both = SecretValues()
        both._forms = self._forms | other._forms
        return both

    def pattern(self, lines: Sequence[str]) -> re.Pattern[str] | None:
        """Return a pattern of those that the lines contain; None: they contain none."""
        text = "\n".join(lines)
        # One form may contain another: the longest first.
        present = sorted((form for form in self._forms if form in text), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, present))) if present else None


def secret_values(fields: Json) -> SecretValues:
    """Return the secret values of a run's detail, as sent by Northflank.

    These are the values of its arguments and of the environments, files and secrets that its steps
    have or return.
    """
    return SecretValues(_texts(fields))


def _texts(fields: Json) -> Iterator[str]:
    rest: list[tuple[object, bool]] = [(fields, False)]
    while rest:  # a tree from outside may be too deep for recursion
        value, is_secret = rest.pop()
        if isinstance(value, dict):
            rest += [
                (inner, is_secret or _NAMES.search(key) is not None)
                for key, inner in value.items()
                if not (key == "key" and "value" in value)  # a name
            ]
        elif isinstance(value, list):
            rest += [(inner, is_secret) for inner in value]
        elif is_secret and isinstance(value, str | int | float):
            yield from str(value).splitlines()  # as logs print it


def _forms(value: str) -> Iterator[str]:
    value = value.strip()
    if _REFERENCE.fullmatch(value):
        return
    passwords = [match["password"] for match in _URL_PASSWORD.finditer(value)]
    for text in (value, *passwords, *map(unquote, passwords)):
        if len(text) >= MIN_LENGTH:
            yield from (text, json.dumps(text)[1:-1], quote(text, safe="", errors="replace"))
            yield from _base64_forms(text.encode(errors="replace"))


def _base64_forms(content: bytes) -> Iterator[str]:
    """Yield the part of Base64 that the content alone decides, by its place in a longer text."""
    for before, changed in enumerate((0, 2, 3)):  # bytes before it, characters they change
        padded = bytes(before) + content
        yield base64.b64encode(padded).decode()[changed : len(padded) * 4 // 3]
