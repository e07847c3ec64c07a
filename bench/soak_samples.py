"""Samples of bench/soak.py: of a server process, and of its database."""

import contextlib
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from processes import Server

_ESTABLISHED = "01"  # a TCP state in /proc/net/tcp


@dataclass(frozen=True)
class Size:
    """The bytes of a database, the bytes of its rows' content, and the row count of each table."""

    total: int
    content: int
    rows: dict[str, int]


class Database(Protocol):
    def read_size(self) -> Size: ...


@dataclass(frozen=True)
class SQLite:
    """A SQLite file; its journal is not counted."""

    path: Path

    def read_size(self) -> Size:
        with contextlib.closing(
            sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        ) as connection:
            (pages,), (page_size,) = (
                connection.execute(f"PRAGMA {name}").fetchone()
                for name in ("page_count", "page_size")
            )
            (content,) = connection.execute("SELECT SUM(payload) FROM dbstat").fetchone()
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
            rows = {
                name: connection.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]
                for (name,) in tables
            }
        return Size(pages * page_size, content, rows)


@dataclass(frozen=True)
class PostgreSQL:
    """A PostgreSQL database, which is vacuumed if the server has no autovacuum.

    The content of its indexes is not counted as content.
    """

    url: str

    def read_size(self) -> Size:
        import psycopg

        total = content = 0
        rows = {}
        with psycopg.connect(self.url, autocommit=True) as connection:
            # Otherwise the space of dead rows is never reused.
            if connection.execute("SHOW autovacuum").fetchone() == ("off",):
                connection.execute("VACUUM")
            names = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
            for (name,) in names.fetchall():
                sizes = connection.execute(
                    f"SELECT pg_total_relation_size('\"{name}\"'),"
                    f' COALESCE(SUM(pg_column_size(t.*)), 0)::bigint, COUNT(*) FROM "{name}" AS t'
                ).fetchone()
                assert sizes is not None
                total, content = total + sizes[0], content + sizes[1]
                rows[name] = sizes[2]
        return Size(total, content, rows)


@dataclass(frozen=True)
class Sample:
    """One sample."""

    minute: int
    pss: float  # MB
    private: float  # MB of anonymous PSS, which no other process changes
    threads: int
    descriptors: int
    clients: int  # connections from clients
    upstream: int  # connections to the sandbox
    database: int  # connections: of PostgreSQL, or open descriptors of the SQLite file
    size: Size


def take_sample(minute: int, server: Server, upstream_url: str, database: Database) -> Sample:
    """Return a sample of the server's process and its database."""
    process_folder = Path(f"/proc/{server.process.pid}")
    targets = []
    for descriptor in (process_folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            targets.append(str(descriptor.readlink()))
    local_ports, remote_ports = _list_ports(process_folder, set(targets))
    if isinstance(database, SQLite):
        database_connections = targets.count(str(database.path))
    else:
        assert isinstance(database, PostgreSQL)
        database_connections = remote_ports.count(urlsplit(database.url).port or 5432)
    memory = (process_folder / "smaps_rollup").read_text()
    return Sample(
        minute,
        _parse_megabytes(memory, "Pss"),
        _parse_megabytes(memory, "Pss_Anon"),
        sum(1 for _ in (process_folder / "task").iterdir()),
        len(targets),
        local_ports.count(urlsplit(server.url).port or 0),
        remote_ports.count(urlsplit(upstream_url).port or 0),
        database_connections,
        database.read_size(),
    )


def _list_ports(process_folder: Path, targets: set[str]) -> tuple[list[int], list[int]]:
    """Return the local and the remote ports of the process's established TCP connections."""
    local_ports, remote_ports = [], []
    for line in (process_folder / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local_address, remote_address, state, inode = *fields[1:4], fields[9]
        if state == _ESTABLISHED and f"socket:[{inode}]" in targets:
            local_ports.append(int(local_address.rpartition(":")[2], 16))
            remote_ports.append(int(remote_address.rpartition(":")[2], 16))
    return local_ports, remote_ports


def _parse_megabytes(text: str, name: str) -> float:
    match = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024
