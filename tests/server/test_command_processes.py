"""Commands in processes of their own, beside a dashboard that runs and without one."""

import contextlib
import functools
import getpass
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings

from dashboard.sandbox import Sandbox, parse_fault
from tests.support import processes
from tests.support.flights import eventually
from tests.support.processes import Running, environment, manage, running, upstream
from tests.support.services import POSTGRES

pytestmark = pytest.mark.process


@dataclass
class Outside:
    """A database that mirrors a sandbox of this process, and the settings for both."""

    given: dict[str, str]
    sandbox: Sandbox
    dashboard: Running | None = None

    def run(self) -> str:
        """Start a run, have it looked at, so that the dashboard knows it, and return its id."""
        assert self.dashboard is not None
        flow = self.sandbox.world.flow("payments", "ledger", "Staging")
        assert flow is not None
        run = self.sandbox.world.start(flow, self.sandbox.clock(), {}).id
        page = f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{run}/"
        boss = self.dashboard.person("boss")
        read = (
            "SELECT 1 FROM dashboard_stage JOIN dashboard_pipeline p ON pipeline_id = p.id"
            " WHERE p.slug = 'ledger' AND dashboard_stage.name = 'Staging' AND path <> ''"
        )
        eventually(lambda: rows(self.given["DATABASE_URL"], read), processes.PATIENCE)
        eventually(lambda: boss.get(page).status_code == 200, processes.PATIENCE)
        return run

    def abort(self, run: str, *more: str) -> subprocess.CompletedProcess[str]:
        return manage("abort", run, "--as=boss", *more, **self.given)

    def acts(self, run: str, columns: str) -> list[tuple[Any, ...]]:
        """What the audit has of a run."""
        return acts(self.given["DATABASE_URL"], columns, run)


def acts(database: str, columns: str, run: str) -> list[tuple[Any, ...]]:
    of_run = f"SELECT id FROM dashboard_run WHERE run_id = '{run}'"
    return rows(database, f"SELECT {columns} FROM dashboard_abort WHERE run_id IN ({of_run})")


def rows(database: str, question: str) -> list[tuple[Any, ...]]:
    if database.startswith("sqlite"):
        file = database.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return connection.execute(question).fetchall()
    with psycopg.connect(database) as server:
        return server.execute(question).fetchall()  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def mirrored(database: str) -> Iterator[Outside]:
    with upstream() as (url, sandbox):
        given = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
            "DJANGO_SUPERUSER_PASSWORD": "boss",
        }
        assert manage("migrate", "-v0", **given).returncode == 0
        manage("createsuperuser", "--noinput", "--username=boss", "--email=", **given)
        yield Outside(given, sandbox)


