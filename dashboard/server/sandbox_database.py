"""The sandbox's default databases: a file for each scenario, new at each start as its runs are."""

from pathlib import Path

from django.conf import settings
from django.db import connection, connections


def select(scenario: str) -> Path:
    """Use the default file of a scenario in all threads, and return its path."""
    file: Path = settings.VAR_DIR / f"sandbox-{scenario}.sqlite3"
    connections.databases["default"]["NAME"] = str(file)
    connection.close()
    return file


def remove(file: Path) -> None:
    """Remove a file that this process has locked (`database_lock.py`)."""
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
