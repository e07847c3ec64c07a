"""Commands in their own processes, with and without a running dashboard."""

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
from tests.support.live_runs import wait_until
from tests.support.processes import Running, environment, manage, running, upstream
from tests.support.services import POSTGRES

pytestmark = pytest.mark.process


@dataclass
class CommandEnvironment:
    """A database that mirrors a sandbox of this process, and the settings for both."""

    given: dict[str, str]
    sandbox: Sandbox
    dashboard: Running | None = None

    def run(self) -> str:
        """Start a run, have it looked at, so that the dashboard knows it, and return its id."""
        assert self.dashboard is not None
        flow = self.sandbox.world.find_flow("payments", "ledger", "Staging")
        assert flow is not None
        run = self.sandbox.world.start_run(flow, self.sandbox.clock(), {}).id
        page = f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{run}/"
        boss = self.dashboard.person("boss")
        read = (
            "SELECT 1 FROM dashboard_stage JOIN dashboard_pipeline p ON pipeline_id = p.id"
            " WHERE p.slug = 'ledger' AND dashboard_stage.name = 'Staging'"
            " AND confirmed_path_segment <> ''"
        )
        wait_until(lambda: query_database(self.given["DATABASE_URL"], read), processes.PATIENCE)
        wait_until(lambda: boss.get(page).status_code == 200, processes.PATIENCE)
        return run

    def abort(self, run: str, *more: str) -> subprocess.CompletedProcess[str]:
        return manage("abort", run, "--as=boss", *more, **self.given)

    def abort_rows(self, run: str, columns: str) -> list[tuple[Any, ...]]:
        """What the audit has of a run."""
        return abort_rows(self.given["DATABASE_URL"], columns, run)


def abort_rows(database: str, columns: str, run: str) -> list[tuple[Any, ...]]:
    of_run = f"SELECT id FROM dashboard_run WHERE run_id = '{run}'"
    return query_database(
        database, f"SELECT {columns} FROM dashboard_abort WHERE run_id IN ({of_run})"
    )


def query_database(database: str, question: str) -> list[tuple[Any, ...]]:
    if database.startswith("sqlite"):
        file = database.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return connection.execute(question).fetchall()
    with psycopg.connect(database) as server:
        return server.execute(question).fetchall()  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def command_environment(database: str) -> Iterator[CommandEnvironment]:
    with upstream() as (url, sandbox):
        given = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
            "DJANGO_SUPERUSER_PASSWORD": "boss",
        }
        assert manage("migrate", "-v0", **given).returncode == 0
        manage("createsuperuser", "--noinput", "--username=boss", "--email=", **given)
        yield CommandEnvironment(given, sandbox)


