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

from dashboard.models import Abort, AbortEvent, Run
from dashboard.models.aborts import AbortState, EventType
from dashboard.sandbox import parse_fault
from dashboard.sandbox.catalog import ReleaseFlow
from dashboard.sandbox.history import Run as SandboxRun
from dashboard.sandbox.sandbox import Sandbox
from tests.support import abort_truth as truth
from tests.support import processes
from tests.support.crashes import KILL_AT
from tests.support.databases import (
    LEDGER,
    PROCESS_DATABASE,
    address,
    connected_to_database,
    create_idle_stage,
    mirrored,
    postgres,
)
from tests.support.live import token
from tests.support.live_runs import wait_until
from tests.support.processes import Running, manage, upstream

pytestmark = pytest.mark.process

MAX_STEPS = 200  # more steps than an abort can have


@dataclass
class KillScenario:
    """A database, an upstream, and the processes that come and go over them."""

    folder: Path
    sandbox: Sandbox
    given: dict[str, str]
    cookies: httpx.Cookies | None = None
    left: set[tuple[str, bool]] = field(default_factory=set)
    """What the dead have left: the state of the act ("": none) and whether it was being sent."""

    @contextlib.contextmanager
    def process(self, dies_at: str = "") -> Iterator[Running]:
        with processes.fork(
            "tests.support.crashes", "serve", "--port", "0",
            folder=self.folder, **self.given, **{KILL_AT: dies_at},
        ) as process:  # fmt: skip
            yield process

    def person(self, process: Running) -> httpx.Client:
        """A browser that stays signed in from process to process."""
        if self.cookies is None:
            self.cookies = httpx.Cookies(process.person("boss").cookies)
        person = process.browser()
        person.cookies = self.cookies
        return person

    def run(self) -> SandboxRun:
        """Start a run upstream, and mirror it."""
        run = self.sandbox.world.start_run(self.flow, self.sandbox.clock(), {})
        mirrored(run.id)
        return run

    @property
    def flow(self) -> ReleaseFlow:
        found = self.sandbox.world.find_flow(*LEDGER)
        assert found is not None
        return found

    def status(self, run: SandboxRun) -> str:
        """What Northflank says of a run now."""
        now = self.sandbox.clock()
        found = self.sandbox.world.find_run(self.flow, run.id, now)
        assert found is not None
        return self.sandbox.world.run_status(found, now)

    def press(self, person: httpx.Client, run: SandboxRun, again: Abort | None = None) -> bool:
        """Press Abort, or Try again, and say whether it was answered."""
        data = {"csrfmiddlewaretoken": token(person), "resend": str(again.pk) if again else ""}
        with contextlib.suppress(httpx.TransportError):
            answer = person.post(address(run.id), data=data)
            assert answer.status_code == 302, answer.text
            return True
        return False

    def create_overdue_abort(self, run: SandboxRun) -> Abort:
        """An abort that Northflank accepted long ago, and of which nothing came."""
        then = timezone.now() - timedelta(minutes=11)
        row = Run.objects.using(PROCESS_DATABASE).get(run_id=run.id)
        act = Abort.objects.using(PROCESS_DATABASE).create(
            run=row, username="ana", state=AbortState.ACCEPTED, requested_at=then, claimed_at=then,
            sent_at=then, answered_at=then, answer_status=200,
        )  # fmt: skip
        for what in (EventType.REQUESTED, EventType.SENT, EventType.ACCEPTED):
            AbortEvent.objects.using(PROCESS_DATABASE).create(
                abort=act, event_type=what, occurred_at=then
            )
        return act

    def act(self, run: SandboxRun) -> Abort | None:
        """The one act that a press has made; None: the press did not come so far."""
        acts = (
            Abort.objects.using(PROCESS_DATABASE).filter(run__run_id=run.id).exclude(username="ana")
        )
        assert len(acts) <= 1
        return acts.select_related("run").first()

    def settled(self, run: SandboxRun) -> Abort | None:
        """The act once it has settled; has the run read at once, as if time had passed."""
        act = self.act(run)
        if act is None or act.settled_at is not None:
            return act
        waiting = Run.objects.using(PROCESS_DATABASE).filter(
            run_id=run.id, next_detail_sync_at__gt=timezone.now()
        )
        waiting.update(next_detail_sync_at=timezone.now())
        return None

    def record_killed(self, run: SandboxRun) -> None:
        """Note what a killed process has left of its abort; its lease has run out."""
        act = self.act(run)
        self.left.add((act.state, act.sent_at is not None) if act else ("", False))
        self.sandbox.requests.clear()
        self.sandbox.faults = []
        if act is not None and connections[PROCESS_DATABASE].vendor == "postgresql":
            # Nobody wants to wait for it here. On SQLite a process that starts is the only one.
            long_ago = timezone.now() - timedelta(minutes=1)
            requested = Abort.objects.using(PROCESS_DATABASE).filter(pk=act.pk, state="requested")
            requested.update(claimed_at=long_ago)

    def wait_until_settled(self, run: SandboxRun) -> None:
        """Wait until what was left of an abort has settled, and judge it."""
        act = self.act(run)
        if act is None:  # the press was not written down: nothing has happened, or will
            assert not self.sandbox.abort_request_counts[run.id]
            return
        before = act.settled_at
        act = wait_until(lambda: self.settled(run), processes.PATIENCE)
        methods = [method for method, path in list(self.sandbox.requests) if run.id in path]
        if before is None:
            assert methods[0] == "GET"  # whatever was left, the run is read before anything is sent
        trail = list(AbortEvent.objects.using(PROCESS_DATABASE).filter(abort=act))
        # Each sending was written down first; only the dead one's may not have left.
        assert act.send_count - 1 <= self.sandbox.abort_request_counts[run.id] <= act.send_count
        assert act.send_count == sum(line.event_type == EventType.SENT for line in trail)
        truth.assert_abort_is_consistent(
            act,
            trail,
            status=self.status(run),
            posts=self.sandbox.abort_request_counts[run.id],
        )


