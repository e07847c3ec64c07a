"""Processes killed at every step of an abort: no abort is lost, all get their true outcome.

Each process is killed at the next step of its own abort (crashes.py). The next process finds the
remaining rows, and must complete that abort before it gets another request.
"""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.db import connections
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from dashboard.models import Abort, AbortEvent, Lead, Run
from dashboard.models.abort_lifecycle import AbortState, EventType
from dashboard.sandbox import parse_fault
from dashboard.sandbox.catalog import ReleaseFlow
from dashboard.sandbox.runs import Run as SandboxRun
from dashboard.sandbox.sandbox import Sandbox
from tests.support import abort_invariants, processes
from tests.support.crashes import KILL_STEP
from tests.support.databases import (
    LEDGER,
    PROCESS_DATABASE,
    abort_path,
    connected_to_database,
    create_idle_stage,
    create_run,
    postgres,
)
from tests.support.live import token
from tests.support.live_runs import wait_until
from tests.support.processes import ProductFork, RunningProcess, product_fork, upstream

pytestmark = pytest.mark.process

MAX_STEPS = 200  # more steps than an abort can have
INTERVAL = 0.1  # seconds between two looks into the database; an abort takes seconds to settle


@dataclass
class KillScenario:
    """A database and an upstream, which successive processes use."""

    folder: Path
    sandbox: Sandbox
    parent: ProductFork
    cookies: httpx.Cookies | None = None
    left_states: set[tuple[str, bool]] = field(default_factory=set)
    """What the dead have left: the state of the act ("": none) and whether it was being sent."""

    @contextlib.contextmanager
    def process(self, kill_step: str = "") -> Iterator[RunningProcess]:
        with processes.fork(
            "tests.support.crashes", "serve", "--port", "0",
            folder=self.folder, parent=self.parent, **{KILL_STEP: kill_step},
        ) as process:  # fmt: skip
            yield process

    def sign_in(self, process: RunningProcess) -> httpx.Client:
        """A client that stays signed in from process to process."""
        if self.cookies is None:
            self.cookies = httpx.Cookies(process.sign_in("boss").cookies)
        client = process.create_client()
        client.cookies = self.cookies
        return client

    def run(self) -> SandboxRun:
        """Start a run upstream, and mirror it."""
        run = self.sandbox.world.start_run(self.flow, self.sandbox.clock(), {})
        create_run(run.id)
        return run

    @property
    def flow(self) -> ReleaseFlow:
        release_flow = self.sandbox.world.find_flow(*LEDGER)
        assert release_flow is not None
        return release_flow

    def status_upstream(self, run: SandboxRun) -> str:
        """A run's current status on Northflank."""
        now = self.sandbox.clock()
        current = self.sandbox.world.find_run(self.flow, run.id, now)
        assert current is not None
        return current.status(now)

    def submit_abort(
        self, client: httpx.Client, run: SandboxRun, again_of: Abort | None = None
    ) -> bool:
        """Submit an abort, or a second one, and return whether it was answered."""
        data = {
            "csrfmiddlewaretoken": token(client),
            "again_of": str(again_of.pk) if again_of else "",
        }
        with contextlib.suppress(httpx.TransportError):
            answer = client.post(abort_path(run.id), data=data)
            assert answer.status_code == 302, answer.text
            return True
        return False

    def create_overdue_abort(self, run: SandboxRun) -> Abort:
        """An abort that Northflank accepted long ago, without effect."""
        past = timezone.now() - timedelta(minutes=11)
        row = Run.objects.using(PROCESS_DATABASE).get(run_id=run.id)
        abort = Abort.objects.using(PROCESS_DATABASE).create(
            run=row, username="ana", state=AbortState.ACCEPTED, requested_at=past, claimed_at=past,
            sent_at=past, responded_at=past, response_status=200,
        )  # fmt: skip
        for event_type in (EventType.REQUESTED, EventType.SENT, EventType.ACCEPTED):
            AbortEvent.objects.using(PROCESS_DATABASE).create(
                abort=abort, event_type=event_type, occurred_at=past
            )
        return abort

    def find_abort(self, run: SandboxRun) -> Abort | None:
        """The only abort that was requested; None: the process ended before recording it."""
        aborts = (
            Abort.objects.using(PROCESS_DATABASE).filter(run__run_id=run.id).exclude(username="ana")
        )
        assert len(aborts) <= 1
        return aborts.select_related("run").first()

    def find_settled_abort(self, run: SandboxRun) -> Abort | None:
        """The abort once it has settled; makes the run due for a read, as if time had passed."""
        abort = self.find_abort(run)
        if abort is None or abort.settled_at is not None:
            return abort
        waiting = Run.objects.using(PROCESS_DATABASE).filter(
            run_id=run.id, next_detail_sync_at__gt=timezone.now()
        )
        waiting.update(next_detail_sync_at=timezone.now())
        return None

    def record_killed(self, run: SandboxRun) -> None:
        """Record the abort's state that a killed process has left; expire its leases."""
        abort = self.find_abort(run)
        self.left_states.add((abort.state, abort.sent_at is not None) if abort else ("", False))
        self.sandbox.requests.clear()
        self.sandbox.faults = []
        if connections[PROCESS_DATABASE].vendor == "sqlite":  # one that starts is the only one
            return
        # Without waiting for them.
        Lead.objects.using(PROCESS_DATABASE).update(holder="")
        if abort is not None:
            long_ago = timezone.now() - timedelta(minutes=1)
            requested = Abort.objects.using(PROCESS_DATABASE).filter(pk=abort.pk, state="requested")
            requested.update(claimed_at=long_ago)

    def wait_until_settled(self, run: SandboxRun) -> None:
        """Wait until the abort that was left has settled, and check it."""
        abort = self.find_abort(run)
        if abort is None:  # the request was not recorded: nothing was sent, or will be
            assert not self.sandbox.abort_request_counts[run.id]
            return
        before = abort.settled_at
        abort = wait_until(lambda: self.find_settled_abort(run), processes.WAIT_TIMEOUT, INTERVAL)
        methods = [method for method, path in list(self.sandbox.requests) if run.id in path]
        if before is None:
            assert methods[0] == "GET"  # in every state the run is read before anything is sent
        events = list(AbortEvent.objects.using(PROCESS_DATABASE).filter(abort=abort))
        # Each send was recorded first; only that of the killed process may not have arrived.
        assert abort.send_count - 1 <= self.sandbox.abort_request_counts[run.id] <= abort.send_count
        assert abort.send_count == sum(line.event_type == EventType.SENT for line in events)
        abort_invariants.assert_abort_is_consistent(
            abort,
            events,
            status=self.status_upstream(run),
            request_count=self.sandbox.abort_request_counts[run.id],
        )


