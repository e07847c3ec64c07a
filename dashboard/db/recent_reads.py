"""What this thread has just read from a SQLite database in which nothing has changed since.

SQLite tells in a few microseconds whether anything was committed; PostgreSQL can't.
"""

from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from sqlite3 import Connection
from threading import local
from typing import Any

from django.db import connection

MAX_AGE = timedelta(seconds=1)  # for what changes with time alone
MAX_READS = 100  # each with the grants of all groups


class _RecentReads(local):
    """The reads of one thread, by key: all of one connection, with nothing committed meanwhile."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.version = (0, 0)
        self.reads: dict[Hashable, tuple[datetime, Any]] = {}


_recent = _RecentReads()


def read[T](key: Hashable, now: datetime, load: Callable[[], T]) -> T:
    """Return what `load` returns, or has returned for `key` within MAX_AGE if nothing has changed.

    On PostgreSQL, or in a transaction, `load` is always called.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return load()
    connection.ensure_connection()
    database: Connection = connection.connection
    with connection.wrap_database_errors:
        # The commits of other connections, and the rows changed by this one.
        version = database.execute("PRAGMA data_version").fetchone()[0], database.total_changes
    if (
        database is not _recent.connection
        or version != _recent.version
        or len(_recent.reads) >= MAX_READS
    ):
        _recent.connection, _recent.version, _recent.reads = database, version, {}
    entry = _recent.reads.get(key)
    if entry is None or not entry[0] <= now < entry[0] + MAX_AGE:
        entry = _recent.reads[key] = now, load()
    value: T = entry[1]
    return value
