"""Transactions whose result must outlive a power failure once they have ended."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def atomic() -> Iterator[None]:
    """Like `transaction.atomic`, but its commit is on the disk when the block ends.

    Within another transaction it is a part of that, and as durable. PostgreSQL waits for the disk
    anyway. SQLite in WAL mode with `synchronous=NORMAL` may lose the last commits if the machine
    stops.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic():
            yield
        return
    connection.ensure_connection()
    raw: sqlite3.Connection = connection.connection
    with connection.wrap_database_errors:
        [(level,)] = raw.execute("PRAGMA synchronous").fetchall()
        raw.execute("PRAGMA synchronous=FULL")
    try:
        with transaction.atomic():
            yield
    finally:
        if connection.connection is raw:  # not if Django has closed it after an error
            with connection.wrap_database_errors:
                raw.execute(f"PRAGMA synchronous={level}")
