"""Reads of runs before their aborts are sent again: few while Northflank cannot be read."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.aborts import reconcile, resend, resend_policy
from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.aborts.send import send_abort
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Abort, BulkAbort, Run, Stage
from dashboard.northflank import RateLimit
from dashboard.sync.worker import SyncWorker
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from tests.support import factories, payloads
from tests.support.abort_answers import Logs, log_line, run_with_answers
from tests.support.bulk_aborts import request_bulk
from tests.support.live_runs import append_only_disabled
from tests.support.rate_budget import record_response
from tests.support.world import T0, at


@dataclass
class Northflank:
    """Answers requests for any run, each of which is aborting once an abort has arrived.

    `is_down`: which requests fail, with 503; `remaining`: how many the rate limit allows.
    """

    is_down: Callable[[str, str], bool] = lambda method, path: False
    remaining: int = 900
    run_ids: list[str] = field(default_factory=list)  # as listed
    requests: Counter[str] = field(default_factory=Counter)  # by kind
    aborted: Counter[str] = field(default_factory=Counter)  # aborts that arrived, by run

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removesuffix("/abort")
        place, _, run_id = path.partition("/runs/")
        self.requests[request.method if run_id else place.rpartition("/")[2]] += 1
        self.remaining -= 1
        headers = {
            "x-ratelimit-limit": "1000",
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": "3000",
        }
        if self.is_down(request.method, request.url.path):
            return httpx.Response(503, json=payloads.error("Down"), headers=headers)
        if request.method == "POST":
            self.aborted[run_id] += 1
        body = payloads.data(self.describe(run_id) if run_id else {"id": "ci", "name": "CI"})
        if place.endswith("/runs"):
            body = payloads.page("runs", *map(self.describe, self.run_ids))
        return httpx.Response(200, json=body, headers=headers)

    def describe(self, run_id: str) -> payloads.Json:
        return payloads.run(run_id, status="aborting" if self.aborted[run_id] else "running")

    def run(self, work: Callable[[Connection], Awaitable[None]]) -> Logs:
        """Run `work` with a connection, and return what it logs of aborts."""
        self.run_ids = list(Run.objects.values_list("run_id", flat=True))
        return run_with_answers(self.answer, work)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """The clock, which stands still at T0."""
    with time_machine.travel(T0, tick=False) as traveller:
        yield traveller


# --- During an outage ---------------------------------------------------------------------------


async def work_for_two_minutes(
    connection: Connection, clock: time_machine.Traveller, northflank: Northflank
) -> Counter[str]:
    """Let a worker work; return the requests of the first minute."""
    chores = [reconcile_open_aborts]
    worker = SyncWorker(connection, chores=chores, sync_clock=lambda: None)
    requests = Counter[str]()
    for second in range(120):
        started_at = monotonic()
        await worker.tick()
        await worker.wait_idle()
        clock.shift(1)
        connection.retry_at -= 1 - (monotonic() - started_at)
        if second < 60:
            requests = northflank.requests.copy()
    return requests


@pytest.mark.slow
@pytest.mark.parametrize(
    ("down", "count", "reads"), [("/", 12, 12), ("/runs/", 1, 13)], ids=["everything", "runs"]
)
def test_runs_are_read_seldom_in_an_outage_and_all_aborts_resent_soon_after_it(
    clock: time_machine.Traveller,
    run: Run,
    manager: User,
    down: str,
    count: int,
    reads: int,
) -> None:
    def is_down(_: str, path: str) -> bool:
        return down in path and timezone.now() < at(60)

    async def abort_and_work(connection: Connection) -> None:
        await asyncio.gather(*(send_abort(connection, abort.pk) for abort in requested))
        northflank.requests.clear()
        requests.update(await work_for_two_minutes(connection, clock, northflank))

    Stage.objects.update(flow_synced_at=T0)
    requested = [
        request_abort(factories.run(run.stage), AbortRequest(manager, "Stuck")).abort
        for _ in range(count)
    ]
    requests, northflank = Counter[str](), Northflank(is_down)
    northflank.run(abort_and_work)
    # The client repeats each read, and asks as often whether all fails.
    assert requests["GET"] <= 2 * reads
    assert requests["auth"] <= 2 * reads
    assert requests["POST"] == 0
    assert northflank.aborted == Counter(abort.run.run_id for abort in requested)
    assert set(Abort.objects.values_list("state", "send_count")) == {("accepted", 2)}
    assert not Abort.objects.filter(sent_at__gt=at(95)).exists()  # it is probed every 30 s


@pytest.fixture
def unconfirmed(clock: time_machine.Traveller, run: Run, manager: User) -> list[Abort]:
    """Six aborts that may not have arrived and are due to be resent, the longest due first."""
    return [
        factories.abort_of_new_run(
            manager, run.stage, "unknown", send_count=1, responded_at=None,
            sent_at=at(-30), claimed_at=at(number - 30),
        )
        for number in range(6)
    ]  # fmt: skip


def fail_reads(*failing: Abort) -> None:
    """Record that the last read of the runs of these aborts has failed."""
    Run.objects.filter(aborts__in=failing).update(failures=1)


@pytest.fixture
def connection() -> Connection:
    return Connection("token", "http://northflank.invalid")


type Claim = Callable[..., list[Abort]]


@pytest.fixture
def claim(connection: Connection) -> Claim:
    """Claim the aborts that are due so many seconds after T0."""

    def claim(seconds: float = 0, tried: list[Abort] | None = None) -> list[Abort]:
        keys = {abort.pk for abort in tried or []}
        return resend.claim_due_resends(connection, at(seconds), keys)

    return claim


def test_few_runs_are_read_at_the_same_time(claim: Claim, unconfirmed: list[Abort]) -> None:
    assert claim() == unconfirmed[:4]
    assert claim(1) == []
    resend.postpone(Abort.objects.get(pk=unconfirmed[0].pk))  # one of them has been read
    assert claim() == unconfirmed[4:5]


def test_one_run_is_read_in_an_outage(
    claim: Claim, connection: Connection, unconfirmed: list[Abort]
) -> None:
    connection.outage = "server_error"
    assert claim() == unconfirmed[:1]


def test_abort_that_was_tried_is_not_claimed_again(claim: Claim, unconfirmed: list[Abort]) -> None:
    assert claim(tried=unconfirmed[1:5]) == [unconfirmed[0], unconfirmed[5]]


def test_runs_whose_last_read_failed_take_turns_by_twos(
    claim: Claim, unconfirmed: list[Abort]
) -> None:
    fail_reads(*unconfirmed[:5])
    assert claim() == [*unconfirmed[:2], unconfirmed[5]]
    for abort in Abort.objects.exclude(claimed_at__lt=T0):  # they have been read
        resend.postpone(abort)
    assert claim(14.999) == unconfirmed[5:]
    assert claim(15) == unconfirmed[2:4]


def test_next_runs_follow_at_once_when_one_can_be_read_again(unconfirmed: list[Abort]) -> None:
    fail_reads(*unconfirmed)
    northflank = Northflank()
    reconcile_now(northflank)
    assert northflank.requests == {"GET": 6, "POST": 6}


@pytest.mark.parametrize(
    ("after", "seconds"),
    [(-5, 1), (0, 1), (2, 1), (4, 2), (16, 8), (30, 15), (31, 15), (120, 15)],
)
def test_time_between_failed_reads_doubles_up_to_a_maximum(after: float, seconds: float) -> None:
    assert resend_policy.read_interval(timedelta(seconds=after)) == timedelta(seconds=seconds)


def test_time_between_failed_reads_is_that_of_the_abort_sent_first(
    claim: Claim,
    unconfirmed: list[Abort],
) -> None:
    first, second = unconfirmed[:2]
    fail_reads(first, second)
    Abort.objects.exclude(pk__in=[first.pk, second.pk]).update(state="accepted")
    Abort.objects.filter(pk=first.pk).update(sent_at=at(-10))
    Abort.objects.filter(pk=second.pk).update(sent_at=at(-2))
    assert claim() == [first, second]
    for abort in Abort.objects.filter(pk__in=[first.pk, second.pk]):
        abort.claimed_at = at(15)
        resend.postpone(abort)
    assert claim(9) == []
    assert claim(10) == [first, second]


@pytest.mark.parametrize(
    "fields",
    [{"send_count": 5}, {"sent_at": at(-121)}],
    ids=["sent five times", "sent long ago"],
)
def test_abort_that_is_not_resent_takes_no_turn(
    claim: Claim, unconfirmed: list[Abort], fields: dict[str, Any]
) -> None:
    fail_reads(*unconfirmed[:3])
    Abort.objects.filter(pk=unconfirmed[0].pk).update(**fields)
    assert claim() == [*unconfirmed[1:3], *unconfirmed[3:5]]


def test_one_run_is_read_after_a_429_until_it_is_answered(
    claim: Claim, unconfirmed: list[Abort]
) -> None:
    budget_store.record_rate_limited(5, T0)
    assert claim(4) == []
    assert claim(6) == unconfirmed[:1]  # it tries
    assert claim(7) == []
    record_response(RateLimit(1000, 900, 3000), at(7))
    assert claim(7) == unconfirmed[1:4]


# --- A whole round ------------------------------------------------------------------------------


def reconcile_now(northflank: Northflank, outage: str = "") -> Logs:
    async def work(connection: Connection) -> None:
        connection.outage = outage
        await reconcile_open_aborts(connection)

    return northflank.run(work)


def test_all_due_aborts_are_resent_in_one_round(unconfirmed: list[Abort]) -> None:
    northflank = Northflank()
    reconcile_now(northflank)
    assert northflank.requests == {"GET": 6, "POST": 6}
    assert set(Abort.objects.values_list("state", "send_count")) == {("accepted", 2)}


def test_abort_is_resent_once_in_a_round(
    clock: time_machine.Traveller, unconfirmed: list[Abort]
) -> None:
    sent = set()

    def is_down(method: str, path: str) -> bool:
        if method == "POST":
            sent.add(path.removesuffix("/abort"))
        elif path in sent:  # the read after it
            clock.shift(2)  # as long as until the next send
        return method == "POST"

    northflank = Northflank(is_down)
    reconcile_now(northflank)
    assert northflank.requests["POST"] == 6
    assert set(Abort.objects.values_list("state", "send_count")) == {("unknown", 2)}


def test_bulk_abort_is_not_resent_once_others_have_used_its_requests(
    unconfirmed: list[Abort], manager: User
) -> None:
    batch = request_bulk([abort.run for abort in unconfirmed], manager)
    with append_only_disabled():
        Abort.objects.update(bulk_abort=batch)
    BulkAbort.objects.update(settled_at=T0)
    northflank = Northflank(remaining=30)
    record_response(RateLimit(1000, 30, 3000), T0)
    reconcile_now(northflank)
    assert northflank.requests["POST"] == 4
    assert northflank.remaining == 22  # of a reserve of 100, the last 25 are for single aborts


def test_one_run_is_read_in_an_outage_and_then_all(unconfirmed: list[Abort]) -> None:
    northflank = Northflank(lambda *_: True)
    reconcile_now(northflank, outage="server_error")
    assert northflank.requests["GET"] <= 2  # the client repeats it
    northflank.is_down = lambda *_: False
    northflank.requests.clear()
    Abort.objects.update(claimed_at=at(-30))
    reconcile_now(northflank, outage="server_error")
    assert northflank.requests == {"GET": 6, "POST": 6}


# --- Aborts whose process has ended before they were sent ---------------------------------------


@pytest.fixture
def unsent(clock: time_machine.Traveller, run: Run, manager: User) -> list[Abort]:
    """Five aborts that were never sent and whose leases have expired, and one that was sent."""
    return [
        factories.abort_of_new_run(
            manager, run.stage, "requested", requested_at=at(-60), claimed_at=at(number - 60),
            sent_at=at(-60) if number == 5 else None, responded_at=None,
        )
        for number in range(6)
    ]  # fmt: skip


def test_few_unsent_aborts_are_adopted_at_the_same_time(unsent: list[Abort]) -> None:
    assert reconcile.claim_unanswered(T0) == [unsent[5], *unsent[:4]]
    assert reconcile.claim_unanswered(T0) == unsent[4:5]


def test_runs_of_unsent_aborts_are_not_read_during_the_pause_after_a_429(
    unsent: list[Abort],
) -> None:
    budget_store.record_rate_limited(5, at(-1))
    northflank = Northflank()
    logs = reconcile_now(northflank)
    assert not northflank.requests
    postponed = [line for line in logs if line["event"] == "abort.adoption_postponed"]
    expected = log_line("adoption_postponed", "info", cause="rate_limited")
    assert sorted(postponed, key=str) == sorted(
        (expected | {"run": abort.run.run_id} for abort in unsent[:4]), key=str
    )
    assert reconcile.claim_unanswered(at(15.001)) == [unsent[4], *unsent[:3]]  # tried again


# --- In the last half of the reserve, where nothing else is read --------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("down", ["outage", "rate_limited", "run"])
def test_abort_is_resent_after_a_short_failure_in_the_last_half_of_the_reserve(
    clock: time_machine.Traveller, run: Run, manager: User, down: str
) -> None:
    """Nobody noticed that Northflank answered again."""
    Stage.objects.update(flow_synced_at=T0)
    record_response(RateLimit(1000, 45, 3000), T0)
    aborted = request_abort(factories.run(run.stage), AbortRequest(manager, "Stuck")).abort

    async def abort_and_work(connection: Connection) -> None:
        await send_abort(connection, aborted.pk)
        if down == "rate_limited":
            await run_in_db_thread(budget_store.record_rate_limited, 5, T0)
        await work_for_two_minutes(connection, clock, northflank)

    path = "/" if down == "outage" else "/runs/"
    northflank = Northflank(lambda _, to: path in to and timezone.now() < at(3), remaining=45)
    northflank.run(abort_and_work)
    aborted.refresh_from_db()
    assert aborted.state == "accepted"
    assert northflank.aborted.total() == 1
    assert northflank.remaining > 20
