"""Path converters for Northflank ids and primary keys.

A Northflank id may be any text and takes up one path segment. Primary keys are the dashboard's own
and fit the integer columns of every supported database.
"""

from urllib.parse import quote, unquote

from django.urls import register_converter
from django.urls.converters import IntConverter
from django.utils.http import RFC3986_SUBDELIMS

from dashboard.web.http import keys


class IdConverter:
    """A Northflank id as one path segment.

    Django decodes the path before it matches, so a slash within an id would split it, and browsers
    resolve "." and "..". Such characters are encoded twice; ordinary ids stay unchanged.
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


def path_segment(run_id: str) -> str:
    """Return an id as it stands in the paths that `reverse` returns."""
    return quote(IdConverter().to_url(run_id), safe=f"{RFC3986_SUBDELIMS}/~:@")


class KeyConverter(IntConverter):
    """A primary key; a number that is too large for the database does not match."""

    regex = rf"[0-9]{{1,{keys.MAX_DIGITS}}}"


def register() -> None:
    """Register `<id:...>` and `<key:...>` for URL patterns."""
    register_converter(IdConverter, "id")
    register_converter(KeyConverter, "key")
