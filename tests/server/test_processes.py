"""The commands as people run them: real processes, real signals, real databases."""

import contextlib
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from selectolax.lexbor import LexborHTMLParser

from dashboard.sandbox import parse_fault
from tests.support import databases, live, processes
from tests.support.flights import eventually
from tests.support.live import token
from tests.support.processes import Running, environment, manage, running, start, upstream

pytestmark = pytest.mark.process

# Seconds. It takes one at most where nothing else runs; a machine full of tests is slower.
AT_ONCE = 3
MANAGE = [sys.executable, "manage.py"]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the one account boss/boss, to be copied: migrating takes its time."""
    file = tmp_path_factory.mktemp("migrated") / "d.sqlite3"
    given = {"DATABASE_URL": f"sqlite:///{file}", "NORTHFLANK_API_TOKEN": "sandbox"}
    assert manage("migrate", "-v0", **given).returncode == 0
    made = manage(
        "createsuperuser", "--noinput", "--username=boss", "--email=",
        DJANGO_SUPERUSER_PASSWORD="boss", **given,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return file


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> str:
    with contextlib.closing(sqlite3.connect(migrated)) as source:
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "d.sqlite3").write_bytes(migrated.read_bytes())
    return f"sqlite:///{tmp_path / 'd.sqlite3'}"


def a_run(person: httpx.Client) -> str:
    """Wait until a run that can be aborted is on the first page, and return its address."""

    def look() -> str:
        page = LexborHTMLParser(person.get("/").text)
        for row in page.css("[data-run]"):
            if row.css_first("[data-abort]") and row.attributes["data-status"] != "aborting":
                return str(row.attributes["data-run"])
        return ""

    run_id = eventually(look, processes.PATIENCE)
    return str(person.get(f"/runs/{run_id}/").headers["location"])


def press(person: httpx.Client, address: str, **more: float) -> httpx.Response:
    form = {"csrfmiddlewaretoken": token(person), "pick": "Stuck"}
    return person.post(f"{address}abort/", data=form, **more)  # type: ignore[arg-type]


def press_and_leave(person: httpx.Client, address: str) -> None:
    with contextlib.suppress(httpx.ReadTimeout):
        press(person, address, timeout=1.0)


def query(database: str, question: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as file:
        answer = file.execute(question).fetchall()
        file.commit()
    return answer


# --- one process -------------------------------------------------------------------------------


def test_it_starts_shows_runs_and_ends_at_ctrl_c_while_an_abort_waits(
    tmp_path: Path, database: str
) -> None:
    origin = str(live.options().origin)
    arguments = ["serve", "--port", "0", "--origin", origin, "--fault", "latency:20@/abort"]
    with start([*MANAGE, *arguments], tmp_path, DATABASE_URL=database) as dashboard:
        assert dashboard.said == [f"Release flows on {dashboard.base_url}/"]
        assert dashboard.browser().get("/healthz").text == "ok\n"
        assert dashboard.browser().get("/").headers["location"] == "/accounts/login/?next=/"
        viewer, manager = dashboard.person("viewer"), dashboard.person("manager")
        assert viewer.get("/").status_code == 200
        address = a_run(manager)
        press_and_leave(manager, address)
        assert press(viewer, address).status_code == 403
        assert query(database, "SELECT state FROM dashboard_abort") == [("requested",)]
        took = dashboard.end(signal.SIGINT)
        assert dashboard.server.process.returncode == 0, dashboard.log.read_text()
        assert took < AT_ONCE
        # The sandbox's server tells of the request that it drops; ours has nothing to tell.
        assert "dashboard/asgi.py" not in dashboard.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_while_northflank_is_slow(
    tmp_path: Path, database: str, number: int
) -> None:
    arguments = ["serve", "--port", "0", "--fault", "latency:20"]
    with running(tmp_path, *arguments, DATABASE_URL=database) as dashboard:
        assert dashboard.browser().get("/readyz").text == "ready\n"
        took = dashboard.end(number)
        assert dashboard.server.process.returncode == 0, dashboard.log.read_text()
        assert took < AT_ONCE


def test_a_fresh_clone_needs_no_preparation(tmp_path: Path) -> None:
    fresh = f"sqlite:///{tmp_path / 'new' / 'd.sqlite3'}"
    with start([*MANAGE, "serve", "--port", "0"], tmp_path, DATABASE_URL=fresh) as dashboard:
        assert dashboard.person("manager").get("/").status_code == 200
        assert dashboard.end(signal.SIGTERM) < AT_ONCE
        assert dashboard.server.process.returncode == 0


REFUSED = {
    "a fault that does not exist": (
        ["serve", "--port", "0", "--fault", "earthquake"], {}, "unknown fault 'earthquake'",
    ),
    "no sync and no upstream to share": (
        ["serve", "--port", "0", "--no-sync"], {}, "--no-sync needs an upstream",
    ),
    "a sync with nothing to read": (["sync"], {}, "Without NORTHFLANK_API_TOKEN"),
    "a sync of its own on SQLite": (
        ["sync"], {"NORTHFLANK_API_TOKEN": "sandbox"}, "Separate processes need PostgreSQL",
    ),
    "a switch that is neither on nor off": (
        ["serve", "--port", "0"], {"ABORTS_ENABLED": "maybe"}, "(dashboard.E001)",
    ),
    "a reserve that is no number": (
        ["serve", "--port", "0"], {"NORTHFLANK_REQUEST_RESERVE": "some"}, "(dashboard.E006)",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str]]]:
    """What became of all of REFUSED, started at the same time."""
    folder = tmp_path_factory.mktemp("refused")
    started = {
        name: subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            env=environment(DATABASE_URL=f"sqlite:///{folder / str(number)}.sqlite3", **given),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number, (name, (arguments, given, _)) in enumerate(REFUSED.items())
    }  # fmt: skip
    try:
        said = {name: one.communicate(timeout=60)[0] for name, one in started.items()}
        yield {name: (one.returncode, said[name]) for name, one in started.items()}
    finally:
        for one in started.values():
            if one.poll() is None:
                one.kill()
                one.communicate()


@pytest.mark.xdist_group("refused")
@pytest.mark.parametrize("name", REFUSED)
def test_nonsense_is_refused_with_a_reason(refused: dict[str, tuple[int, str]], name: str) -> None:
    code, said = refused[name]
    assert code == 1
    assert REFUSED[name][2] in said
    assert "Traceback" not in said


def test_a_port_in_use_is_told(database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = manage("serve", "--port", port, DATABASE_URL=database)
    assert ended.returncode == 1
    assert f"Can't listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_another_northflanks_database_is_refused(database: str) -> None:
    query(database, "INSERT INTO dashboard_upstream (id, identity, team, error, error_message,"
                    " error_seq) VALUES (1, 'sandbox', '', '', '', 0)")  # fmt: skip
    ended = manage("serve", "--port", "0", DATABASE_URL=database, NORTHFLANK_API_TOKEN="real")
    assert ended.returncode == 1
    assert "This database mirrors sandbox; the settings say https://api.northflank.com" in (
        ended.stderr
    )
    assert "Traceback" not in ended.stderr


# --- an upstream outside -----------------------------------------------------------------------


def test_a_process_killed_between_press_and_answer_leaves_the_truth(
    tmp_path: Path, database: str
) -> None:
    with upstream() as (url, sandbox):
        sandbox.choices["abort-seconds"] = "0.2"
        sandbox.faults = [parse_fault("abort-timeout:30")]
        given = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        with running(tmp_path, "serve", "--port", "0", **given) as first:
            stranger = first.person("manager")
            assert stranger.get("/").headers["location"].startswith("/accounts/login/")
            person = first.person("boss")
            address = a_run(person)
            run_id = address.rstrip("/").rsplit("/", 1)[1]
            press_and_leave(person, address)
            eventually(lambda: sandbox.abort_posts[run_id] == 1, processes.PATIENCE)
            first.end(signal.SIGKILL)
        question = "SELECT state, outcome, answered_at FROM dashboard_abort"
        assert query(database, question) == [("requested", "", None)]
        # As if the lease had run out: nobody wants to wait for it here.
        query(database, "UPDATE dashboard_abort SET claimed_at = '2020-01-01 00:00:00'")
        with running(tmp_path, "serve", "--port", "0", **given) as second:
            person = second.person("boss")
            ended = [("concluded", "aborted", None)]
            eventually(lambda: query(database, question) == ended, processes.PATIENCE)
            assert "Aborted" in person.get(address).text
            assert second.end(signal.SIGTERM) < AT_ONCE
        assert sandbox.abort_posts == {run_id: 1}


def test_a_foreign_server_opens_a_connection_of_its_own(tmp_path: Path, database: str) -> None:
    with upstream() as (url, sandbox):
        given = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
            "PYTHONUNBUFFERED": "1",
        }
        flow = sandbox.world.flow("payments", "ledger", "Staging")
        run = sandbox.world.start(flow, sandbox.clock(), {})
        query(database, "INSERT INTO dashboard_project (id, slug, name, seen_at)"
                        " VALUES (1, 'payments', '', '2026-01-01')")  # fmt: skip
        query(database, "INSERT INTO dashboard_pipeline (id, project_id, slug, name, description,"
                        " seen_at) VALUES (1, 1, 'ledger', '', '', '2026-01-01')")  # fmt: skip
        query(database, STAGE)
        command = [sys.executable, "-m", "uvicorn", "--lifespan", "off", "--port", str(free_port())]
        address = f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{run.id}/"
        with serving([*command, "dashboard.asgi:application"], tmp_path, given) as server:
            person = server.person("boss")
            assert person.get(address).status_code == 200  # asked for, since it was never seen
            assert press(person, address).status_code == 302
            assert query(database, "SELECT state FROM dashboard_abort") == [("accepted",)]
        assert sandbox.abort_posts == {run.id: 1}


STAGE = """
INSERT INTO dashboard_stage (id, pipeline_id, name, path, has_flow, concurrency_policy, paused,
  next_sync_at, error, error_message, failures, "order", in_flight_unread, left_out, surplus)