@contextlib.contextmanager
def empty(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'd.sqlite3'}"
        return
    name = f"dashboard_commands_{os.getpid()}"
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name}")
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{POSTGRES.rpartition('/')[0]}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def dashboards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Outside]]:
    """Give the dashboard that runs on a kind of database; it is started when first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def on(kind: str) -> Outside:
            folder = tmp_path_factory.mktemp("served")
            outside = stack.enter_context(mirrored(stack.enter_context(empty(kind, folder))))
            serve = running(folder, "serve", "--port", "0", **outside.given)
            return replace(outside, dashboard=stack.enter_context(serve))

        yield on


# One worker of the suite for each kind: starting a dashboard takes its time.
@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.xdist_group("commands on sqlite")),
        pytest.param(
            "postgres",
            marks=[pytest.mark.postgres, pytest.mark.xdist_group("commands on postgres")],
        ),
    ]
)
def outside(request: pytest.FixtureRequest, dashboards: Callable[[str], Outside]) -> Outside:
    """A dashboard that runs, its upstream behaving as it should and aborting slowly."""
    served = dashboards(request.param)
    served.sandbox.faults = []
    served.sandbox.choices["abort-seconds"] = "60"
    return served


def test_an_abort_is_sent_beside_a_dashboard_that_runs(outside: Outside) -> None:
    run = outside.run()
    outside.sandbox.choices["abort-seconds"] = "0.2"
    ended = outside.abort(run, "--reason=Runbook 7", "--wait=20")
    assert (ended.returncode, ended.stdout[:13]) == (0, "Aborted after"), ended
    assert "Another process" not in ended.stdout
    told = outside.acts(run, "username, reason, via, state, outcome")
    assert told == [("boss", "Runbook 7", "command", "concluded", "aborted")]
    again = outside.abort(run)
    assert (again.returncode, again.stdout[:28]) == (0, "The run had been aborted alr")
    assert outside.sandbox.abort_posts[run] == 1


def test_four_commands_at_once_send_one_request(outside: Outside) -> None:
    run = outside.run()
    commands = [start(["abort", run, "--as=boss", "--json"], **outside.given) for _ in range(4)]
    ends = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0] * 4, ends
    assert sorted(json.loads(out)["joined"] for out, _ in ends) == [False, True, True, True]
    assert outside.sandbox.abort_posts[run] == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("forbidden:payments@/abort", "Northflank refused"),
        ("500@/abort", "It is sent again if the run goes on"),
    ],
)
def test_an_abort_that_failed_ends_with_1(outside: Outside, fault: str, why: str) -> None:
    run = outside.run()
    outside.sandbox.faults = [parse_fault(fault)]
    ended = outside.abort(run)
    assert ended.returncode == 1
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_abort_that_takes_longer_than_one_waits_ends_with_1(outside: Outside) -> None:
    ended = outside.abort(outside.run(), "--wait=1.5")
    assert ended.returncode == 1
    assert "After 1.5 s the run has not ended." in ended.stderr


def test_a_command_that_is_interrupted_leaves_the_abort_to_the_dashboard(outside: Outside) -> None:
    run = outside.run()
    outside.sandbox.faults = [parse_fault("abort-timeout:60")]
    command = start(["abort", run, "--as=boss"], **outside.given)
    eventually(lambda: outside.sandbox.abort_posts[run], processes.PATIENCE)
    command.send_signal(signal.SIGINT)
    _, aside = command.communicate(timeout=30)
    assert command.returncode == 1
    assert "Interrupted. The abort is written down" in aside
    assert "Traceback" not in aside
    assert outside.acts(run, "via, answered_at") == [("command", None)]
    assert outside.sandbox.abort_posts[run] == 1


def test_without_a_dashboard_it_is_sent_and_followed_too(tmp_path: Path) -> None:
    with empty("sqlite", tmp_path) as database, mirrored(database) as outside:
        with running(tmp_path, "serve", "--port", "0", **outside.given) as dashboard:
            run = replace(outside, dashboard=dashboard).run()
            dashboard.end(signal.SIGTERM)
        outside.sandbox.choices["abort-seconds"] = "0.2"
        ended = outside.abort(run, "--wait=25", "--json")
        assert ended.returncode == 0, ended.stderr
        said = json.loads(ended.stdout)
        assert (said["abort"]["outcome"], said["run"]["concluded"]) == ("aborted", True)
        assert outside.sandbox.abort_posts == {run: 1}


def test_with_the_embedded_sandbox_the_worker_sends_it(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    # Everyday has minutes in which nothing is under way in most stages. This run is always there.
    scenario = ("--scenario", "stuck-production", "--choice", "abort-seconds=0.2")
    stuck = "SELECT run_id FROM dashboard_run WHERE in_flight AND name = 'Basket totals 4719'"
    with running(tmp_path, "serve", "--port", "0", *scenario, DATABASE_URL=database):
        run = eventually(lambda: rows(database, stuck), processes.PATIENCE)[0][0]
        asked = ("--as=manager", "--reason=Runbook 7", "--wait=20")
        ended = manage("abort", run, *asked, DATABASE_URL=database)
        assert ended.returncode == 0, ended.stderr
        shell = f"{getpass.getuser()}@{socket.gethostname()}"
        told = [line.partition("  ")[2].partition("  ")[2] for line in ended.stdout.splitlines()]
        assert told[1:4] == [
            f"Requested by manager ({shell}): “Runbook 7”.",
            "Another process went on with it.",
            "Sent to Northflank.",
        ]
    assert acts(database, "via, state, outcome", run) == [("command", "concluded", "aborted")]


def test_a_database_that_is_not_migrated_is_told(tmp_path: Path) -> None:
    ended = manage("runs", DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert ended.returncode == 1
    assert "run `manage.py migrate` first" in ended.stderr


def test_a_database_that_is_away_is_told() -> None:
    ended = manage("runs", DATABASE_URL="postgres://nobody@127.0.0.1:9/none")
    assert ended.returncode == 1
    assert "The database has failed" in ended.stderr
    assert "Traceback" not in ended.stderr


def start(arguments: list[str], **given: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=django_settings.BASE_DIR,
        env=environment(**given),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As at a prompt: whoever runs these tests in the background has children that ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
