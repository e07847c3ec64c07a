"""The commands in real processes, with real signals and real databases."""

import contextlib
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from selectolax.lexbor import LexborHTMLParser

from dashboard import __version__
from dashboard.sandbox import parse_fault
from tests.support import databases, live, processes
from tests.support.live import token
from tests.support.live_runs import wait_until
from tests.support.processes import (
    environment,
    manage,
    run_manage,
    start,
    upstream,
)

pytestmark = pytest.mark.process

# Seconds. One is enough on an idle machine; a busy one is slower.
SHUTDOWN_SECONDS = 8  # on a busy machine; what it must not wait for takes ten or more
MANAGE = [sys.executable, "manage.py"]


@pytest.fixture(scope="module")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with one account, boss/boss, to be copied, since migrating is slow."""
    file = tmp_path_factory.mktemp("migrated") / "d.sqlite3"
    variables = {"DATABASE_URL": f"sqlite:///{file}", "NORTHFLANK_API_TOKEN": "sandbox"}
    processes.prepare_database(**variables)
    return file


@pytest.fixture
def database(migrated_database: Path, tmp_path: Path) -> str:
    with contextlib.closing(sqlite3.connect(migrated_database)) as source:
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "d.sqlite3").write_bytes(migrated_database.read_bytes())
    return f"sqlite:///{tmp_path / 'd.sqlite3'}"


def abortable_run_address(client: httpx.Client) -> str:
    """Wait until a run that can be aborted is on the first page, and return its address."""

    def find_run() -> str:
        page = LexborHTMLParser(client.get("/").text)
        for row in page.css("[data-run]"):
            if row.css_first("[data-abort]") and row.attributes["data-status"] != "aborting":
                return str(row.attributes["data-run"])
        return ""

    run_id = wait_until(find_run, processes.WAIT_TIMEOUT)
    return str(client.get(f"/runs/{run_id}/").headers["location"])


def post_abort(client: httpx.Client, address: str, **options: float) -> httpx.Response:
    form = {"csrfmiddlewaretoken": token(client), "pick": "Stuck"}
    return client.post(f"{address}abort/", data=form, **options)  # type: ignore[arg-type]


def post_abort_and_disconnect(client: httpx.Client, address: str) -> None:
    with contextlib.suppress(httpx.ReadTimeout):
        post_abort(client, address, timeout=1.0)


def query(database: str, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        rows = connection.execute(sql).fetchall()
        connection.commit()
    return rows


# --- one process -------------------------------------------------------------------------------


@pytest.mark.slow
def test_serve_shows_runs_and_stops_on_ctrl_c_while_abort_waits(
    tmp_path: Path, database: str
) -> None:
    origin = str(live.options().schedule_origin)
    arguments = ["serve", "--port", "0", "--origin", origin, "--fault", "latency:20@/abort"]
    with start([*MANAGE, *arguments], tmp_path, DATABASE_URL=database) as dashboard:
        assert dashboard.startup_lines == [f"Release flows on {dashboard.base_url}/"]
        assert dashboard.create_client().get("/healthz").text == f"ok {__version__}\n"
        assert dashboard.create_client().get("/").headers["location"] == "/accounts/login/?next=/"
        viewer, manager = dashboard.sign_in("viewer"), dashboard.sign_in("manager")
        assert viewer.get("/").status_code == 200
        address = abortable_run_address(manager)
        post_abort_and_disconnect(manager, address)
        assert post_abort(viewer, address).status_code == 403
        # The client may have gone before the abort was recorded.
        sql = "SELECT state FROM dashboard_abort"
        wait_until(lambda: query(database, sql) == [("requested",)], processes.WAIT_TIMEOUT)
        seconds = dashboard.end(signal.SIGINT)
        assert dashboard.process.returncode == 0, dashboard.log.read_text()
        assert seconds < SHUTDOWN_SECONDS
        # The sandbox's server logs the request that it drops; ours logs nothing.
        assert "dashboard/asgi.py" not in dashboard.log.read_text()


def test_serve_stops_on_sigterm_while_northflank_is_slow(tmp_path: Path, database: str) -> None:
    arguments = ["serve", "--port", "0", "--fault", "latency:20"]
    with run_manage(tmp_path, *arguments, DATABASE_URL=database) as dashboard:
        assert dashboard.create_client().get("/readyz").text == "ready\n"
        seconds = dashboard.end(signal.SIGTERM)
        assert dashboard.process.returncode == 0, dashboard.log.read_text()
        assert seconds < SHUTDOWN_SECONDS


@pytest.mark.slow
def test_serve_with_new_database_needs_no_preparation(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'new' / 'd.sqlite3'}"
    with start([*MANAGE, "serve", "--port", "0"], tmp_path, DATABASE_URL=database) as dashboard:
        assert dashboard.sign_in("manager").get("/").status_code == 200
        # It holds the keys of sessions.
        assert [file for file in (tmp_path / "new").iterdir() if file.stat().st_mode & 0o077] == []
        assert dashboard.end(signal.SIGTERM) < SHUTDOWN_SECONDS
        assert dashboard.process.returncode == 0


@pytest.mark.slow
def test_serve_with_refused_token_logs_setting_once_and_goes_on(
    database: str, tmp_path: Path
) -> None:
    with upstream() as (url, _):
        given = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "mistyped",
            "NORTHFLANK_API_BASE_URL": url,
        }
        with run_manage(tmp_path, "serve", "--port", "0", **given) as dashboard:

            def lines() -> list[str]:
                text = dashboard.log.read_text()
                return [line for line in text.splitlines() if "NORTHFLANK_API_TOKEN" in line]

            [line] = wait_until(lines, processes.WAIT_TIMEOUT)
            assert "northflank.unavailable" in line
            assert "the token may be incomplete, expired or revoked" in line
            assert "mistyped" not in dashboard.log.read_text()
            assert dashboard.create_client().get("/healthz").status_code == 200
            assert dashboard.end(signal.SIGTERM) < SHUTDOWN_SECONDS
            assert lines() == [line]


INVALID_STARTS = {
    "no sync and no upstream to share": (
        ["serve", "--port", "0", "--no-sync"],
        {},
        "--no-sync needs an upstream",
    ),
    "a sync with nothing to read": (["sync"], {}, "NORTHFLANK_API_TOKEN is not set"),
    "a sync of its own on SQLite": (
        ["sync"],
        {"NORTHFLANK_API_TOKEN": "sandbox"},
        "Separate processes require PostgreSQL",
    ),
    "a switch that is neither on nor off": (
        ["serve", "--port", "0"],
        {"ABORTS_ENABLED": "maybe"},
        "(dashboard.E001)",
    ),
}


@pytest.mark.parametrize("name", INVALID_STARTS)
def test_invalid_start_exits_with_reason(tmp_path: Path, name: str) -> None:
    arguments, variables, reason = INVALID_STARTS[name]
    result = manage(*arguments, DATABASE_URL=f"sqlite:///{tmp_path / 'd.sqlite3'}", **variables)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert reason in output
    assert "Traceback" not in output


@pytest.mark.parametrize("command", ["serve", "sandbox"])
def test_port_in_use_is_reported(command: str, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        result = manage(command, "--port", port, DATABASE_URL=database)
    assert result.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "status", "reason"),
    [("", 2, "--host: must not be empty"), ("ä..b", 1, "Cannot listen on ä..b")],
    ids=["empty", "invalid"],
)
def test_invalid_host_is_refused(database: str, host: str, status: int, reason: str) -> None:
    result = manage("serve", "--port", "0", "--host", host, DATABASE_URL=database)
    assert result.returncode == status
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_sandbox_prints_the_address_it_listens_on(tmp_path: Path) -> None:
    with run_manage(tmp_path, "sandbox", "--port", "0") as sandbox:
        assert sandbox.startup_lines == [f"Sandbox on {sandbox.base_url}/v1/"]
        headers = {"Authorization": "Bearer sandbox"}
        response = sandbox.create_client().get("/v1/projects", headers=headers)
        assert response.json()["data"]["projects"]
        sandbox.end(signal.SIGINT)
        assert sandbox.process.returncode == 0
        assert sandbox.log.read_text() == ""


def test_serve_with_database_of_other_northflank_is_rejected(database: str) -> None:
    query(
        database,
        "INSERT INTO dashboard_upstream (id, source, team, error,"
        " error_message, error_seq) VALUES (1, 'sandbox', '', '', '', 0)",
    )
    result = manage("serve", "--port", "0", DATABASE_URL=database, NORTHFLANK_API_TOKEN="real")
    assert result.returncode == 1
    assert "This database mirrors sandbox, but the settings are for https://api.northflank.com" in (
        result.stderr
    )
    assert "Traceback" not in result.stderr


# --- an external upstream ----------------------------------------------------------------------


@pytest.mark.slow
def test_abort_after_process_was_killed_is_reconciled_by_next_process(
    tmp_path: Path, database: str
) -> None:
    with upstream() as (url, sandbox):
        sandbox.choices["abort-seconds"] = "0.2"
        sandbox.faults = [parse_fault("reset-after:30@abort-")]
        variables = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        with run_manage(tmp_path, "serve", "--port", "0", **variables) as first:
            stranger = first.sign_in("manager")
            assert stranger.get("/").headers["location"].startswith("/accounts/login/")
            client = first.sign_in("boss")
            address = abortable_run_address(client)
            run_id = address.rstrip("/").rsplit("/", 1)[1]
            post_abort_and_disconnect(client, address)
            wait_until(lambda: sandbox.abort_request_counts[run_id] == 1, processes.WAIT_TIMEOUT)
            first.end(signal.SIGKILL)
        sql = "SELECT state, outcome, responded_at FROM dashboard_abort"
        assert query(database, sql) == [("requested", "", None)]
        # Expire the lease, without waiting for it.
        query(database, "UPDATE dashboard_abort SET claimed_at = '2020-01-01 00:00:00'")
        with run_manage(tmp_path, "serve", "--port", "0", **variables) as second:
            client = second.sign_in("boss")
            expected = [("concluded", "aborted", None)]
            wait_until(lambda: query(database, sql) == expected, processes.WAIT_TIMEOUT)
            assert "Aborted" in client.get(address).text
            assert second.end(signal.SIGTERM) < SHUTDOWN_SECONDS
        assert sandbox.abort_request_counts == {run_id: 1}


# --- several processes -------------------------------------------------------------------------


@pytest.fixture
def empty_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL database that is created for the test, and dropped after it."""
    with databases.postgres() as url:
        yield url


