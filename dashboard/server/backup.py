"""Back up the database to one file while the dashboard runs, and restore it.

A backup of SQLite is a database file, made by its online backup; one of PostgreSQL is pg_dump's
custom format. A restore replaces the contents in one transaction: if that fails, the database stays
as it was. Then it migrates them and deletes the sessions.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from dashboard.db.threads import now, set_clock_offset
from dashboard.models import Lead, Session
from dashboard.server import database_lock
from dashboard.sync import lead

LOCK_TIMEOUT = 2.0  # seconds to wait for another process that uses the database
_MIGRATIONS = "django_migrations"


class BackupError(CommandError):
    """Why there is no backup, or why it cannot be restored."""


def create(file: Path) -> None:
    """Write a backup; the file appears once it is complete, readable by its owner only."""
    if not connection.introspection.table_names():
        raise BackupError("Nothing to back up: the database has no tables.")
    try:
        if file.exists():
            raise BackupError(f"{file} exists already.")
        handle, part_name = tempfile.mkstemp(".part", f".{file.name}.", file.parent)
    except OSError as error:
        raise BackupError(f"Cannot write to {file.parent}: {error.strerror}.") from error
    part = Path(part_name)
    try:
        if connection.vendor == "postgresql":
            _run_client("pg_dump", "--format=custom", *_NO_OWNER, f"--file={part}")
        else:
            _copy_sqlite(_sqlite_file(), part, as_single_file=True)
        os.fsync(handle)
        part.rename(file)
    finally:
        os.close(handle)
        part.unlink(missing_ok=True)
        # SQLite leaves its journal if the disk is too full to roll back.
        part.with_name(f"{part.name}-journal").unlink(missing_ok=True)


def describe_database() -> str:
    """Return which database a restore replaces, for the operator; without a password."""
    if connection.vendor == "sqlite":
        return f"the SQLite database {_sqlite_file()}"
    connection.ensure_connection()  # settings may leave the host and the name to libpq
    info = connection.connection.info
    return f"the PostgreSQL database {info.dbname} on {info.host}:{info.port}"


def restore(file: Path, *, replaces: bool) -> None:
    """Replace the database's contents by those of a backup, and migrate it.

    Raise BackupError, with the database unchanged, if the file is damaged or is no backup of this
    version or an older one, if the database is in use or, without `replaces`, not empty. Sessions
    are not restored: some may have ended since.
    """
    read_migrations = _read_postgresql if connection.vendor == "postgresql" else _read_sqlite
    _verify_version(read_migrations(file))
    # Keeps every `serve` from a SQLite file: one without sync has no heartbeat that would show.
    handle = database_lock.acquire()
    try:
        _replace(file, replaces=replaces)
    finally:
        if handle is not None:
            os.close(handle)


def _replace(file: Path, *, replaces: bool) -> None:
    tables = connection.introspection.table_names()
    _verify_unused(tables)
    if tables and not replaces:
        raise BackupError("The database is not empty. To replace all of it, give --replace.")
    if connection.vendor == "postgresql":
        _verify_unlocked(tables)
        connection.close()
        in_one_step = ("--clean", "--if-exists", "--single-transaction", "--exit-on-error")
        _run_client("pg_restore", *in_one_step, *_NO_OWNER, str(file))
    else:
        connection.close()
        _copy_sqlite(file, _sqlite_file())
    call_command("migrate", verbosity=0)  # its signals install the triggers as well
    Session.objects.all().delete()
    Lead.objects.all().delete()


def _verify_version(migrations: Collection[str]) -> None:
    if "0001_initial" not in migrations:
        raise BackupError("This is not a backup of this dashboard.")
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    if newer := sorted(name for name in migrations if ("dashboard", name) not in known):
        raise BackupError(
            f"The backup was made by a newer version of the dashboard (it has {', '.join(newer)}). "
            "Install that version first."
        )


def _verify_unused(tables: Collection[str]) -> None:
    if Lead._meta.db_table not in tables:
        return
    set_clock_offset()  # the lead is by the database's clock
    row = Lead.objects.first()
    if row is not None and lead.is_alive(row.holder, row.renewed_at, now()):
        raise BackupError(
            f"The dashboard is running ({row.holder}). Stop all of its processes; one that was "
            f"killed counts as running for {lead.SILENCE.seconds} seconds."
        )


# --- SQLite -------------------------------------------------------------------------------------


def _sqlite_file() -> Path:
    return Path(str(connection.settings_dict["NAME"]))


def _copy_sqlite(source_file: Path, target_file: Path, *, as_single_file: bool = False) -> None:
    """Copy a database in one transaction: of the source as it is now, and of the target.

    With `as_single_file` the target, which nobody else has open, leaves WAL mode: in it two more
    files would be written when it is opened.
    """
    try:
        with (
            contextlib.closing(_open_read_only(source_file)) as source,
            contextlib.closing(sqlite3.connect(target_file, timeout=LOCK_TIMEOUT)) as target,
        ):
            target.execute("BEGIN IMMEDIATE")  # raises where the backup would wait for ever
            target.rollback()
            source.backup(target)
            if as_single_file:
                target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise BackupError(f"SQLite: {error}.") from error


def _open_read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)


def _read_sqlite(file: Path) -> list[str]:
    """Return the names of the dashboard's migrations in a backup."""
    try:
        with contextlib.closing(_open_read_only(file)) as database:
            [(size,)] = database.execute(
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            )
            # Not quick_check, which does not compare indexes with their tables.
            [(result,)] = database.execute("PRAGMA integrity_check(1)")
            if result != "ok" or size != file.stat().st_size:
                raise BackupError(f"{file} is damaged or incomplete.")
            names = database.execute("SELECT name FROM sqlite_master")  # reads, so decodes, all
            if (_MIGRATIONS,) not in names.fetchall():
                return []
            rows = database.execute(f"SELECT name FROM {_MIGRATIONS} WHERE app = 'dashboard'")  # noqa: S608
            return [name for (name,) in rows]
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes the damaged part
        raise BackupError(f"{file} is no backup, damaged or incomplete: {error}.") from error


