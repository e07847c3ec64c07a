"""The values of a run that no line of its logs may show. Pure; they are kept in memory only."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
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
_ENCODED = r"(?<![\w+/-])[\w+/-]*?{}[\w+/-]*+=*+"  # all that is encoded with a value
_URL_PASSWORD = re.compile(r"://[^\s/@]*?:(?P<password>\S+)@")


class SecretValues:
    """Texts to be removed from others; shown nowhere, so not in an error report either."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        # The pattern of each form, by its folded text. One may contain another: the longest first.
        forms = [found for value in values for found in _forms(value)]
        self._patterns = dict(sorted(forms, key=lambda found: len(found[0]), reverse=True))

    def __repr__(self) -> str:
        return f"<{len(self._patterns)} secret values>"

    def present_in(self, text: str) -> "SecretValues":
        """Return the values that the text contains, in upper or lower case, or encoded."""
        text, present = text.casefold(), SecretValues()
        present._patterns = {form: self._patterns[form] for form in self._patterns if form in text}
        return present

    def replace_in(self, text: str, mark: str) -> str:
        """Return a text with `mark` in place of each value and of each word that encodes one."""
        folded = text.casefold()
        for form, pattern in self._patterns.items():
            if form in folded:
                text = re.sub(pattern, mark, text, flags=re.IGNORECASE)
        return text


def secret_values(fields: Json) -> SecretValues:
    """Return the secret values of a run's detail, as sent by Northflank.

    These are the values of its arguments and of the environments, files and secrets that its steps
    have or return, if they have MIN_LENGTH characters or more: as they are, in JSON,
    percent-encoded, and within Base64 or hexadecimal digits; all of them in upper or lower case.
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


def _forms(value: str) -> Iterator[tuple[str, str]]:
    value = value.strip()
    if _REFERENCE.fullmatch(value):
        return
    passwords = [match["password"] for match in _URL_PASSWORD.finditer(value)]
    for text in (value, *passwords, *map(unquote, passwords)):
        if len(text) >= MIN_LENGTH:
            in_json = json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]
            in_urls = quote(text, safe="", errors="replace"), quote_plus(text, errors="replace")
            for form in (text, *in_json, *in_urls):
                yield form.casefold(), re.escape(form)
            for form in _encodings(text):
                yield form.casefold(), _ENCODED.format(re.escape(form))


def _encodings(text: str) -> Iterator[str]:
    """Yield the part that this text has in each encoding of a longer one."""
    content = text.encode(errors="replace")
    yield content.hex()
    for before, changed in enumerate((0, 2, 3)):  # bytes before the text, characters they change
        padded = bytes(before) + content
        kept = base64.b64encode(padded).decode()[changed : len(padded) * 4 // 3]
        yield from (kept, kept.translate({43: "-", 47: "_"}))
