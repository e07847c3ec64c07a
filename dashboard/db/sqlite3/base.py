"""Django's backend for SQLite (ENGINE), which converts the placeholders of a statement once.

Its name ends as that of Django's, by which Hypothesis and our checks recognize SQLite.
"""

from functools import lru_cache
from typing import Any

from django.db.backends.sqlite3 import base

# Statements whose conversion is kept. Those with lists of various lengths come and go.
_KEPT_STATEMENTS = 512


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to SQLite."""

    def create_cursor(self, name: Any = None) -> Any:
        return self.connection.cursor(factory=_Cursor)


class _Cursor(base.SQLiteCursorWrapper):
    def convert_query(self, query: Any, *, param_names: Any = None) -> str:
        if param_names is None:
            return convert(query)
        return super().convert_query(query, param_names=param_names)


@lru_cache(_KEPT_STATEMENTS)
def convert(query: str) -> str:
    """Return a statement with `?` instead of `%s`.

    Django looks for them at each execution: a twentieth of a page's time.
    """
    converted: str = base.SQLiteCursorWrapper.convert_query(None, query)  # type: ignore[arg-type]
    return converted
