"""The values of a run that no line of its logs may show. Pure; they are kept in memory only."""

import base64
import json
import re
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote

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
    """Texts to be removed from others; shown nowhere, so not in an error report either."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for value in values for form in _forms(value) if len(form) >= MIN_LENGTH}
        self._longest_first = sorted(forms, key=len, reverse=True)  # one may contain another

    def __repr__(self) -> str:
        return f"<{len(self._longest_first)} secret values>"

    def present_in(self, texts: Collection[str]) -> "SecretValues":
        """Return those that any of the texts contains."""
        joined, present = "\n".join(texts), SecretValues()
        present._longest_first = [value for value in self._longest_first if value in joined]
        return present

    def replace_in(self, text: str, mark: str) -> str:
        """Return a text with `mark` in place of each value."""
        for value in self._longest_first:
            text = text.replace(value, mark)
        return text


def secret_values(fields: Json) -> SecretValues:
    """Return the secret values of a run's detail, as sent by Northflank.

    These are the values of its arguments and of the environments, files and secrets that its steps
    have or return, if they have MIN_LENGTH characters or more: as they are, in JSON,
    percent-encoded, and as base64 of the value alone.
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
        encoded = base64.b64encode(text.encode(errors="replace")).decode()
        yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
        yield from (quote(text, safe="", errors="replace"), quote_plus(text, errors="replace"))
        yield from (encoded.rstrip("="), encoded.translate({43: "-", 47: "_"}).rstrip("="))
