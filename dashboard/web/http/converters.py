"""Ids in addresses: any text that Northflank may use as an id, and only one segment of a path.

Keys are our own: numbers that every database takes.
"""

from urllib.parse import quote, unquote

from django.urls import register_converter

from dashboard.web.http import keys


class IdConverter:
    """An id as one path segment.

    Django decodes the path before it matches, so a slash within an id would split it, and browsers
    fold "." and "..": what is special is encoded twice. Ordinary ids look like themselves.
    """

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        text = unquote(value)
        if "\0" in text:
            raise ValueError("PostgreSQL keeps no such text, so nothing can have this id.")
        return text

    def to_url(self, value: str) -> str:
        if set(value) == {"."}:
            return "%2E" * len(value)
        return value.replace("%", quote("%")).replace("/", quote("/", safe=""))


class KeyConverter:
    """The key of a row; a number that no database holds is no address."""

    regex = rf"[0-9]{{1,{keys.MAX_DIGITS}}}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


def register() -> None:
    """Make `<id:...>` and `<key:...>` known to URL patterns."""
    register_converter(IdConverter, "id")
    register_converter(KeyConverter, "key")