VALUES (1, 1, 'Staging', 'staging', 1, '', 0, '2026-01-01', '', '', 0, 'newest first', 0, 0, 0)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], folder: Path, given: dict[str, str]) -> Iterator[Running]:
    """Run uvicorn, whose words go to the log, until the block ends."""
    said = "print('Release flows on http://127.0.0.1:" + command[command.index("--port") + 1] + "')"
    script = f"{said}; import sys; sys.stdout.flush(); import runpy; sys.argv = {command[2:]!r};"
    script += "runpy.run_module('uvicorn', run_name='__main__')"
    with start([sys.executable, "-c", script], folder, **given) as server:

        def up() -> bool:
            with contextlib.suppress(httpx.ConnectError):
                return server.browser().get("/healthz").status_code == 200
            return False

        eventually(up, processes.PATIENCE)
        yield server


# --- several processes -------------------------------------------------------------------------


@pytest.fixture
def empty_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL database that is made for the test, and dropped after it."""
    with databases.postgres() as url:
        yield url


@pytest.mark.postgres
def test_a_killed_workers_stages_are_read_by_the_others_and_none_twice(
    tmp_path: Path, empty_postgres: str
) -> None:
    with (
        upstream() as (url, sandbox),
        psycopg.connect(empty_postgres, autocommit=True) as database,
    ):
        given = {
            "DATABASE_URL": empty_postgres,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        assert manage("migrate", "-v0", **given).returncode == 0

        def number(question: str) -> int:
            found = database.execute(f"SELECT count(*) FROM {question}").fetchone()
            return int(found[0]) if found else 0

        sandbox.faults = [parse_fault("latency:10@/release-flows/")]
        held = "dashboard_stage WHERE claimed_until > now()"
        with running(tmp_path, "sync", **given) as victim:
            eventually(lambda: number(held), processes.PATIENCE)
            victim.end(signal.SIGKILL)
        assert number(held) > 0
        # As if its lease had run out: nobody wants to wait for it here.
        database.execute("UPDATE dashboard_stage SET claimed_until = now()")
        database.execute("UPDATE dashboard_cataloguesweep SET next_at = now()")
        sandbox.faults = []
        sandbox.requests.clear()
        with running(tmp_path, "sync", **given), running(tmp_path, "sync", **given):
            unread = "dashboard_stage WHERE synced_at IS NULL"
            eventually(lambda: number("dashboard_stage") == 27, processes.PATIENCE)
            eventually(lambda: number(unread) == 0, processes.PATIENCE)
            undefined = "dashboard_stage WHERE flow_seen_at IS NULL"
            eventually(lambda: number(undefined) == 0, processes.PATIENCE)
            assert number("dashboard_worker") == 3
        # A first reading asks for the release flow, once.
        flows = [path for _, path in sandbox.requests if re.search(r"/release-flows/[^/]+$", path)]
        assert len(flows) >= 20
        assert sorted(flows) == sorted(set(flows))


@pytest.mark.postgres
def test_pages_and_sync_may_run_apart(tmp_path: Path, empty_postgres: str) -> None:
    with upstream() as (url, sandbox):
        sandbox.choices["abort-seconds"] = "0.2"
        given = {
            "DATABASE_URL": empty_postgres,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
            "DJANGO_SUPERUSER_PASSWORD": "boss",
        }
        ended = manage("serve", "--port", "0", "--no-sync", **given)
        assert ended.returncode == 1
        assert "run `manage.py migrate` first" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert manage("migrate", "-v0", **given).returncode == 0
        manage("createsuperuser", "--noinput", "--username=boss", "--email=", **given)
        web = running(tmp_path, "serve", "--port", "0", "--no-sync", **given)
        sync = running(tmp_path, "sync", **given)
        with web as pages, sync as reader:
            person = pages.person("boss")
            address = a_run(person)
            assert press(person, address).status_code == 302
            with psycopg.connect(empty_postgres, autocommit=True) as database:

                def outcome() -> bool:
                    found = database.execute("SELECT outcome FROM dashboard_abort").fetchall()
                    return found == [("aborted",)]

                eventually(outcome, processes.PATIENCE)
            assert "Aborted" in person.get(address).text
            assert sum(sandbox.abort_posts.values()) == 1
            assert reader.end(signal.SIGTERM) < AT_ONCE
            assert pages.end(signal.SIGTERM) < AT_ONCE
            assert (reader.process.returncode, pages.process.returncode) == (0, 0)
