"""A backup restores everything, or is refused with the database unchanged."""

import io
import os
import resource
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts import access_log
from dashboard.models import Project, Run, Upstream, append_only
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.accounts.access import AccessKind
from dashboard.server import backup, database_lock
from dashboard.upstream.connection import configured_source
from tests.support import factories

PATH = os.environ["PATH"]
ON_POSTGRESQL = connection.vendor == "postgresql"
# Sessions and workers are not restored.
NOT_RESTORED = {"dashboard_session", "dashboard_worker"}

pytestmark = pytest.mark.django_db(transaction=True)
only_sqlite = pytest.mark.skipif(ON_POSTGRESQL, reason="files of SQLite")
only_postgresql = pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite needs no programs")


def run(*arguments: object) -> str:
    output = io.StringIO()
    call_command(*map(str, arguments), stdout=output)
    return output.getvalue()


def error_of(*arguments: object) -> str:
    """Return a command's error; it must have left the database as it was."""
    before = all_rows()
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert all_rows() == before
    return str(error.value)


def all_rows() -> dict[str, list[tuple[Any, ...]]]:
    tables = sorted(set(connection.introspection.table_names()) - NOT_RESTORED)
    with connection.cursor() as cursor:
        rows = {}
        for table in tables:
            cursor.execute(f"SELECT * FROM {table}")
            rows[table] = sorted(cursor.fetchall(), key=repr)
    return rows


@pytest.fixture
def hostile_data(manager: User) -> Run:
    """Rows with texts that quoting, encodings and line ends may spoil."""
    text = factories.HOSTILE + "\\N\\.\t\r\n\\. %s ' \" $$ \\\\ ü\u2028" + "🚀"
    stage = factories.stage(parent=factories.pipeline(name=text))
    steps = msgspec.to_builtins(factories.node(label=text, status="failure"))
    run = factories.run(stage, "x" * 200, status="failure", name=text, steps=steps)
    abort = factories.abort(run, manager, "refused", reason=text, settled_at=timezone.now())
    abort.add_event(EventType.REQUESTED, timezone.now(), detail=text)
    access_log.record(AccessKind.SIGNED_IN, timezone.now(), user=manager, detail=text)
    Upstream.objects.create(pk=1, source=configured_source(), error_message=text)
    return run


@pytest.fixture
def file(hostile_data: Run, tmp_path: Path) -> Path:
    """A backup of the hostile data."""
    run("backup", tmp_path / "backup")
    return tmp_path / "backup"


def test_restore_brings_back_all_rows(
    hostile_data: Run, client: Client, manager: User, tmp_path: Path
) -> None:
    client.force_login(manager)
    before = all_rows()
    run("backup", tmp_path / "backup")
    factories.run(hostile_data.stage)
    Project.objects.update(name="Changed")
    User.objects.create_user("new")
    run("restore", tmp_path / "backup", "--replace")
    assert all_rows() == before
    assert "sessionid" in client.cookies
    assert client.get("/").status_code == 302  # the session was not restored


