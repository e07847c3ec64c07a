"""Upgrades from the schema of 0001: what it has recorded stays, and both versions can serve.

The older version is the last commit with that schema, from the history of this repository.
"""

import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.conf import settings

from dashboard.sandbox.sandbox import Sandbox
from tests.support.databases import LEDGER, abort_path, postgres, query_database
from tests.support.html import parse_html, text_of
from tests.support.live import WAIT_TIMEOUT, token
from tests.support.live_runs import wait_until
from tests.support.processes import (
    RunningProcess,
    environment,
    manage,
    run_manage,
    start,
    upstream,
)

pytestmark = pytest.mark.process

OLDER_VERSION = "07c1559033bfdf66fc834b34816cc8750c905319"


@pytest.fixture(scope="module")
def older_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the older version."""
    folder = tmp_path_factory.mktemp("older")
    archive = subprocess.run(
        ["git", "archive", OLDER_VERSION], cwd=settings.BASE_DIR, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"A clone without its history has no older version: {archive.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def older_command(older_version: Path) -> list[str]:
    # Its lines would count as those of this version's files.
    return ["env", "--unset=PYTHONPATH", sys.executable, str(older_version / "manage.py")]


def create_older_database(older_version: Path, **variables: str) -> None:
    """Create the older version's tables, and the account “boss”."""
    command = older_command(older_version)
    for arguments in (["migrate", "-v0"], ["createsuperuser", "--noinput", "--username=boss"]):
        subprocess.run([*command, *arguments], env=environment(**variables), check=True)


@contextmanager
def older_dashboard(
    older_version: Path, folder: Path, **variables: str
) -> Iterator[RunningProcess]:
    """Run the older version with a new database, with the account “boss”."""
    create_older_database(older_version, **variables)
    command = [*older_command(older_version), "serve", "--port", "0"]
    with start(command, folder, **variables) as process:
        yield process


def variables(database: str, upstream_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database,
        "NORTHFLANK_API_TOKEN": "sandbox",
        "NORTHFLANK_API_BASE_URL": upstream_url,
        "DJANGO_SUPERUSER_PASSWORD": "boss",
        "DJANGO_SUPERUSER_EMAIL": "boss@example.com",
    }


def start_run(sandbox: Sandbox) -> str:
    flow = sandbox.world.find_flow(*LEDGER)
    assert flow is not None
    return sandbox.world.start_run(flow, sandbox.clock(), {}).id


def run_page(client: httpx.Client, run_id: str) -> httpx.Response:
    return client.get(abort_path(run_id).removesuffix("abort/"))


def step_names(client: httpx.Client, run_id: str) -> list[str]:
    """Return the steps that a run's page shows."""
    answer = run_page(client, run_id)
    assert answer.status_code == 200, answer.text
    return [text_of(name) for name in parse_html(answer).css("[data-steps] .step-name bdi")]


def read_steps(client: httpx.Client, run_id: str) -> list[str]:
    """Open a run's page until its steps have been read, and return them."""
    wait_until(lambda: run_page(client, run_id).status_code == 200, WAIT_TIMEOUT)
    wait_until(lambda: bool(step_names(client, run_id)), WAIT_TIMEOUT)
    return step_names(client, run_id)


def abort(client: httpx.Client, run_id: str) -> None:
    data = {"csrfmiddlewaretoken": token(client), "reason": f"Stuck: {run_id}"}
    answer = client.post(abort_path(run_id), data=data)
    assert answer.status_code == 302, answer.text


def abort_log(client: httpx.Client) -> list[dict[str, Any]]:
    """Return the exported aborts, without what sending them again or a run's end still changes."""
    columns = ("id", "requested_at", "username", "reason", "run_id", "run_name")
    rows = json.loads(client.get("/aborts/export.json").text)
    return [{column: row[column] for column in columns} for row in rows]


def pages(client: httpx.Client) -> list[int]:
    return [client.get(path).status_code for path in ("/", "/board/", "/aborts/", "/status/")]


# Whether a migration waits for a lock, or has not got those that it asked for.
MIGRATION_WAITS = """
    SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (wait_event_type = 'Lock' OR query LIKE 'RELEASE SAVEPOINT%')
"""


@pytest.mark.slow
@pytest.mark.postgres
def test_migration_and_transaction_of_older_version_do_not_lock_each_other_out() -> None:
    with postgres() as database, ThreadPoolExecutor(1) as executor:
        given = {"DATABASE_URL": database}
        assert manage("migrate", "dashboard", "0001_initial", "-v0", **given).returncode == 0
        with psycopg.connect(database) as older, psycopg.connect(database) as observer:
            observer.autocommit = True
            older.execute("LOCK TABLE dashboard_run IN ROW EXCLUSIVE MODE")
            arguments = "migrate", "dashboard", "0002", "-v0"
            migration = executor.submit(manage, *arguments, **given)
            wait_until(lambda: observer.execute(MIGRATION_WAITS).fetchone(), WAIT_TIMEOUT)
            older.execute("LOCK TABLE dashboard_stage IN ROW EXCLUSIVE MODE")
            older.commit()
            migrated = migration.result()
        assert migrated.returncode == 0, migrated.stderr


