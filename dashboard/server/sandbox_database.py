"""The sandbox's default databases: a file for each scenario, with the runs of one world.

A world that is mixed with an earlier one would have both until the sync has found the earlier runs
removed.
"""

from pathlib import Path

from django.conf import settings
from django.db import connection, connections


def select(scenario: str) -> Path:
    """Use the default file of a scenario in all threads, and return its path."""
    file: Path = settings.VAR_DIR / f"sandbox-{scenario}.sqlite3"
    connections.databases["default"]["NAME"] = str(file)
    connection.close()
    return file


def remove_file() -> None:
    """Remove the selected file, which this process has locked (`database_lock.py`)."""
    file = Path(str(connection.settings_dict["NAME"]))
    connection.close()
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