def test_restored_database_refuses_to_delete_aborts(file: Path) -> None:
    run("restore", file, "--replace")
    assert append_only.are_triggers_installed(connection)
    for table in ("dashboard_abortevent", "dashboard_abort", "dashboard_accessevent"):
        with (
            pytest.raises(DatabaseError, match="cannot be deleted"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(f"DELETE FROM {table}")


def test_restored_database_accepts_new_rows(file: Path, hostile_data: Run) -> None:
    run("restore", file, "--replace")
    new = factories.run(hostile_data.stage)
    assert new.pk > hostile_data.pk


def test_backup_is_readable_by_owner_only(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_backup_is_made_beside_an_open_transaction(hostile_data: Run, tmp_path: Path) -> None:
    before = all_rows()
    with other_transaction():
        run("backup", tmp_path / "backup")
    factories.run(hostile_data.stage)
    run("restore", tmp_path / "backup", "--replace")
    assert all_rows() == before


@contextmanager
def other_transaction() -> Iterator[None]:
    """Hold an open transaction that has written, of another connection, until the block ends."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE dashboard_project SET name = 'Uncommitted'")
            yield
            cursor.execute("ROLLBACK")
    finally:
        other.close()


def test_backup_never_overwrites_a_file(file: Path) -> None:
    before = file.read_bytes()
    assert "exists already" in error_of("backup", file)
    assert file.read_bytes() == before


def test_backup_into_missing_folder_is_refused(hostile_data: Run, tmp_path: Path) -> None:
    assert "Cannot write" in error_of("backup", tmp_path / "missing" / "backup")


# What exceeds SQLite's cache is written before the end, which takes a journal.
@pytest.mark.parametrize("megabytes", [0, 12])
def test_backup_that_fails_midway_leaves_no_file(
    hostile_data: Run, tmp_path: Path, megabytes: int
) -> None:
    Upstream.objects.update(error_message=os.urandom(megabytes * 500_000).hex())
    limit = max(8192, megabytes * 300_000)  # pg_dump compresses it to half
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # as if the disk were full
    try:
        with pytest.raises(CommandError):
            run("backup", tmp_path / "backup")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_restore_into_database_with_data_needs_replace(file: Path) -> None:
    assert "--replace" in error_of("restore", file)


def test_restore_names_its_database_before_it_acts(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = connection.settings_dict
    target = f"the SQLite database {database['NAME']}"
    if ON_POSTGRESQL:
        host, port = database["HOST"], database["PORT"]
        target = f"the PostgreSQL database {database['NAME']} on {host}:{port}"
    with pytest.raises(CommandError):  # without --replace
        call_command("restore", str(file))
    assert capsys.readouterr().out == f"Restoring {file} into {target}.\n"


def test_restore_while_worker_is_alive_is_refused(file: Path) -> None:
    factories.leader("host:1")
    assert "The dashboard is running (host:1)" in error_of("restore", file, "--replace")


def test_interrupted_restore_says_what_to_do(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "restore", interrupt)
    assert "`restore --replace` again" in error_of("restore", file, "--replace")


def test_restore_after_worker_was_killed_is_possible(file: Path) -> None:
    factories.leader(renewed_at=timezone.now() - timedelta(minutes=1))
    run("restore", file, "--replace")


def test_restore_of_newer_schema_is_refused(hostile_data: Run, tmp_path: Path) -> None:
    sql = "INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)"
    with connection.cursor() as cursor:
        cursor.execute(sql, ["dashboard", "9999_future", timezone.now()])
        try:
            run("backup", tmp_path / "backup")
        finally:
            cursor.execute("DELETE FROM django_migrations WHERE name = '9999_future'")
    message = error_of("restore", tmp_path / "backup", "--replace")
    assert "a newer version of the dashboard (it has 9999_future)" in message


@pytest.fixture
def uninstalled_app(hostile_data: Run) -> Iterator[None]:
    """An app of an identity provider that is set no more: a migration and a table with a row."""
    sql = "INSERT INTO django_migrations (app, name, applied) VALUES ('account', %s, %s)"
    with connection.cursor() as cursor:
        cursor.execute(sql, ["0001_initial", timezone.now()])
        cursor.execute("CREATE TABLE account_emailaddress (email varchar(40) PRIMARY KEY)")
        cursor.execute("INSERT INTO account_emailaddress VALUES ('a@example.com')")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE account_emailaddress")
        cursor.execute("DELETE FROM django_migrations WHERE app = 'account'")


@pytest.mark.usefixtures("uninstalled_app")
def test_restore_brings_back_tables_of_an_app_that_is_not_installed(tmp_path: Path) -> None:
    before = all_rows()
    run("backup", tmp_path / "backup")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM account_emailaddress")
    run("restore", tmp_path / "backup", "--replace")
    assert before["account_emailaddress"] == [("a@example.com",)]
    assert all_rows() == before


@pytest.mark.parametrize("content", [b"", b"SQLite", b"PGDMPnonsense", b"<html>" * 1000])
def test_restore_of_another_file_is_refused(
    content: bytes, hostile_data: Run, tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes(content)
    assert error_of("restore", tmp_path / "other", "--replace")


def test_restore_of_missing_file_is_refused(hostile_data: Run, tmp_path: Path) -> None:
    reason = "could not open" if ON_POSTGRESQL else "unable to open"
    assert reason in error_of("restore", tmp_path / "missing", "--replace")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_restore_of_truncated_file_is_refused(share: float, file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    message = error_of("restore", file, "--replace")
    assert "pg_restore: " in message if ON_POSTGRESQL else "damaged or incomplete" in message


@pytest.mark.parametrize("text", [b"dashboard_star", b"NULL"])
def test_restore_of_a_file_whose_schema_is_not_utf8_is_refused(text: bytes, file: Path) -> None:
    """SQLite and PostgreSQL quote it in their errors."""
    file.write_bytes(file.read_bytes().replace(text, b"\xff" + text[1:]))
    message = error_of("restore", file, "--replace")
    assert ("pg_restore: " if ON_POSTGRESQL else "damaged or incomplete") in message


@only_sqlite
def test_restore_of_a_file_whose_index_differs_from_its_table_is_refused(
    hostile_data: Run, tmp_path: Path
) -> None:
    """A damage within a value: each page of the file is well formed."""
    factories.run(hostile_data.stage, "indexed-run")
    run("backup", tmp_path / "backup")
    whole = (tmp_path / "backup").read_bytes()
    (tmp_path / "backup").write_bytes(whole.replace(b"indexed-run", b"indexed-ruN", 1))
    assert "damaged or incomplete" in error_of("restore", tmp_path / "backup", "--replace")


@only_sqlite
def test_restore_of_another_sqlite_database_is_refused(hostile_data: Run, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    message = error_of("restore", tmp_path / "other", "--replace")
    assert message == "This is not a backup of this dashboard."


def test_restore_while_database_is_in_use_is_refused(file: Path) -> None:
    before = all_rows()
    with other_transaction(), pytest.raises(backup.BackupError):
        backup.restore(file, replaces=True)
    assert all_rows() == before


@only_sqlite
def test_restore_beside_serve_or_another_restore_is_refused(file: Path, hostile_data: Run) -> None:
    factories.run(hostile_data.stage)
    before = all_rows()
    with lock():
        assert error_of("restore", file, "--replace").startswith("Another process serves from ")
    assert all_rows() == before


@contextmanager
def lock() -> Iterator[None]:
    """Hold the lock of a process that serves, until the block ends."""
    handle = database_lock.acquire()
    try:
        yield
    finally:
        os.close(handle)


@pytest.fixture
def pg_dump(settings: Settings) -> str:
    """The path of the program of the server's version."""
    major = connection.pg_version // 10_000  # type: ignore[attr-defined]
    folder = settings.POSTGRESQL_PROGRAM_FOLDER
    path = shutil.which("pg_dump", path=f"{folder}/{major}/bin{os.pathsep}{PATH}")
    assert path
    return path


@pytest.fixture
def programs(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs, of each version as on Debian, and in PATH."""
    settings.POSTGRESQL_PROGRAM_FOLDER = tmp_path
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def write_pg_dump(folder: Path, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "pg_dump"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


@only_postgresql
def test_backup_without_pg_dump_says_what_to_install(
    hostile_data: Run, tmp_path: Path, programs: Path
) -> None:
    message = error_of("backup", tmp_path / "backup")
    assert message.startswith("pg_dump is not installed. Install PostgreSQL's client programs")


@only_postgresql
def test_backup_by_pg_dump_of_another_version_is_refused(
    hostile_data: Run, tmp_path: Path, programs: Path
) -> None:
    """A server need not accept what a newer program has written."""
    write_pg_dump(programs, 'echo "pg_dump (PostgreSQL) 99.1"')
    message = error_of("backup", tmp_path / "backup")
    assert "not of the server's version: pg_dump (PostgreSQL) 99.1" in message
    assert message.endswith("and put them first in PATH.")


@only_postgresql
def test_backup_is_made_by_pg_dump_of_the_server_version_beside_a_newer_one_in_path(
    hostile_data: Run, tmp_path: Path, pg_dump: str, programs: Path
) -> None:
    major = connection.pg_version // 10_000  # type: ignore[attr-defined]
    write_pg_dump(programs, 'echo "pg_dump (PostgreSQL) 99.1"')
    write_pg_dump(programs / str(major) / "bin", f'exec {pg_dump} "$@"')
    run("backup", tmp_path / "backup")
    assert (tmp_path / "backup").read_bytes().startswith(b"PGDMP")
