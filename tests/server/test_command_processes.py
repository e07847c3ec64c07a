"""Commands in their own processes, with and without a running dashboard."""

import contextlib
import functools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from dashboard.sandbox import Sandbox, parse_fault
from tests.support import processes
from tests.support.databases import empty_database, query_database
from tests.support.live_runs import wait_until
from tests.support.processes import RunningProcess, environment, manage, run_manage, upstream
from tests.support.tcp_relay import database_proxy

pytestmark = pytest.mark.process


@dataclass
class CommandEnvironment:
    """A database that mirrors a sandbox of this process, and the settings for both."""

    variables: dict[str, str]
    sandbox: Sandbox
    dashboard: RunningProcess | None = None

    def run(self) -> str:
        """Start a run, open its page, so that the dashboard mirrors it, and return its id."""
        assert self.dashboard is not None
        flow = self.sandbox.world.find_flow("payments", "ledger", "Staging")
        assert flow is not None
        run = self.sandbox.world.start_run(flow, self.sandbox.clock(), {}).id
        page = f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{run}/"
        boss = self.dashboard.sign_in("boss")
        query = (
            "SELECT 1 FROM dashboard_stage JOIN dashboard_pipeline p ON pipeline_id = p.id"
            " WHERE p.slug = 'ledger' AND dashboard_stage.name = 'Staging'"
            " AND dashboard_stage.synced_at IS NOT NULL"
        )
        wait_until(
            lambda: query_database(self.variables["DATABASE_URL"], query), processes.WAIT_TIMEOUT
        )
        wait_until(lambda: boss.get(page).status_code == 200, processes.WAIT_TIMEOUT)
        return run

    def abort(self, run: str, *options: str) -> subprocess.CompletedProcess[str]:
        return manage("abort", run, "--as=boss", *options, **self.variables)

    def abort_rows(self, run: str, columns: str) -> list[tuple[Any, ...]]:
        """The stored aborts of a run."""
        return abort_rows(self.variables["DATABASE_URL"], columns, run)


def abort_rows(database: str, columns: str, run: str) -> list[tuple[Any, ...]]:
    run_keys = f"SELECT id FROM dashboard_run WHERE run_id = '{run}'"
    return query_database(
        database, f"SELECT {columns} FROM dashboard_abort WHERE run_id IN ({run_keys})"
    )


@contextlib.contextmanager
def command_environment(database: str) -> Iterator[CommandEnvironment]:
    with upstream() as (url, sandbox):
        variables = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        processes.prepare_database(**variables)
        yield CommandEnvironment(variables, sandbox)


