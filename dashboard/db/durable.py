"""Transactions whose result must outlive a power failure once they have ended."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def atomic() -> Iterator[None]:
    """Like `transaction.atomic`, but its commit is on the disk when the block ends.

    Not within another transaction. PostgreSQL waits for the disk anyway. SQLite in WAL mode with
    `synchronous=NORMAL` may lose the last commits if the machine stops.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic():
            yield
        return
    connection.ensure_connection()
    raw: sqlite3.Connection = connection.connection
    [(level,)] = raw.execute("PRAGMA synchronous").fetchall()
    raw.execute("PRAGMA synchronous=FULL")
    try:
        with transaction.atomic():
            yield
    finally:
        raw.execute(f"PRAGMA synchronous={level}")