@pytest.mark.slow
@pytest.mark.postgres
def test_stages_of_killed_leader_are_read_once_by_another_process(
    tmp_path: Path, empty_postgres: str
) -> None:
    with (
        upstream() as (url, sandbox),
        psycopg.connect(empty_postgres, autocommit=True) as database,
    ):
        variables = {
            "DATABASE_URL": empty_postgres,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        assert manage("migrate", "-v0", **variables).returncode == 0

        def count(table: str) -> int:
            row = database.execute(f"SELECT count(*) FROM {table}").fetchone()
            return int(row[0]) if row else 0

        sandbox.faults = [parse_fault("latency:10@/release-flows/")]
        with run_manage(tmp_path, "sync", **variables) as killed_leader:
            wait_until(
                lambda: any("/release-flows/" in path for _, path in list(sandbox.requests)),
                processes.WAIT_TIMEOUT,
            )
            killed_leader.end(signal.SIGKILL)
        # Expire its lead, without waiting for it.
        database.execute("UPDATE dashboard_lead SET renewed_at = now() - interval '16 seconds'")
        sandbox.faults = []
        sandbox.requests.clear()
        with run_manage(tmp_path, "sync", **variables), run_manage(tmp_path, "sync", **variables):
            unread = "dashboard_stage WHERE synced_at IS NULL"
            wait_until(lambda: count("dashboard_stage") == 27, processes.WAIT_TIMEOUT)
            wait_until(lambda: count(unread) == 0, processes.WAIT_TIMEOUT)
            assert count("dashboard_lead WHERE epoch = 2") == 1
        # Runs in flight may be due again by then.
        lists = [
            path for _, path in sandbox.requests if re.search(r"/release-flows/\w+/runs$", path)
        ]
        assert len(set(lists)) >= 27
        assert len(lists) <= len(set(lists)) + 3


@pytest.mark.slow
def test_second_serve_on_a_sqlite_file_is_refused_until_the_first_has_ended(
    tmp_path: Path, database: str
) -> None:
    serve = [*MANAGE, "serve", "--port", "0"]
    with start(serve, tmp_path, DATABASE_URL=database) as first:
        first.create_client().get("/healthz")
        second = subprocess.run(
            serve,
            env=environment(DATABASE_URL=database),
            capture_output=True,
            text=True,
            check=False,
            timeout=processes.WAIT_TIMEOUT,
        )
        assert second.returncode == 1
        assert f"Another process serves from {tmp_path / 'd.sqlite3'} " in second.stderr
        assert "Several processes need PostgreSQL" in second.stderr
        assert "Traceback" not in second.stderr
        first.end(signal.SIGKILL)
    with start(serve, tmp_path, DATABASE_URL=database) as third:
        assert third.create_client().get("/healthz").status_code == 200


def test_folder_without_place_for_a_lock_is_reported(tmp_path: Path) -> None:
    (tmp_path / "d.sqlite3.lock").mkdir()
    result = manage("serve", "--port", "0", DATABASE_URL=f"sqlite:///{tmp_path / 'd.sqlite3'}")
    assert result.returncode == 1
    assert "Cannot lock the database: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.postgres
def test_processes_that_start_together_migrate_once_and_add_one_administrator(
    tmp_path: Path, empty_postgres: str
) -> None:
    variables = {
        "DATABASE_URL": empty_postgres,
        "NORTHFLANK_API_TOKEN": "sandbox",
        "NORTHFLANK_API_BASE_URL": "http://127.0.0.1:9",
        "ADMIN_PASSWORD": "correct horse",
    }
    command = ("serve", "--port", "0", "--no-sync", "--migrate")
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as threads:
        starts = [
            threads.submit(stack.enter_context, run_manage(tmp_path, *command, **variables))
            for _ in range(3)
        ]
        for process in starts:
            assert process.result().create_client().get("/readyz").text == "ready\n"
    with psycopg.connect(empty_postgres) as database:
        assert database.execute("SELECT username FROM auth_user").fetchall() == [("admin",)]


@pytest.mark.postgres
def test_abort_under_way_gets_its_answer_while_another_process_serves(
    tmp_path: Path, empty_postgres: str
) -> None:
    with upstream() as (url, sandbox), ThreadPoolExecutor() as threads:
        variables = {
            "DATABASE_URL": empty_postgres,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        processes.prepare_database(**variables)
        web = run_manage(tmp_path, "serve", "--port", "0", "--no-sync", **variables)
        with run_manage(tmp_path, "sync", **variables), web as pages:
            client = pages.sign_in("boss")
            address = abortable_run_address(client)
            sandbox.faults = [parse_fault("latency:3@/abort")]
            response = threads.submit(post_abort, client, address)
            wait_until(lambda: sandbox.abort_request_counts, processes.WAIT_TIMEOUT)
            pages.end(signal.SIGTERM)
            assert pages.process.returncode == 0, pages.log.read_text()
            assert response.result().status_code == 302
        with psycopg.connect(empty_postgres) as database:
            states = database.execute("SELECT state FROM dashboard_abort").fetchall()
            assert states == [("accepted",)]


@pytest.mark.postgres
def test_serve_and_sync_in_separate_processes_work(tmp_path: Path, empty_postgres: str) -> None:
    with upstream() as (url, sandbox):
        sandbox.choices["abort-seconds"] = "0.2"
        variables = {
            "DATABASE_URL": empty_postgres,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        result = manage("serve", "--port", "0", "--no-sync", **variables)
        assert result.returncode == 1
        assert "run `manage.py migrate` first" in result.stderr
        assert "Traceback" not in result.stderr
        processes.prepare_database(**variables)
        web = run_manage(tmp_path, "serve", "--port", "0", "--no-sync", **variables)
        sync = run_manage(tmp_path, "sync", **variables)
        with web as pages, sync as reader:
            client = pages.sign_in("boss")
            address = abortable_run_address(client)
            assert post_abort(client, address).status_code == 302
            with psycopg.connect(empty_postgres, autocommit=True) as database:

                def is_aborted() -> bool:
                    rows = database.execute("SELECT outcome FROM dashboard_abort").fetchall()
                    return rows == [("aborted",)]

                wait_until(is_aborted, processes.WAIT_TIMEOUT)
            assert "Aborted" in client.get(address).text
            assert sum(sandbox.abort_request_counts.values()) == 1
            assert reader.end(signal.SIGTERM) < SHUTDOWN_SECONDS
            assert pages.end(signal.SIGTERM) < SHUTDOWN_SECONDS
            assert (reader.process.returncode, pages.process.returncode) == (0, 0)