@pytest.fixture(scope="module")
def start_environment(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], CommandEnvironment]]:
    """Return the dashboard of a kind of database; the first call starts it."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(kind: str) -> CommandEnvironment:
            folder = tmp_path_factory.mktemp("served")
            environment_with_dashboard = stack.enter_context(
                command_environment(stack.enter_context(empty_database(kind, folder)))
            )
            serve = run_manage(
                folder, "serve", "--port", "0", **environment_with_dashboard.variables
            )
            return replace(environment_with_dashboard, dashboard=stack.enter_context(serve))

        yield start


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
    """A running dashboard, its upstream without faults and aborting slowly."""
    environment = start_environment(request.param)
    environment.sandbox.faults = []
    environment.sandbox.choices["abort-seconds"] = "60"
    return environment


@pytest.mark.slow
def test_abort_command_beside_dashboard_aborts_run_once(
    environment_with_dashboard: CommandEnvironment,
) -> None:
    run = environment_with_dashboard.run()
    environment_with_dashboard.sandbox.choices["abort-seconds"] = "0.2"
    result = environment_with_dashboard.abort(run, "--reason=Runbook 7", "--wait=20")
    assert (result.returncode, result.stdout[:13]) == (0, "Aborted after"), result
    assert "Taken over" not in result.stdout
    rows = environment_with_dashboard.abort_rows(run, "username, reason, via, state, outcome")
    assert rows == [("boss", "Runbook 7", "command", "concluded", "aborted")]
    second_result = environment_with_dashboard.abort(run)
    assert (second_result.returncode, second_result.stdout[:21]) == (
        0,
        "It had already ended;",
    )
    assert environment_with_dashboard.sandbox.abort_request_counts[run] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("403@/abort", "Northflank refused"),
        ("500@/abort", "The dashboard resends it for 2 min"),
    ],
)
def test_failed_abort_command_exits_with_1(
    environment_with_dashboard: CommandEnvironment, fault: str, reason: str
) -> None:
    run = environment_with_dashboard.run()
    environment_with_dashboard.sandbox.faults = [parse_fault(fault)]
    result = environment_with_dashboard.abort(run)
    assert result.returncode == 1
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_interrupted_abort_command_leaves_abort_to_dashboard(
    environment_with_dashboard: CommandEnvironment,
) -> None:
    run = environment_with_dashboard.run()
    environment_with_dashboard.sandbox.faults = [parse_fault("reset-after:60@abort-")]
    command = start(["abort", run, "--as=boss"], **environment_with_dashboard.variables)
    wait_until(
        lambda: environment_with_dashboard.sandbox.abort_request_counts[run], processes.WAIT_TIMEOUT
    )
    command.send_signal(signal.SIGINT)
    _, stderr = command.communicate(timeout=30)
    assert command.returncode == 1
    assert "Interrupted. The abort is recorded" in stderr
    assert "Traceback" not in stderr
    assert environment_with_dashboard.abort_rows(run, "via, responded_at") == [("command", None)]
    assert environment_with_dashboard.sandbox.abort_request_counts[run] == 1


@pytest.fixture
def environment_on_postgres(
    start_environment: Callable[[str], CommandEnvironment],
) -> CommandEnvironment:
    """A running dashboard on PostgreSQL, its upstream without faults."""
    environment = start_environment("postgres")
    environment.sandbox.faults = []
    return environment


def start_waiting_abort(
    environment: CommandEnvironment, run: str, seconds: float, database: str
) -> "subprocess.Popen[str]":
    """Start a command that reaches its database at this URL, and waits for the run's end."""
    variables = environment.variables | {"DATABASE_URL": database}
    command = start(["abort", run, "--as=boss", f"--wait={seconds}"], **variables)
    wait_until(
        lambda: environment.abort_rows(run, "state") == [("accepted",)],
        processes.WAIT_TIMEOUT,
        0.1,
    )
    return command


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.xdist_group("commands on postgres")
def test_abort_command_whose_database_stays_away_says_that_the_abort_is_recorded(
    environment_on_postgres: CommandEnvironment,
) -> None:
    environment_on_postgres.sandbox.choices["abort-seconds"] = "60"
    run = environment_on_postgres.run()
    with database_proxy(environment_on_postgres.variables["DATABASE_URL"]) as (url, proxy):
        command = start_waiting_abort(environment_on_postgres, run, 10, url)
        proxy.cut()
        stdout, stderr = command.communicate(timeout=60)
    assert (command.returncode, stdout) == (1, "")
    assert "CommandError: The abort is recorded and the dashboard continues it: see" in stderr
    assert "\nDatabase error: " in stderr
    assert "Traceback" not in stderr


@contextlib.contextmanager
def run_without_dashboard(tmp_path: Path) -> Iterator[tuple[CommandEnvironment, str]]:
    """A run that a dashboard has mirrored, which has ended since."""
    with (
        empty_database("sqlite", tmp_path) as database,
        command_environment(database) as command_environment_alone,
    ):
        with run_manage(
            tmp_path, "serve", "--port", "0", **command_environment_alone.variables
        ) as dashboard:
            run = replace(command_environment_alone, dashboard=dashboard).run()
            dashboard.end(signal.SIGTERM)
        yield command_environment_alone, run


@pytest.mark.slow
def test_abort_command_without_dashboard_aborts_run(tmp_path: Path) -> None:
    with run_without_dashboard(tmp_path) as (environment_alone, run):
        environment_alone.sandbox.choices["abort-seconds"] = "0.2"
        result = environment_alone.abort(run, "--wait=25", "--json")
        assert result.returncode == 0, result.stderr
        output = json.loads(result.stdout)
        assert (output["abort"]["outcome"], output["run"]["concluded"]) == ("aborted", True)
        assert environment_alone.sandbox.abort_request_counts == {run: 1}


@pytest.mark.slow
def test_abort_command_without_dashboard_reads_nothing_after_a_429(tmp_path: Path) -> None:
    with run_without_dashboard(tmp_path) as (environment_alone, run):
        sandbox = environment_alone.sandbox
        sandbox.choices["abort-seconds"] = "60"
        sandbox.faults = [parse_fault("too-fast:60@GET /")]
        sandbox.requests.clear()
        result = environment_alone.abort(run, "--wait=12")  # it looks after 5 and 10 seconds
        assert result.returncode == 1, result.stderr
        assert [method for method, _ in sandbox.requests] == ["POST", "GET"]


def test_command_with_unmigrated_database_exits_with_message(tmp_path: Path) -> None:
    result = manage("runs", DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert result.returncode == 1
    assert "run `manage.py migrate` first" in result.stderr


def test_command_with_unreachable_database_exits_with_message() -> None:
    result = manage("runs", DATABASE_URL="postgres://nobody@127.0.0.1:9/none")
    assert result.returncode == 1
    assert "Database error: " in result.stderr
    assert "Traceback" not in result.stderr


def start(arguments: list[str], **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=django_settings.BASE_DIR,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As at a prompt: child processes of a background job ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
