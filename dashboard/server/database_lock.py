"""One `serve` or `restore` at a time on a SQLite database.

A second `serve` would take over aborts that the first is sending, and send them again. Its
migrations or its new sandbox database, or a restore, would change or replace the file that the
first uses.
"""

import fcntl
import os

from django.core.management import CommandError
from django.db import connection


class LockError(CommandError):
    """Why the database cannot be locked."""


def acquire() -> int | None:
    """Lock the SQLite file, until the returned descriptor is closed or the process ends.

    None on PostgreSQL, where several processes may serve. Raise LockError if another process has
    the lock, or if there can be none, such as in a folder that is read-only. SQLite's own locks are
    left alone: the lock is on a file beside.
    """
    if connection.vendor != "sqlite":
        return None
    name = str(connection.settings_dict["NAME"])
    lock_name = f"{os.path.realpath(name)}.lock"
    try:
        handle = os.open(lock_name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
    except BlockingIOError:
        raise LockError(
            f"Another process serves from {name} (`serve`, also with --no-sync) or restores it. "
            "Stop it, or wait for the restore to end. Several processes need PostgreSQL."
        ) from None
    except OSError as error:
        raise LockError(f"Cannot lock the database: {error}") from error
    return handle
