"""A list of runs aborted by one press: one after another, in time, and never twice."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import time_machine
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from structlog.testing import capture_logs

from dashboard import aborts
from dashboard.aborts import bulk as bulk_abort
from dashboard.accounts import permissions
from dashboard.models import Abort, AbortBatch, BatchItem, Grant, Run
from dashboard.models.bulk_aborts import Via
from dashboard.models.grants import Right
from dashboard.northflank import NorthflankClient, RateLimit
from dashboard.sandbox import parse_fault
from dashboard.upstream import budget_store
from tests.support import factories
from tests.support import live as live_module
from tests.support.flights import (
    LEDGER,
    SEARCH,
    ago,
    ask_with,
    eventually,
    flow,
    in_flight,
    look_after,
    mirrored,
    pass_time,
    press,
    read,
    stage,
    story,
    unguarded,
)
from tests.support.live import Live
from tests.support.world import T0, at


def asked(runs: list[Run], by: User, *, reason: str = "Stuck", key: UUID | None = None) -> Any:
    return aborts.request_many([run.pk for run in runs], aborts.Press(by, reason), key or uuid4())


def worked(live: Live, batch: AbortBatch, *, late: bool = False) -> list[str]:
    """Work through a list and return its results."""
    live.run(lambda: bulk_abort.work_through(live.connection, batch.pk, late=late))
    return results(batch)


def results(batch: AbortBatch) -> list[str]:
    return list(batch.items.values_list("result", flat=True))


def posts(live: Live) -> list[str]:
    """The runs whose abort was sent, in order."""
    aborts = [path for method, path in live.sandbox.requests if method == "POST"]
    return [path.split("/")[-2] for path in aborts if path.endswith("/abort")]


def settled(batch: AbortBatch) -> bool:
    return AbortBatch.objects.filter(pk=batch.pk, settled_at__isnull=False).exists()


@pytest.fixture
def runs(live: Live) -> list[Run]:
    """Five runs in flight."""
    return [in_flight(live) for _ in range(5)]


class _Counting(httpx.AsyncBaseTransport):
    """Passes everything on, and counts how many aborts are under way at once."""

    def __init__(self) -> None:
        self.inner = httpx.AsyncHTTPTransport()
        self.now = self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return await self.inner.handle_async_request(request)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self.inner.handle_async_request(request)
        finally:
            self.now -= 1

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.fixture
def counting(live: Live) -> _Counting:
    transport = _Counting()
    token = live.sandbox.options.token
    ask_with(live, NorthflankClient(token, base_url=live.upstream_url, transport=transport))
    return transport


# --- The press ----------------------------------------------------------------------------------


def test_the_list_is_kept_in_the_order_it_was_given(live: Live, manager: User) -> None:
    runs = [in_flight(live) for _ in range(3)]
    batch = asked([runs[2], runs[0], runs[1], runs[2]], manager)
    assert list(batch.items.values_list("run", flat=True)) == [runs[2].pk, runs[0].pk, runs[1].pk]


def test_nothing_is_sent_by_the_press_itself(live: Live, runs: list[Run], manager: User) -> None:
    asked(runs, manager)
    assert posts(live) == []
    assert not Abort.objects.exists()


def test_the_same_key_sent_twice_is_one_list(live: Live, runs: list[Run], manager: User) -> None:
    key = uuid4()
    assert asked(runs, manager, key=key) == asked(runs[:2], manager, key=key)
    assert BatchItem.objects.count() == 5


def test_a_reason_is_missing_where_one_of_the_stages_takes_one(
    live: Live, manager: User, settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = ["Production"]
    runs = [in_flight(live), in_flight(live, SEARCH)]
    with pytest.raises(aborts.ReasonMissing, match="Production"):
        asked(runs, manager, reason=" ")
    assert not AbortBatch.objects.exists()


def test_whoever_may_abort_none_of_them_is_told_who_can(
    live: Live, runs: list[Run], manager: User, viewer: User
) -> None:
    with pytest.raises(aborts.NotAllowed, match="Release managers"):
        asked(runs, viewer)
    assert not AbortBatch.objects.exists()


def test_a_list_that_is_too_long_is_refused(manager: User) -> None:
    production = factories.stage()
    runs = [factories.run(production) for _ in range(aborts.MOST + 1)]
    with pytest.raises(aborts.TooMany, match="these are 201"):
        asked(runs, manager)
    assert not AbortBatch.objects.exists()


def test_runs_that_the_person_may_not_see_are_not_in_the_list(live: Live, manager: User) -> None:
    seen, hidden = in_flight(live), in_flight(live, SEARCH)
    project = stage(LEDGER).pipeline.project
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), right=Right.ABORT, project=project)
    batch = asked([hidden, seen], manager)
    assert [item.run_id for item in batch.items.all()] == [seen.pk]
    with pytest.raises(aborts.NotInFlight):
        asked([hidden], manager)


# --- Working through ----------------------------------------------------------------------------


def test_all_are_aborted_in_their_order(live: Live, runs: list[Run], manager: User) -> None:
    runs.reverse()
    batch = asked(runs, manager)
    assert worked(live, batch) == ["abort"] * 5
    assert posts(live) == [run.run_id for run in runs]
    assert settled(batch)


def test_each_act_carries_the_lists_author_and_reason(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs, manager, reason="Bad  release")
    worked(live, batch)
    acts = Abort.objects.values_list("username", "reason", "batch", "state").distinct()
    assert list(acts) == [("manager", "Bad release", batch.pk, "accepted")]


def test_one_is_sent_at_a_time(
    live: Live, runs: list[Run], manager: User, counting: _Counting
) -> None:
    live.sandbox.faults = [parse_fault("latency:0.1@/abort")]
    worked(live, asked(runs, manager))
    assert len(posts(live)) == 5
    assert counting.most == 1


def test_two_processes_at_one_list_send_each_abort_once_and_one_at_a_time(
    live: Live, runs: list[Run], manager: User, counting: _Counting
) -> None:
    live.sandbox.faults = [parse_fault("latency:0.1@/abort")]
    batch = asked(runs, manager)

    async def both() -> None:
        await asyncio.gather(
            *(bulk_abort.work_through(live.connection, batch.pk) for _ in range(2))
        )

    live.run(both)
    assert live.sandbox.abort_posts == {run.run_id: 1 for run in runs}
    assert counting.most == 1
    assert Abort.objects.count() == 5


def test_a_run_that_has_ended_meanwhile_is_no_error(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs[:2], manager)
    pass_time(live, 3600)
    read(live, runs[0])
    later = in_flight(live)
    with unguarded():
        batch.items.filter(position=2).update(run=later)
    assert worked(live, batch) == ["ended", "abort"]
    assert posts(live) == [later.run_id]


def test_a_run_that_somebody_aborts_already_is_joined(
    live: Live, runs: list[Run], manager: User, viewer: User
) -> None:
    viewer.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    pressed = aborts.request(runs[0], aborts.Press(viewer, "Mine"))
    live.run(lambda: aborts.send(live.connection, pressed.abort.pk))
    batch = asked(runs[:2], manager)
    assert worked(live, batch) == ["joined", "abort"]
    assert batch.items.get(position=1).abort == pressed.abort
    assert live.sandbox.abort_posts[runs[0].run_id] == 1


def test_a_run_that_is_being_aborted_elsewhere_is_not_aborted_again(
    live: Live, runs: list[Run], manager: User
) -> None:
    live.sandbox.world.abort(flow(live, LEDGER), runs[0].run_id, live.sandbox.clock())
    mirrored(live, LEDGER, runs[0].run_id)
    batch = asked(runs[:1], manager)
    assert worked(live, batch) == ["joined"]
    assert batch.items.get().abort is None
    assert posts(live) == []


def test_a_right_that_was_withdrawn_meanwhile_stops_the_rest(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs[:3], manager)
    live.sandbox.faults = [parse_fault("latency:1@/abort")]
    begun(live, batch)
    eventually(lambda: posts(live))
    manager.groups.clear()
    eventually(lambda: settled(batch))
    assert results(batch) == ["abort", "not_allowed", "not_allowed"]
    assert "Release managers" in batch.items.get(position=3).note
    assert posts(live) == [runs[0].run_id]


def test_runs_where_the_person_may_not_are_left_and_the_others_aborted(
    live: Live, manager: User
) -> None:
    mine, other = in_flight(live), in_flight(live, SEARCH)
    project = stage(LEDGER).pipeline.project
    Grant.objects.filter(right=Right.ABORT).update(project=project)
    assert worked(live, asked([other, mine], manager)) == ["not_allowed", "abort"]
    assert posts(live) == [mine.run_id]


def test_an_account_that_was_deleted_stops_the_rest(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs[:2], manager)
    manager.delete()
    assert worked(live, batch) == ["not_allowed", "not_allowed"]
    assert posts(live) == []


def test_a_refused_abort_does_not_stop_the_others(
    live: Live, runs: list[Run], manager: User
) -> None:
    live.sandbox.faults = [parse_fault(f"error-string:409@{runs[1].run_id}/abort")]
    batch = asked(runs[:3], manager)
    assert worked(live, batch) == ["abort"] * 3
    states = list(Abort.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["accepted", "refused", "accepted"]


@pytest.mark.parametrize("result", ["abort", "ended", "joined", "not_allowed"])
def test_every_end_gives_its_run_a_new_version(
    live: Live, runs: list[Run], manager: User, result: str
) -> None:
    batch = asked(runs[:1], manager)
    if result == "ended":
        Run.objects.filter(pk=runs[0].pk).update(in_flight=False, concluded=True)
    if result == "joined":
        Run.objects.filter(pk=runs[0].pk).update(status="aborting")
    if result == "not_allowed":
        manager.groups.clear()
    before = Run.objects.get(pk=runs[0].pk).version
    assert worked(live, batch) == [result]
    assert Run.objects.get(pk=runs[0].pk).version > before


# --- The budget ---------------------------------------------------------------------------------


@pytest.fixture
def scarce(transactional_db: None, settings: Settings) -> Iterator[Live]:
    """Forty requests in an hour, twenty of them the reserve: lists stop at the last five."""
    settings.NORTHFLANK_REQUEST_RESERVE = "20"
    with live_module.running(live_module.options(rate_limit=40)) as running:
        yield running


def spend(live: Live, left: int) -> None:
    """Ask until only so many requests are left."""

    async def ask() -> None:
        for _ in range(40 - left - len(live.sandbox.requests)):
            await live.connection.ask(lambda nf: nf.auth())

    live.run(ask)


def test_a_list_leaves_the_last_quarter_of_the_reserve_to_single_aborts(
    scarce: Live, manager: User
) -> None:
    runs = [in_flight(scarce) for _ in range(6)]
    spend(scarce, 8)
    batch = asked(runs, manager)
    assert worked(scarce, batch) == ["abort"] * 6
    assert len(posts(scarce)) == 3
    states = list(Abort.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["accepted"] * 3 + ["not_sent"] * 3
    last = in_flight_again(scarce, runs[-1])
    assert press(scarce.person("manager"), last).status_code == 200
    assert scarce.sandbox.abort_posts[last.run_id] == 1


def in_flight_again(live: Live, run: Run) -> Run:
    assert run.in_flight
    return Run.objects.with_place().get(pk=run.pk)


def test_what_is_not_sent_says_until_when(scarce: Live, manager: User) -> None:
    runs = [in_flight(scarce) for _ in range(2)]
    spend(scarce, 5)
    worked(scarce, asked(runs, manager))
    for abort in Abort.objects.all():
        assert abort.retry_at is not None
        assert abort.retry_at - abort.requested_at > timedelta(minutes=50)
        assert "asked for a pause until" in story(abort)
        assert abort.settled_at is not None
    assert posts(scarce) == []


def test_a_refusal_for_the_rate_ends_the_rest(live: Live, runs: list[Run], manager: User) -> None:
    live.sandbox.faults = [parse_fault(f"rate-limited@{runs[2].run_id}/abort")]
    batch = asked(runs, manager)
    worked(live, batch)
    states = list(Abort.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["accepted"] * 2 + ["not_sent"] * 3
    assert posts(live) == [run.run_id for run in runs[:3]]
    assert settled(batch)


def test_a_list_waits_for_requests_that_come_soon(
    transactional_db: None, manager: User, settings: Settings
) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "4"
    with live_module.running(live_module.options(rate_limit=8, rate_window=4)) as live:
        runs = [in_flight(live) for _ in range(3)]
        batch = asked(runs, manager)

        async def spend_all() -> None:
            for _ in range(8 - len(live.sandbox.requests) % 8):
                await live.connection.ask(lambda nf: nf.auth())

        live.run(spend_all)
        assert aborts.held_until(batch, ago(0)) is not None
        assert worked(live, batch) == ["abort"] * 3
        assert set(Abort.objects.values_list("state", flat=True)) == {"accepted"}
        assert live.sandbox.abort_posts.total() == 3


# --- The process dies ---------------------------------------------------------------------------


def begun(live: Live, batch: AbortBatch) -> None:
    live.run(lambda: aborts.begin(batch.pk))


def test_a_list_goes_on_when_the_one_who_asked_has_left(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs, manager)
    begun(live, batch)
    eventually(lambda: settled(batch))
    assert live.sandbox.abort_posts == {run.run_id: 1 for run in runs}


def test_a_list_that_is_begun_is_sent_however_long_ago_it_was_asked_for(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs[:1], manager)
    with unguarded():
        AbortBatch.objects.update(requested_at=ago(400))
    begun(live, batch)
    eventually(lambda: settled(batch))
    assert posts(live) == [runs[0].run_id]


def test_a_list_that_was_cut_off_while_it_sent_is_gone_on_with(
    live: Live, runs: list[Run], manager: User
) -> None:
    live.sandbox.faults = [parse_fault(f"abort-timeout:5@{runs[1].run_id}")]
    batch = asked(runs, manager)
    begun(live, batch)
    eventually(lambda: live.sandbox.abort_posts[runs[1].run_id])
    live.run(aborts.let_go)
    assert results(batch) == ["abort", "abort", "waiting", "waiting", "waiting"]
    look_after(live)
    assert posts(live) == [run.run_id for run in runs[:2]]  # its lease holds yet
    aborts.orphan_all()
    look_after(live)
    eventually(lambda: settled(batch))
    assert results(batch) == ["abort"] * 5
    assert live.sandbox.abort_posts == {run.run_id: 1 for run in runs}


def test_an_act_that_was_made_and_not_sent_is_sent_before_the_list_goes_on(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs, manager)
    assert bulk_abort.take_turn(batch.pk).send is not None
    assert bulk_abort.take_turn(batch.pk).waits
    aborts.orphan_all()
    look_after(live)
    eventually(lambda: settled(batch))
    assert posts(live) == [run.run_id for run in runs]


def test_a_list_is_adopted_once(live: Live, runs: list[Run], manager: User) -> None:
    batch = asked(runs, manager)
    aborts.orphan_all()

    async def workers() -> None:
        await asyncio.gather(*(bulk_abort.adopt_batches(live.connection) for _ in range(3)))

    live.run(workers)
    eventually(lambda: settled(batch))
    assert live.sandbox.abort_posts == {run.run_id: 1 for run in runs}


def test_a_list_that_somebody_is_at_is_left_alone(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs, manager)
    look_after(live)
    assert results(batch) == ["waiting"] * 5


def test_a_list_that_is_found_much_later_is_not_sent(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs, manager)
    with unguarded():
        AbortBatch.objects.update(requested_at=ago(400), claimed_at=ago(350))
    look_after(live)
    eventually(lambda: settled(batch))
    assert results(batch) == ["abort"] * 5
    assert {story(abort) for abort in Abort.objects.all()} == {
        "Not sent: It could not be sent in time."
    }
    assert posts(live) == []
    assert all(abort.events.filter(what="not_sent").exists() for abort in Abort.objects.all())


def test_a_long_list_that_is_worked_through_without_a_pause_is_sent_to_its_end(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = asked(runs, manager)
    with unguarded():
        AbortBatch.objects.update(requested_at=ago(400))
    worked(live, batch)
    assert set(Abort.objects.values_list("state", flat=True)) == {"accepted"}


# --- All that is kept, turn by turn, without anything sent --------------------------------------


@pytest.fixture
def two(manager: User) -> list[Run]:
    """Two runs in flight in a stage where an abort takes a reason."""
    return [factories.run(factories.stage(), run_id) for run_id in ("r1", "r2")]


PRESS = {"reason": " Bad\n release ", "client_address": "192.0.2.7", "token_name": "ci"}


def frozen(runs: list[Run], by: User, key: UUID | None = None) -> AbortBatch:
    """Freeze a list at T0, by an API token."""
    press = aborts.Press(by, via=Via.API, **PRESS)
    with time_machine.travel(T0, tick=False):
        return aborts.request_many([run.pk for run in runs], press, key or uuid4())


def turn(batch: AbortBatch, *, after: float = 1, late: bool = False) -> bulk_abort.Turn:
    """Look at a list so many seconds after T0."""
    with time_machine.travel(at(after), tick=False):
        return bulk_abort.take_turn(batch.pk, late=late)


def items(batch: AbortBatch) -> list[tuple[Any, ...]]:
    return list(batch.items.values_list("run__run_id", "result", "abort", "note"))


def test_all_of_a_press_for_many_is_kept(two: list[Run], manager: User) -> None:
    key = uuid4()
    with capture_logs() as logs:
        batch = frozen(two, manager, key)
    kept = AbortBatch.objects.values(
        "key", "user", "username", "reason", "client_address", "via", "token_name",
        "requested_at", "claimed_at", "settled_at",
    ).get()  # fmt: skip
    assert kept == {
        "key": key, "user": manager.pk, "username": "manager", "reason": "Bad release",
        "client_address": "192.0.2.7", "via": "api", "token_name": "ci",
        "requested_at": T0, "claimed_at": T0, "settled_at": None,
    }  # fmt: skip
    assert list(batch.items.values_list("position", flat=True)) == [1, 2]
    assert items(batch) == [("r1", "waiting", None, ""), ("r2", "waiting", None, "")]
    assert logs == [
        {
            "event": "abort.many_requested", "log_level": "info",
            "runs": 2, "by": "manager", "reason": "Bad release",
        }
    ]  # fmt: skip


def test_of_two_presses_with_one_key_at_the_same_moment_one_is_kept(
    two: list[Run], manager: User
) -> None:
    key, first = uuid4(), False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal first
        result = run(sql, *rest)
        if sql.startswith("SELECT") and not first:
            first = True
            frozen(two[:1], manager, key)  # once the other has seen that there is none
        return result

    with connection.execute_wrapper(execute):
        batch = frozen(two, manager, key)
    assert batch == AbortBatch.objects.get()
    assert batch.items.count() == 1


@pytest.mark.parametrize(
    ("strict", "named"),
    [
        (["Staging"], "Staging"),
        (["Production", "Staging"], "Production and Staging"),
        (["Staging", "Production", "Development"], "Development and Production and Staging"),
    ],
)
def test_all_stages_that_take_a_reason_are_named(
    manager: User, settings: Settings, strict: list[str], named: str
) -> None:
    settings.ABORT_REASON_REQUIRED = strict
    stages = ("Production", "Staging", "Development")
    runs = [factories.run(factories.stage(name)) for name in stages]
    with pytest.raises(aborts.ReasonMissing, match=rf"^Aborting runs in {named} takes a reason\.$"):
        asked(runs, manager, reason="")


def test_where_no_stage_takes_a_reason_none_is_asked_for(
    two: list[Run], manager: User, settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = []
    assert asked(two, manager, reason="").reason == ""


def test_a_list_may_be_as_long_as_it_says(manager: User) -> None:
    production = factories.stage()
    runs = [factories.run(production) for _ in range(aborts.MOST + 1)]
    assert asked(runs[:-1], manager).items.count() == aborts.MOST
    said = r"^At most 200 runs can be aborted at once; these are 201\.$"
    with pytest.raises(aborts.TooMany, match=said):
        asked(runs, manager)


def test_a_turn_makes_the_act_of_its_run_and_keeps_the_lease(two: list[Run], manager: User) -> None:
    batch = frozen(two, manager)
    assert turn(batch) == bulk_abort.Turn(send=Abort.objects.get().pk)
    batch.refresh_from_db()
    act = Abort.objects.get()
    assert items(batch) == [("r1", "abort", act.pk, ""), ("r2", "waiting", None, "")]
    assert (batch.claimed_at, act.requested_at, act.batch) == (at(1), at(1), batch)
    assert (act.username, act.reason, act.client_address) == ("manager", "Bad release", "192.0.2.7")
    assert (act.via, act.token_name, act.state) == ("api", "ci", "requested")


def test_no_turn_comes_while_an_act_of_the_list_is_unanswered(
    two: list[Run], manager: User
) -> None:
    batch = frozen(two, manager)
    turn(batch)
    assert turn(batch, after=2) == bulk_abort.Turn(waits=True)
    batch.refresh_from_db()
    assert batch.claimed_at == at(2)
    Abort.objects.update(state="accepted")
    assert turn(batch, after=3).send == Abort.objects.latest("pk").pk


def test_another_lists_unanswered_act_holds_up_none(two: list[Run], manager: User) -> None:
    turn(frozen(two[:1], manager))
    assert turn(frozen(two[1:], manager)).send is not None


def test_a_list_is_over_once_all_have_had_their_turn(two: list[Run], manager: User) -> None:
    batch = frozen(two[:1], manager)
    turn(batch)
    assert turn(batch, after=2) == bulk_abort.Turn(over=True)
    batch.refresh_from_db()
    assert (batch.settled_at, batch.claimed_at) == (at(2), at(1))
    assert turn(batch, after=3) == bulk_abort.Turn(over=True)
    batch.refresh_from_db()
    assert batch.settled_at == at(2)


def test_a_list_that_nobody_knows_is_over(db: None) -> None:
    assert bulk_abort.take_turn(4711, late=False) == bulk_abort.Turn(over=True)


def not_sent(after: float) -> tuple[Any, ...]:
    """What is kept of the latest act, its times in seconds after T0."""
    act = Abort.objects.latest("pk")
    kept = act.state, act.answer, act.retry_at, act.settled_at
    told = list(act.events.values_list("what", "detail", "at"))[1:]
    assert told == [("not_sent", act.answer, at(after))]
    return kept


@pytest.mark.parametrize(("after", "late"), [(301, False), (300, True)])
def test_a_list_that_goes_on_without_a_pause_or_in_time_is_sent(
    two: list[Run], manager: User, after: float, late: bool
) -> None:
    assert turn(frozen(two, manager), after=after, late=late).send is not None


def test_a_list_that_is_gone_on_with_too_late_is_not_sent(two: list[Run], manager: User) -> None:
    batch = frozen(two, manager)
    assert turn(batch, after=301, late=True) == bulk_abort.Turn()
    expected = ("not_sent", "It could not be sent in time.", None, at(301))
    assert not_sent(301) == expected
    batch.refresh_from_db()
    assert items(batch)[0] == ("r1", "abort", Abort.objects.get().pk, "")
    assert batch.claimed_at == T0  # nobody has to be kept away from the rest


@pytest.mark.parametrize("left", [1, 299])
def test_a_list_waits_for_requests_that_come_in_time(
    two: list[Run], manager: User, left: float
) -> None:
    budget_store.refuse(left, at(1))
    assert turn(frozen(two, manager)) == bulk_abort.Turn(waits=True)
    assert not Abort.objects.exists()


def test_a_list_waits_for_no_requests_that_come_too_late(two: list[Run], manager: User) -> None:
    budget_store.refuse(300, at(1))
    assert turn(frozen(two, manager)) == bulk_abort.Turn()
    said = "Northflank’s request allowance is spent."
    assert not_sent(1) == ("not_sent", said, at(301), at(1))


def test_a_list_is_held_until_there_are_requests_again(two: list[Run], manager: User) -> None:
    batch = frozen(two, manager)
    assert aborts.held_until(batch, at(1)) is None
    budget_store.record(RateLimit(1000, 25, 90), at(1))  # the last quarter of the reserve
    assert aborts.held_until(batch, at(11)) == at(91)
    budget_store.refuse(40, at(1))
    assert aborts.held_until(batch, at(11)) == at(41)
    AbortBatch.objects.update(settled_at=T0)
    batch.refresh_from_db()
    assert aborts.held_until(batch, at(11)) is None


def test_a_run_that_is_aborted_elsewhere_says_so_in_the_list(two: list[Run], manager: User) -> None:
    Run.objects.filter(run_id="r1").update(status="aborting")
    batch = frozen(two, manager)
    assert turn(batch) == bulk_abort.Turn()
    assert items(batch)[0] == ("r1", "joined", None, "It was being aborted already.")
    assert not Abort.objects.exists()


def test_a_run_whose_abort_is_under_way_is_joined_in_the_list(
    two: list[Run], manager: User
) -> None:
    Run.objects.filter(run_id="r1").update(status="aborting")
    first = factories.abort(two[0], manager)
    batch = frozen(two, manager)
    assert turn(batch) == bulk_abort.Turn()
    assert items(batch)[0] == ("r1", "joined", first.pk, "")


def test_a_run_that_has_ended_while_it_was_aborted_has_ended(two: list[Run], manager: User) -> None:
    batch = frozen(two, manager)
    Run.objects.filter(run_id="r1").update(status="aborting", in_flight=False)
    assert turn(batch) == bulk_abort.Turn()
    assert items(batch)[0] == ("r1", "ended", None, "")


def test_whoever_may_no_more_is_told_why_in_the_list(two: list[Run], manager: User) -> None:
    batch = frozen(two, manager)
    manager.groups.clear()
    assert turn(batch) == bulk_abort.Turn()
    why = "Only members of the group “Release managers” may abort runs here."
    assert items(batch)[0] == ("r1", "not_allowed", None, why)


def test_whose_account_is_gone_is_told_so_in_the_list(two: list[Run], manager: User) -> None:
    batch = frozen(two, manager)
    manager.delete()
    assert turn(batch) == bulk_abort.Turn()
    why = "The account that asked for it exists no more."
    assert items(batch)[0] == ("r1", "not_allowed", None, why)


def test_runs_are_visible_once_and_in_order_where_they_may_be_seen(
    two: list[Run], manager: User
) -> None:
    hidden = factories.run(factories.stage("Staging"))
    Grant.objects.all().delete()
    factories.grant("see", stage="Production")
    keys = [two[1].pk, hidden.pk, 4711, two[0].pk, two[1].pk]
    rights = permissions.rights(manager)
    with CaptureQueriesContext(connection) as asked_for:
        seen = aborts.visible(keys, rights)
        assert [run.stage.pipeline.project.slug for run in seen] == ["shop", "shop"]
    assert seen == [two[1], two[0]]
    [query] = asked_for
    assert '"dashboard_run"."id" IN' in query["sql"]  # whatever else there is stays unread


def test_the_same_key_sent_again_is_not_judged_again(two: list[Run], manager: User) -> None:
    key = uuid4()
    batch = frozen(two, manager, key)
    manager.groups.clear()
    assert frozen(two, manager, key) == batch


def test_whoever_may_abort_none_is_told_why_of_the_first(
    two: list[Run], manager: User, viewer: User
) -> None:
    Grant.objects.filter(right=Right.ABORT).delete()
    factories.grant("abort", "Leads", stage="Staging")
    there = factories.run(factories.stage("Staging"))
    of_production = "^Nobody but an administrator of this dashboard may abort runs here.$"
    for runs in ([two[0]], [two[0], there]):
        with pytest.raises(aborts.NotAllowed, match=of_production):
            frozen(runs, viewer)