# --- PostgreSQL ---------------------------------------------------------------------------------

_NO_OWNER = ("--no-owner", "--no-privileges")  # restored by any account


def _read_postgresql(file: Path) -> list[str]:
    arguments = ("--data-only", f"--table={_MIGRATIONS}", "--file=-", str(file))
    script = _run_client("pg_restore", *arguments, connects=False)
    return re.findall(r"^\d+\tdashboard\t(\w+)\t", script, re.MULTILINE)


def _verify_unlocked(tables: Collection[str]) -> None:
    """Raise BackupError if an open transaction would hold up a restore, which waits forever."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {round(LOCK_TIMEOUT * 1000)}")
            for table in sorted(tables):
                cursor.execute(f"LOCK TABLE {connection.ops.quote_name(table)}")
    except OperationalError as error:
        raise BackupError("Another process uses the database. Stop it.") from error


def _run_client(program: str, *arguments: str, connects: bool = True) -> str:
    """Run one of PostgreSQL's client programs on the database, and return its output."""
    connection_params = connection.get_connection_params()
    names = {option.keyword.decode() for option in Conninfo.get_defaults()}
    params = {name: value for name, value in connection_params.items() if name in names}
    # Not in the command line, which everybody on this machine can read.
    password = {"PGPASSWORD": str(params.pop("password", ""))}
    database = [f"--dbname={make_conninfo('', **params)}"] if connects else []
    environment = os.environ | password  # noqa: TID251 - all of it is passed on, as by default
    command = [_find_client(program), *database, *arguments]
    result = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode:  # negative: the number of a signal, of a crash
        reason = result.stderr.strip() or f"It ended with status {result.returncode}."
        raise BackupError(f"{program}: {reason}")
    return result.stdout


def _find_client(program: str) -> str:
    """Return the path of a client program of the server's version."""
    server_version = connection.pg_version // 10_000  # type: ignore[attr-defined]
    needed = f"Install PostgreSQL's client programs, version {server_version}"
    folder = settings.POSTGRESQL_PROGRAM_FOLDER / str(server_version) / "bin"
    path = shutil.which(program, path=str(folder)) or shutil.which(program)
    if path is None:
        raise BackupError(f"{program} is not installed. {needed}.")
    result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    version_text = result.stdout.strip()
    version = re.search(r"\) (\d+)", version_text)
    # What an older one cannot dump; what a newer one has dumped, the server may refuse to restore.
    if version is None or int(version[1]) != server_version:
        raise BackupError(
            f"{program} is not of the server's version: {version_text}. {needed}, and put them "
            "first in PATH."
        )
    return path