@pytest.mark.slow
@pytest.mark.postgres
def test_two_versions_serve_side_by_side_and_lose_nothing(
    older_version: Path, tmp_path: Path
) -> None:
    with postgres() as database, upstream() as (url, sandbox):
        given = variables(database, url)
        with older_dashboard(older_version, tmp_path, **given) as older:
            client = older.sign_in("boss")
            first = start_run(sandbox)
            first_steps = read_steps(client, first)
            abort(client, first)
            migrated = manage("migrate", "dashboard", "0003_compress_steps", "-v0", **given)
            assert migrated.returncode == 0, migrated.stderr
            # Without a sync worker of its own, what is read now is read by the older version.
            with run_manage(tmp_path, "serve", "--port", "0", "--no-sync", **given) as newer:
                assert "Pending: dashboard.0004_drop_uncompressed_steps" in newer.log.read_text()
                new_client = newer.sign_in("boss")
                assert pages(client) == pages(new_client) == [200] * 4
                assert step_names(new_client, first) == step_names(client, first) == first_steps
                second = start_run(sandbox)
                second_steps = read_steps(client, second)
                abort(new_client, second)
                third = start_run(sandbox)
                read_steps(client, third)
                abort(client, third)
                log = abort_log(new_client)
                assert (len(log), log) == (3, abort_log(client))
                older.end(signal.SIGINT)
                migrated = manage("migrate", "-v0", **given)
                assert migrated.returncode == 0, migrated.stderr
                assert pages(new_client) == [200] * 4
                assert step_names(new_client, first) == first_steps
                assert step_names(new_client, second) == second_steps
                assert abort_log(new_client) == log


@pytest.mark.slow
@pytest.mark.postgres
def test_older_version_serves_again_until_migrations_after_the_restart(
    older_version: Path, tmp_path: Path
) -> None:
    with postgres() as database, upstream() as (url, sandbox):
        given = variables(database, url)
        create_older_database(older_version, **given)
        succeed("migrate", "dashboard", "0003_compress_steps", "-v0", **given)
        with run_manage(tmp_path, "serve", "--port", "0", **given) as newer:
            client = newer.sign_in("boss")
            run_id = start_run(sandbox)
            steps = read_steps(client, run_id)
            abort(client, run_id)
            log = abort_log(client)
        command = [*older_command(older_version), "serve", "--port", "0"]
        with start(command, tmp_path, **given) as older:
            client = older.sign_in("boss")
            assert [*pages(client), client.get("/access/").status_code] == [200] * 5
            assert read_steps(client, run_id) == steps
            assert abort_log(client) == log
        succeed("migrate", "-v0", **given)
        with start(command, tmp_path, **given) as older:
            assert older.sign_in("boss").get("/").status_code == 500


@pytest.mark.slow
def test_sqlite_file_of_older_version_is_upgraded_at_the_start(
    older_version: Path, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    with upstream() as (url, sandbox):
        given = variables(database, url)
        with older_dashboard(older_version, tmp_path, **given) as older:
            client = older.sign_in("boss")
            run_id = start_run(sandbox)
            steps = read_steps(client, run_id)
            abort(client, run_id)
            log = abort_log(client)
            older.end(signal.SIGINT)
        before = query_database(database, "SELECT count(*) FROM dashboard_run")
        with run_manage(tmp_path, "serve", "--port", "0", **given) as newer:
            client = newer.sign_in("boss")
            assert pages(client) == [200] * 4
            assert step_names(client, run_id) == steps
            assert abort_log(client) == log
        assert query_database(database, "SELECT count(*) FROM dashboard_run") >= before
    columns = {row[1] for row in query_database(database, "PRAGMA table_info(dashboard_run)")}
    assert columns.isdisjoint({"raw", "steps"})


@contextmanager
def new_database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database of this kind."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'd.sqlite3'}"
    else:
        with postgres() as database:
            yield database


def succeed(*arguments: str, **variables: str) -> None:
    result = manage(*arguments, **variables)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_backups_of_older_version_database_before_and_after_its_upgrade_are_restored(
    older_version: Path, tmp_path: Path, kind: str
) -> None:
    """Django keeps the tables and the migrations of apps that are not installed any more."""
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    with new_database(kind, tmp_path) as database:
        given = variables(database, "http://127.0.0.1:9")
        create_older_database(older_version, **given)
        for file in (before, after):
            succeed("backup", file, **given)
            succeed("restore", file, "--replace", **given)  # and migrate
            assert query_database(database, "SELECT username FROM auth_user") == [("boss",)]
            assert query_database(database, "SELECT count(*) FROM django_session") == [(0,)]
            succeed("migrate", "--check", **given)