def kill_at_each(
    steps: str, scenario: KillScenario, *faults: str, is_second: bool = False
) -> tuple[Abort, int]:
    """Kill one process after the other, until an abort ends before its process.

    Returns that abort, and how many processes were killed.
    """
    scenario.left_states.clear()
    killed_run: SandboxRun | None = None
    for number in range(MAX_STEPS):
        with scenario.process(f"{steps} {number + 1}") as process:
            if killed_run is not None:
                scenario.wait_until_settled(killed_run)
            client, killed_run = scenario.sign_in(process), scenario.run()
            scenario.sandbox.faults = [parse_fault(fault) for fault in faults]
            overdue_abort = scenario.create_overdue_abort(killed_run) if is_second else None
            if scenario.submit_abort(client, killed_run, overdue_abort):
                assert (
                    scenario.find_abort(killed_run) is not None
                )  # an answered request was recorded
            if not _wait_for_death(process, scenario, killed_run):
                scenario.wait_until_settled(killed_run)
                abort = scenario.find_abort(killed_run)
                assert abort is not None
                return abort, number
        scenario.record_killed(killed_run)
    raise AssertionError("it never came to an end")


def kill_in_state(state: str, scenario: KillScenario, fault: str) -> tuple[Abort, int]:
    """Kill at each commit; return as `kill_at_each` once a process died with the abort in `state`.

    The sync's reads of runs are commits too, between the abort's: at times all
    kills miss the state. Three times in a row they do not.
    """
    for _ in range(3):
        abort, kill_count = kill_at_each("commit", scenario, fault)
        if (state, True) in scenario.left_states:
            return abort, kill_count
    raise AssertionError(f"no process died while its abort was {state}")


def _wait_for_death(process: RunningProcess, scenario: KillScenario, run: SandboxRun) -> bool:
    """Wait until the process was killed, or has settled the abort; return whether it was killed."""
    deadline = time.monotonic() + processes.WAIT_TIMEOUT
    while time.monotonic() < deadline:
        if process.process.poll() is not None:
            assert process.process.returncode == -signal.SIGKILL, process.log.read_text()
            return True
        if scenario.find_settled_abort(run) is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(0.5)  # more steps may be to come
                return True
            # On a busy machine that may be too short for the kill that follows the commit just
            # seen. A process that is told to stop first ends the work of its threads.
            process.end(signal.SIGTERM)
            return process.process.returncode == -signal.SIGKILL
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.process.wait(INTERVAL)
    raise AssertionError("it neither died nor came to an end")