@contextlib.contextmanager
def empty_database(kind: str, folder: Path) -> Iterator[str]:
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
def start_environment(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], CommandEnvironment]]:
    """Give the dashboard that runs on a kind of database; it is started when first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def on(kind: str) -> CommandEnvironment:
            folder = tmp_path_factory.mktemp("served")
            environment_with_dashboard = stack.enter_context(
                command_environment(stack.enter_context(empty_database(kind, folder)))
            )
            serve = running(folder, "serve", "--port", "0", **environment_with_dashboard.given)
            return replace(environment_with_dashboard, dashboard=stack.enter_context(serve))

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
def environment_with_dashboard(
    request: pytest.FixtureRequest, start_environment: Callable[[str], CommandEnvironment]
) -> CommandEnvironment:
    """A dashboard that runs, its upstream behaving as it should and aborting slowly."""
    served = start_environment(request.param)
    served.sandbox.faults = []
    served.sandbox.choices["abort-seconds"] = "60"
    return served


def test_abort_command_beside_dashboard_aborts_run_once(
    environment_with_dashboard: CommandEnvironment,
) -> None:
    run = environment_with_dashboard.run()
    environment_with_dashboard.sandbox.choices["abort-seconds"] = "0.2"
    ended = environment_with_dashboard.abort(run, "--reason=Runbook 7", "--wait=20")
    assert (ended.returncode, ended.stdout[:13]) == (0, "Aborted after"), ended
    assert "Taken over" not in ended.stdout
    told = environment_with_dashboard.abort_rows(run, "username, reason, via, state, outcome")
    assert told == [("boss", "Runbook 7", "command", "concluded", "aborted")]
    again = environment_with_dashboard.abort(run)
    assert (again.returncode, again.stdout[:28]) == (0, "The run was already aborted;")
    assert environment_with_dashboard.sandbox.abort_request_counts[run] == 1


def test_concurrent_abort_commands_send_one_request(
    environment_with_dashboard: CommandEnvironment,
) -> None:
    run = environment_with_dashboard.run()
    commands = [
        start(["abort", run, "--as=boss", "--json"], **environment_with_dashboard.given)
        for _ in range(4)
    ]
    ends = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0] * 4, ends
    assert sorted(json.loads(out)["joined"] for out, _ in ends) == [False, True, True, True]
    assert environment_with_dashboard.sandbox.abort_request_counts[run] == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("forbidden:payments@/abort", "Northflank refused"),
        ("500@/abort", "It is resent if the run continues"),
    ],
)
def test_failed_abort_command_exits_with_1(
    environment_with_dashboard: CommandEnvironment, fault: str, why: str
) -> None:
    run = environment_with_dashboard.run()
    environment_with_dashboard.sandbox.faults = [parse_fault(fault)]
    ended = environment_with_dashboard.abort(run)
    assert ended.returncode == 1
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_abort_command_that_times_out_exits_with_1(
    environment_with_dashboard: CommandEnvironment,
) -> None:
    ended = environment_with_dashboard.abort(environment_with_dashboard.run(), "--wait=1.5")
    assert ended.returncode == 1
    assert "The run has not ended after 1.5 s." in ended.stderr


def test_interrupted_abort_command_leaves_abort_to_dashboard(
    environment_with_dashboard: CommandEnvironment,
) -> None:
    run = environment_with_dashboard.run()
    environment_with_dashboard.sandbox.faults = [parse_fault("abort-timeout:60")]
    command = start(["abort", run, "--as=boss"], **environment_with_dashboard.given)
    wait_until(
        lambda: environment_with_dashboard.sandbox.abort_request_counts[run], processes.PATIENCE
    )
    command.send_signal(signal.SIGINT)
    _, aside = command.communicate(timeout=30)
    assert command.returncode == 1
    assert "Interrupted. The abort is recorded" in aside
    assert "Traceback" not in aside
    assert environment_with_dashboard.abort_rows(run, "via, answered_at") == [("command", None)]
    assert environment_with_dashboard.sandbox.abort_request_counts[run] == 1


def test_abort_command_without_dashboard_aborts_run(tmp_path: Path) -> None:
    with (
        empty_database("sqlite", tmp_path) as database,
        command_environment(database) as environment_with_dashboard,
    ):
        with running(
            tmp_path, "serve", "--port", "0", **environment_with_dashboard.given
        ) as dashboard:
            run = replace(environment_with_dashboard, dashboard=dashboard).run()
            dashboard.end(signal.SIGTERM)
        environment_with_dashboard.sandbox.choices["abort-seconds"] = "0.2"
        ended = environment_with_dashboard.abort(run, "--wait=25", "--json")
        assert ended.returncode == 0, ended.stderr
        said = json.loads(ended.stdout)
        assert (said["abort"]["outcome"], said["run"]["concluded"]) == ("aborted", True)
        assert environment_with_dashboard.sandbox.abort_request_counts == {run: 1}


def test_abort_command_with_embedded_sandbox_is_sent_by_worker(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    # Everyday has minutes in which nothing is under way in most stages. This run is always there.
    scenario = ("--scenario", "stuck-production", "--choice", "abort-seconds=0.2")
    stuck = "SELECT run_id FROM dashboard_run WHERE in_flight AND name = 'Basket totals 4719'"
    with running(tmp_path, "serve", "--port", "0", *scenario, DATABASE_URL=database):
        run = wait_until(lambda: query_database(database, stuck), processes.PATIENCE)[0][0]
        asked = ("--as=manager", "--reason=Runbook 7", "--wait=20")
        ended = manage("abort", run, *asked, DATABASE_URL=database)
        assert ended.returncode == 0, ended.stderr
        shell = f"{getpass.getuser()}@{socket.gethostname()}"
        told = [line.partition("  ")[2].partition("  ")[2] for line in ended.stdout.splitlines()]
        assert told[1:4] == [
            f"Requested by manager ({shell}): “Runbook 7”.",
            "Taken over by another worker.",
            "Sent to Northflank.",
        ]
    assert abort_rows(database, "via, state, outcome", run) == [("command", "concluded", "aborted")]


def test_command_with_unmigrated_database_exits_with_message(tmp_path: Path) -> None:
    ended = manage("runs", DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert ended.returncode == 1
    assert "run `manage.py migrate` first" in ended.stderr


def test_command_with_unreachable_database_exits_with_message() -> None:
    ended = manage("runs", DATABASE_URL="postgres://nobody@127.0.0.1:9/none")
    assert ended.returncode == 1
    assert "Database error: " in ended.stderr
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