def kill_at_each(
    steps: str, killings: KillScenario, *faults: str, again: bool = False
) -> tuple[Abort, int]:
    """Kill one process after the other, until an abort ends before its process.

    Returns that abort, and how many processes were killed.
    """
    killings.left.clear()
    dead: SandboxRun | None = None
    for number in range(MAX_STEPS):
        with killings.process(f"{steps} {number + 1}") as process:
            if dead is not None:
                killings.wait_until_settled(dead)
            person, dead = killings.person(process), killings.run()
            killings.sandbox.faults = [parse_fault(fault) for fault in faults]
            tried = killings.create_overdue_abort(dead) if again else None
            if killings.press(person, dead, tried):
                assert killings.act(dead) is not None  # whoever was answered was written down
            if not _dies(process, killings, dead):
                killings.wait_until_settled(dead)
                ended = killings.act(dead)
                assert ended is not None
                return ended, number
        killings.record_killed(dead)
    raise AssertionError("it never came to an end")


def kill_in_state(state: str, killings: KillScenario, fault: str) -> tuple[Abort, int]:
    """Kill at each commit; return as `kill_at_each` once a process died with the abort in `state`.

    The sync's own readings of runs are commits too, between the abort's or not: now and then all
    deaths fall on others than the one that is wanted. Three times in a row they do not.
    """
    for _ in range(3):
        ended, deaths = kill_at_each("commit", killings, fault)
        if (state, True) in killings.left:
            return ended, deaths
    raise AssertionError(f"no process died while its abort was {state}")


def _dies(process: Running, killings: KillScenario, run: SandboxRun) -> bool:
    """Wait until the process has died, or has brought the abort to its end."""
    until = time.monotonic() + processes.PATIENCE
    while time.monotonic() < until:
        if process.process.poll() is not None:
            assert process.process.returncode == -signal.SIGKILL, process.log.read_text()
            return True
        if killings.settled(run) is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(0.5)  # it may have its last step before it
                return True
            return False
        time.sleep(0.02)
    raise AssertionError("it neither died nor came to an end")


@pytest.fixture(scope="module")
def killings(
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
        given = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
        }
        assert manage("migrate", "-v0", **given).returncode == 0
        account = ["createsuperuser", "--noinput", "--username=boss", "--email="]
        assert manage(*account, DJANGO_SUPERUSER_PASSWORD="boss", **given).returncode == 0
        stack.enter_context(django_db_blocker.unblock())
        stack.enter_context(connected_to_database(database))
        create_idle_stage()
        yield KillScenario(tmp_path, sandbox, given)


both = pytest.mark.parametrize(
    "killings",
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


@both
def test_abort_with_process_killed_at_any_step_is_completed(killings: KillScenario) -> None:
    ended, deaths = kill_at_each("step", killings)
    assert ended.outcome == "aborted"
    assert deaths >= 20  # fewer, and the steps were not found
    # No act, one that was not sent, one that may have been, one that was answered, one that ended.
    assert killings.left == {
        ("", False), ("requested", False), ("requested", True), ("accepted", True),
        ("concluded", True),
    }  # fmt: skip


@both
def test_abort_without_response_with_process_killed_is_completed(killings: KillScenario) -> None:
    ended, _ = kill_in_state("unknown", killings, "reset-after@/abort")
    assert (ended.outcome, ended.answered_at) == ("aborted", None)


@both
def test_resent_abort_with_process_killed_is_completed(killings: KillScenario) -> None:
    ended, deaths = kill_in_state("unknown", killings, "503*1@/abort")
    assert (ended.outcome, ended.send_count) == ("aborted", 2)
    assert deaths >= 8


@both
def test_refused_abort_with_process_killed_is_settled(killings: KillScenario) -> None:
    ended, _ = kill_in_state("refused", killings, "error-string:409@/abort")
    assert ended.state == "refused"


@both
def test_retried_abort_with_process_killed_is_completed(killings: KillScenario) -> None:
    ended, _ = kill_at_each("commit", killings, again=True)
    assert ended.outcome == "aborted"
    first = Abort.objects.using(PROCESS_DATABASE).get(retried_by=ended.pk)
    assert (first.state, first.settled_at) == ("retried", ended.requested_at)


@both
@pytest.mark.parametrize(
    ("fault", "arrives", "send_count"),
    [("abort-lost:30", False, 2), ("abort-timeout:30", True, 1)],
)
def test_abort_with_process_killed_during_request_is_reconciled(
    killings: KillScenario, fault: str, arrives: bool, send_count: int
) -> None:
    killings.left.clear()
    run = killings.run()
    with ThreadPoolExecutor(1) as hands, killings.process() as process:
        killings.sandbox.faults = [parse_fault(fault)]
        pressed = hands.submit(killings.press, killings.person(process), run)
        wait_until(lambda: killings.sandbox.abort_request_counts[run.id], processes.PATIENCE)
        wait_until(lambda: not arrives or killings.status(run) in {"aborting", "aborted"})
        process.end(signal.SIGKILL)
        assert not pressed.result()
    killings.record_killed(run)
    assert killings.left == {("requested", True)}
    with killings.process():
        killings.wait_until_settled(run)
    ended = killings.act(run)
    assert ended is not None
    assert (ended.outcome, ended.send_count) == ("aborted", send_count)
    assert killings.sandbox.abort_request_counts[run.id] == send_count