@pytest.fixture(scope="module")
def kill_scenario(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[KillScenario]:
    tmp_path = tmp_path_factory.mktemp("killed")
    with contextlib.ExitStack() as stack:
        database = f"sqlite:///{tmp_path / 'd.sqlite3'}"
        if request.param == "postgresql":
            database = stack.enter_context(postgres())
        url, sandbox = stack.enter_context(upstream())
        sandbox.choices["abort-seconds"] = "0.2"
        variables = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        processes.prepare_database(**variables)
        parent = stack.enter_context(product_fork(**variables))
        stack.enter_context(django_db_blocker.unblock())
        stack.enter_context(connected_to_database(database))
        create_idle_stage()
        yield KillScenario(tmp_path, sandbox, parent)


both_databases = pytest.mark.parametrize(
    "kill_scenario",
    [
        pytest.param("sqlite", marks=pytest.mark.xdist_group("killed on sqlite")),
        pytest.param(
            "postgresql",
            marks=[pytest.mark.postgres, pytest.mark.xdist_group("killed on postgresql")],
        ),
    ],
    indirect=True,
    scope="module",
)


@pytest.mark.slow
@both_databases
def test_abort_with_process_killed_at_any_step_is_completed(kill_scenario: KillScenario) -> None:
    abort, kill_count = kill_at_each("step", kill_scenario)
    assert abort.outcome == "aborted"
    assert kill_count >= 10  # fewer, and the steps were not found
    # No abort; maybe sent, since it is recorded as sent; answered; ended.
    assert kill_scenario.left_states == {
        ("", False), ("requested", True), ("accepted", True), ("concluded", True),
    }  # fmt: skip


@pytest.mark.slow
@both_databases
def test_abort_without_response_with_process_killed_is_completed(
    kill_scenario: KillScenario,
) -> None:
    abort, _ = kill_in_state("unknown", kill_scenario, "reset-after@/abort")
    assert (abort.outcome, abort.responded_at) == ("aborted", None)


@pytest.mark.slow
@both_databases
def test_resent_abort_with_process_killed_is_completed(kill_scenario: KillScenario) -> None:
    abort, kill_count = kill_in_state("unknown", kill_scenario, "503*1@/abort")
    assert (abort.outcome, abort.send_count) == ("aborted", 2)
    assert kill_count >= 8


@pytest.mark.slow
@both_databases
def test_refused_abort_with_process_killed_is_settled(kill_scenario: KillScenario) -> None:
    abort, _ = kill_in_state("refused", kill_scenario, "error-string:409@/abort")
    assert abort.state == "refused"


@pytest.mark.slow
@both_databases
def test_second_abort_with_process_killed_is_completed(kill_scenario: KillScenario) -> None:
    abort, _ = kill_at_each("commit", kill_scenario, is_second=True)
    assert abort.outcome == "aborted"
    # The run is read before a second abort is sent, so some have died before.
    assert ("requested", False) in kill_scenario.left_states
    first = Abort.objects.using(PROCESS_DATABASE).get(aborted_again_by=abort.pk)
    assert (first.state, first.settled_at) == ("aborted_again", abort.requested_at)


@both_databases
@pytest.mark.parametrize(
    ("fault", "arrives", "send_count"),
    [("reset:30@abort-", False, 2), ("reset-after:30@abort-", True, 1)],
)
def test_abort_with_process_killed_during_request_is_reconciled(
    kill_scenario: KillScenario, fault: str, arrives: bool, send_count: int
) -> None:
    kill_scenario.left_states.clear()
    run = kill_scenario.run()
    with ThreadPoolExecutor(1) as executor, kill_scenario.process() as process:
        kill_scenario.sandbox.faults = [parse_fault(fault)]
        response = executor.submit(kill_scenario.submit_abort, kill_scenario.sign_in(process), run)
        wait_until(
            lambda: kill_scenario.sandbox.abort_request_counts[run.id], processes.WAIT_TIMEOUT
        )
        wait_until(
            lambda: not arrives or kill_scenario.status_upstream(run) in {"aborting", "aborted"}
        )
        process.end(signal.SIGKILL)
        assert not response.result()
    kill_scenario.record_killed(run)
    assert kill_scenario.left_states == {("requested", True)}
    with kill_scenario.process():
        kill_scenario.wait_until_settled(run)
    abort = kill_scenario.find_abort(run)
    assert abort is not None
    assert (abort.outcome, abort.send_count) == ("aborted", send_count)
    assert kill_scenario.sandbox.abort_request_counts[run.id] == send_count
