"""What bench/soak.py measures: a process, and the database that it uses."""

import contextlib
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from running import Server

_ESTABLISHED = "01"


@dataclass(frozen=True)
class Size:
    """The size of a database in bytes, of what its rows contain, and the rows of each table."""

    total: int
    content: int
    rows: dict[str, int]


class Database(Protocol):
    def size(self) -> Size: ...


@dataclass(frozen=True)
class SQLite:
    """A SQLite file; its size is without the journal."""

    path: Path

    def size(self) -> Size:
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as link:
            (pages,), (page_size,) = (
                link.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
            )
            (content,) = link.execute("SELECT SUM(payload) FROM dbstat").fetchone()
            tables = link.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            rows = {
                name: link.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]
                for (name,) in tables
            }
        return Size(pages * page_size, content, rows)


@dataclass(frozen=True)
class PostgreSQL:
    """A database of a PostgreSQL server, which is vacuumed if the server does not do it itself.

    What its indexes contain is not part of the content.
    """

    url: str

    def size(self) -> Size:
        import psycopg

        total = content = 0
        rows = {}
        with psycopg.connect(self.url, autocommit=True) as link:
            # Else the space of old versions of rows is never used again.
            if link.execute("SHOW autovacuum").fetchone() == ("off",):
                link.execute("VACUUM")
            names = link.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for (name,) in names.fetchall():
                sizes = link.execute(
                    f"SELECT pg_total_relation_size('\"{name}\"'),"
                    f' COALESCE(SUM(pg_column_size(t.*)), 0)::bigint, COUNT(*) FROM "{name}" AS t'
                ).fetchone()
                assert sizes is not None
                total, content = total + sizes[0], content + sizes[1]
                rows[name] = sizes[2]
        return Size(total, content, rows)


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    minute: int
    pss: float  # MB
    private: float  # MB of PSS that no file backs, so that no other process changes it
    threads: int
    descriptors: int
    clients: int  # connections from clients
    upstream: int  # connections to the sandbox
    database: int  # connections: of PostgreSQL, or open descriptors of the SQLite file
    size: Size


def take(minute: int, server: Server, upstream_url: str, database: Database) -> Sample:
    """Measure the server's process and its database."""
    process_folder = Path(f"/proc/{server.process.pid}")
    targets = []
    for descriptor in (process_folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            targets.append(str(descriptor.readlink()))
    local, remote = _connections(process_folder, set(targets))
    if isinstance(database, SQLite):
        database_connections = targets.count(str(database.path))
    else:
        assert isinstance(database, PostgreSQL)
        database_connections = remote.count(urlsplit(database.url).port or 5432)
    memory = (process_folder / "smaps_rollup").read_text()
    return Sample(
        minute,
        _megabytes(memory, "Pss"),
        _megabytes(memory, "Pss_Anon"),
        sum(1 for _ in (process_folder / "task").iterdir()),
        len(targets),
        local.count(urlsplit(server.url).port or 0),
        remote.count(urlsplit(upstream_url).port or 0),
        database_connections,
        database.size(),
    )


def _connections(process_folder: Path, targets: set[str]) -> tuple[list[int], list[int]]:
    """Return the local and the remote ports of the process's established TCP connections."""
    local, remote = [], []
    for line in (process_folder / "net/tcp").read_text().splitlines()[1:]:
        (
            _,
            local_address,
            remote_address,
            state,
            *_,
        ) = (fields := line.split())
        if state == _ESTABLISHED and f"socket:[{fields[9]}]" in targets:
            local.append(int(local_address.rpartition(":")[2], 16))
            remote.append(int(remote_address.rpartition(":")[2], 16))
    return local, remote


def _megabytes(text: str, name: str) -> float:
    match = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024
