"""Bulk aborts: runs are aborted one after another, in time, and never twice."""

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
from dashboard.models import Abort, BulkAbort, BulkAbortItem, Grant, Run
from dashboard.models.bulk_aborts import Via
from dashboard.models.grants import Action
from dashboard.northflank import NorthflankClient, RateLimit
from dashboard.sandbox import parse_fault
from dashboard.upstream import budget_store
from tests.support import factories
from tests.support import live as live_module
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    SEARCH,
    abort_message,
    advance_time,
    ago,
    append_only_disabled,
    create_run_in_flight,
    flow,
    mirror_run,
    read,
    reconcile,
    replace_client,
    stage,
    submit_abort,
    wait_until,
)
from tests.support.world import T0, at


def request_bulk(
    runs: list[Run],
    user: User,
    *,
    reason: str = "Stuck",
    key: UUID | None = None,
    typed_count: str | None = None,
) -> Any:
    """Request a bulk abort; the number of runs is typed correctly unless `typed_count` is given."""
    run_keys = [run.pk for run in runs]
    return aborts.request_bulk_abort(
        run_keys,
        aborts.AbortRequest(user, reason),
        key or uuid4(),
        typed_count=str(len(set(run_keys))) if typed_count is None else typed_count,
    )


def process(live: Live, batch: BulkAbort, *, is_delayed: bool = False) -> list[str]:
    """Process a bulk abort and return its results."""
    live.run(
        lambda: bulk_abort.process_bulk_abort(live.connection, batch.pk, is_delayed=is_delayed)
    )
    return results(batch)


def results(batch: BulkAbort) -> list[str]:
    return list(batch.items.values_list("result", flat=True))


def sent_run_ids(live: Live) -> list[str]:
    """The runs whose abort was sent, in order."""
    aborts = [path for method, path in live.sandbox.requests if method == "POST"]
    return [path.split("/")[-2] for path in aborts if path.endswith("/abort")]


def is_settled(batch: BulkAbort) -> bool:
    return BulkAbort.objects.filter(pk=batch.pk, settled_at__isnull=False).exists()


@pytest.fixture
def runs(live: Live) -> list[Run]:
    """Five runs in flight."""
    return [create_run_in_flight(live) for _ in range(5)]


class _CountingTransport(httpx.AsyncBaseTransport):
    """Forwards requests, and counts how many aborts are under way at once."""

    def __init__(self) -> None:
        self.transport = httpx.AsyncHTTPTransport()
        self.active = self.max_active = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return await self.transport.handle_async_request(request)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        try:
            return await self.transport.handle_async_request(request)
        finally:
            self.active -= 1

    async def aclose(self) -> None:
        await self.transport.aclose()


@pytest.fixture
def counting_transport(live: Live) -> _CountingTransport:
    transport = _CountingTransport()
    token = live.sandbox.options.token
    replace_client(live, NorthflankClient(token, base_url=live.upstream_url, transport=transport))
    return transport


# --- The request --------------------------------------------------------------------------------


def test_bulk_abort_keeps_given_order_without_duplicates(live: Live, manager: User) -> None:
    runs = [create_run_in_flight(live) for _ in range(3)]
    batch = request_bulk([runs[2], runs[0], runs[1], runs[2]], manager)
    assert list(batch.items.values_list("run", flat=True)) == [runs[2].pk, runs[0].pk, runs[1].pk]


def test_bulk_abort_request_sends_nothing(live: Live, runs: list[Run], manager: User) -> None:
    request_bulk(runs, manager)
    assert sent_run_ids(live) == []
    assert not Abort.objects.exists()


def test_bulk_abort_request_repeated_with_same_key_is_stored_once(
    live: Live, runs: list[Run], manager: User
) -> None:
    key = uuid4()
    assert request_bulk(runs, manager, key=key) == request_bulk(runs[:2], manager, key=key)
    assert BulkAbortItem.objects.count() == 5


def test_bulk_abort_without_reason_is_rejected_when_a_stage_requires_one(
    live: Live, manager: User, settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = ["Production"]
    runs = [create_run_in_flight(live), create_run_in_flight(live, SEARCH)]
    with pytest.raises(aborts.ReasonMissing, match="Production"):
        request_bulk(runs, manager, reason=" ")
    assert not BulkAbort.objects.exists()


def test_bulk_abort_without_permission_is_rejected_naming_allowed_groups(
    live: Live, runs: list[Run], manager: User, viewer: User
) -> None:
    with pytest.raises(aborts.NotAllowed, match="Release managers"):
        request_bulk(runs, viewer)
    assert not BulkAbort.objects.exists()


def test_bulk_abort_above_maximum_is_rejected(manager: User) -> None:
    production = factories.stage()
    runs = [factories.run(production) for _ in range(aborts.MAX_RUNS + 1)]
    with pytest.raises(aborts.TooManyRuns, match="201 are selected"):
        request_bulk(runs, manager)
    assert not BulkAbort.objects.exists()


def runs_of(*projects: int) -> list[Run]:
    """Runs in flight: so many in each of several projects."""
    made = []
    for number, count in enumerate(projects):
        pipeline = factories.pipeline(parent=factories.project(f"project-{number}"))
        stages = [factories.stage(name, parent=pipeline) for name in ("Staging", "Production")]
        made += [factories.run(stages[index % 2]) for index in range(count)]
    return made


@pytest.mark.parametrize("projects", [(1,), (5,)])
def test_bulk_abort_of_few_runs_of_one_project_needs_no_count(
    projects: tuple[int, ...], manager: User
) -> None:
    assert request_bulk(runs_of(*projects), manager, typed_count="").items.count() == sum(projects)


@pytest.mark.parametrize("projects", [(6,), (1, 1)])
@pytest.mark.parametrize("typed", ["", "0", "-1", "5", "06", "six", "²"])
def test_bulk_abort_of_many_runs_or_projects_without_their_count_is_rejected(
    typed: str, projects: tuple[int, ...], manager: User
) -> None:
    runs = runs_of(*projects)
    message = r"^The number of runs is missing or wrong; nothing was aborted\.$"
    with pytest.raises(aborts.WrongCount, match=message):
        request_bulk(runs, manager, typed_count=typed)
    assert not BulkAbort.objects.exists()
    assert request_bulk(runs, manager, typed_count=str(len(runs))).items.count() == len(runs)


def test_bulk_abort_with_wrong_count_is_rejected_even_if_none_is_required(manager: User) -> None:
    with pytest.raises(aborts.WrongCount):
        request_bulk(runs_of(2), manager, typed_count="3")


def test_bulk_abort_counts_runs_that_ended_after_confirmation(manager: User) -> None:
    runs = runs_of(7)
    Run.objects.filter(pk=runs[0].pk).update(in_flight=False, concluded=True)
    with pytest.raises(aborts.WrongCount):
        request_bulk(runs, manager, typed_count="6")
    assert request_bulk(runs, manager, typed_count="7").items.count() == 7


def test_bulk_abort_counts_hidden_runs_and_no_duplicates(manager: User) -> None:
    runs = runs_of(6, 1)
    Grant.objects.all().delete()
    project = runs[0].stage.pipeline.project
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, project=project)
    with pytest.raises(aborts.WrongCount):
        request_bulk([*runs, *runs], manager, typed_count="6")
    assert request_bulk([*runs, *runs], manager, typed_count="7").items.count() == 6


def test_bulk_abort_request_repeated_with_same_key_needs_no_count(manager: User) -> None:
    runs, key = runs_of(6), uuid4()
    first = request_bulk(runs, manager, key=key)
    assert request_bulk(runs, manager, key=key, typed_count="") == first


def test_bulk_abort_leaves_out_runs_the_user_may_not_see(live: Live, manager: User) -> None:
    visible, hidden = create_run_in_flight(live), create_run_in_flight(live, SEARCH)
    project = stage(LEDGER).pipeline.project
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, project=project)
    batch = request_bulk([hidden, visible], manager)
    assert [item.run_id for item in batch.items.all()] == [visible.pk]
    with pytest.raises(aborts.NotInFlight):
        request_bulk([hidden], manager)


# --- Processing ---------------------------------------------------------------------------------


def test_bulk_abort_sends_aborts_in_order(live: Live, runs: list[Run], manager: User) -> None:
    runs.reverse()
    batch = request_bulk(runs, manager)
    assert process(live, batch) == ["abort"] * 5
    assert sent_run_ids(live) == [run.run_id for run in runs]
    assert is_settled(batch)


def test_bulk_abort_gives_each_abort_its_user_and_reason(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager, reason="Bad  release")
    process(live, batch)
    acts = Abort.objects.values_list("username", "reason", "bulk_abort", "state").distinct()
    assert list(acts) == [("manager", "Bad release", batch.pk, "accepted")]


def test_bulk_abort_sends_one_abort_at_a_time(
    live: Live, runs: list[Run], manager: User, counting_transport: _CountingTransport
) -> None:
    live.sandbox.faults = [parse_fault("latency:0.1@/abort")]
    process(live, request_bulk(runs, manager))
    assert len(sent_run_ids(live)) == 5
    assert counting_transport.max_active == 1


def test_bulk_abort_in_two_processes_sends_each_abort_once_one_at_a_time(
    live: Live, runs: list[Run], manager: User, counting_transport: _CountingTransport
) -> None:
    live.sandbox.faults = [parse_fault("latency:0.1@/abort")]
    batch = request_bulk(runs, manager)

    async def process_twice() -> None:
        await asyncio.gather(
            *(bulk_abort.process_bulk_abort(live.connection, batch.pk) for _ in range(2))
        )

    live.run(process_twice)
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}
    assert counting_transport.max_active == 1
    assert Abort.objects.count() == 5


def test_bulk_abort_of_concluded_run_records_ended(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs[:2], manager)
    advance_time(live, 3600)
    read(live, runs[0])
    later = create_run_in_flight(live)
    with append_only_disabled():
        batch.items.filter(position=2).update(run=later)
    assert process(live, batch) == ["ended", "abort"]
    assert sent_run_ids(live) == [later.run_id]


def test_bulk_abort_of_run_with_open_abort_joins_it(
    live: Live, runs: list[Run], manager: User, viewer: User
) -> None:
    viewer.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    result = aborts.request_abort(runs[0], aborts.AbortRequest(viewer, "Mine"))
    live.run(lambda: aborts.send_abort(live.connection, result.abort.pk))
    batch = request_bulk(runs[:2], manager)
    assert process(live, batch) == ["joined", "abort"]
    assert batch.items.get(position=1).abort == result.abort
    assert live.sandbox.abort_request_counts[runs[0].run_id] == 1


def test_bulk_abort_of_externally_aborting_run_sends_nothing(
    live: Live, runs: list[Run], manager: User
) -> None:
    live.sandbox.world.abort_run(flow(live, LEDGER), runs[0].run_id, live.sandbox.clock())
    mirror_run(live, LEDGER, runs[0].run_id)
    batch = request_bulk(runs[:1], manager)
    assert process(live, batch) == ["joined"]
    assert batch.items.get().abort is None
    assert sent_run_ids(live) == []


def test_bulk_abort_stops_when_permission_is_revoked(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs[:3], manager)
    live.sandbox.faults = [parse_fault("latency:1@/abort")]
    start(live, batch)
    wait_until(lambda: sent_run_ids(live))
    manager.groups.clear()
    wait_until(lambda: is_settled(batch))
    assert results(batch) == ["abort", "not_allowed", "not_allowed"]
    assert "Release managers" in batch.items.get(position=3).note
    assert sent_run_ids(live) == [runs[0].run_id]


def test_bulk_abort_skips_runs_without_permission_and_aborts_others(
    live: Live, manager: User
) -> None:
    mine, other = create_run_in_flight(live), create_run_in_flight(live, SEARCH)
    project = stage(LEDGER).pipeline.project
    Grant.objects.filter(action=Action.ABORT).update(project=project)
    assert process(live, request_bulk([other, mine], manager)) == ["not_allowed", "abort"]
    assert sent_run_ids(live) == [mine.run_id]


def test_bulk_abort_stops_when_account_is_deleted(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs[:2], manager)
    manager.delete()
    assert process(live, batch) == ["not_allowed", "not_allowed"]
    assert sent_run_ids(live) == []


def test_bulk_abort_continues_after_refused_abort(
    live: Live, runs: list[Run], manager: User
) -> None:
    live.sandbox.faults = [parse_fault(f"error-string:409@{runs[1].run_id}/abort")]
    batch = request_bulk(runs[:3], manager)
    assert process(live, batch) == ["abort"] * 3
    states = list(Abort.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["accepted", "refused", "accepted"]


@pytest.mark.parametrize("result", ["abort", "ended", "joined", "not_allowed"])
def test_bulk_abort_result_gives_run_a_new_version(
    live: Live, runs: list[Run], manager: User, result: str
) -> None:
    batch = request_bulk(runs[:1], manager)
    if result == "ended":
        Run.objects.filter(pk=runs[0].pk).update(in_flight=False, concluded=True)
    if result == "joined":
        Run.objects.filter(pk=runs[0].pk).update(status="aborting")
    if result == "not_allowed":
        manager.groups.clear()
    before = Run.objects.get(pk=runs[0].pk).version
    assert process(live, batch) == [result]
    assert Run.objects.get(pk=runs[0].pk).version > before


# --- The budget ---------------------------------------------------------------------------------


@pytest.fixture
def low_budget(transactional_db: None, settings: Settings) -> Iterator[Live]:
    """Forty requests in an hour, twenty of them the reserve: lists stop at the last five."""
    settings.NORTHFLANK_REQUEST_RESERVE = "20"
    with live_module.run_live(live_module.options(rate_limit=40)) as running:
        yield running


def spend(live: Live, remaining: int) -> None:
    """Send requests until `remaining` are left."""

    async def call() -> None:
        for _ in range(40 - remaining - len(live.sandbox.requests)):
            await live.connection.call(lambda nf: nf.get_auth())

    live.run(call)


def test_bulk_abort_leaves_last_quarter_of_reserve_for_single_aborts(
    low_budget: Live, manager: User
) -> None:
    runs = [create_run_in_flight(low_budget) for _ in range(6)]
    spend(low_budget, 8)
    batch = request_bulk(runs, manager)
    assert process(low_budget, batch) == ["abort"] * 6
    assert len(sent_run_ids(low_budget)) == 3
    states = list(Abort.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["accepted"] * 3 + ["not_sent"] * 3
    last = reload_in_flight(low_budget, runs[-1])
    assert submit_abort(low_budget.sign_in("manager"), last).status_code == 200
    assert low_budget.sandbox.abort_request_counts[last.run_id] == 1


def reload_in_flight(live: Live, run: Run) -> Run:
    assert run.in_flight
    return Run.objects.with_stage().get(pk=run.pk)


def test_bulk_abort_without_budget_shows_retry_time(low_budget: Live, manager: User) -> None:
    runs = [create_run_in_flight(low_budget) for _ in range(2)]
    spend(low_budget, 5)
    process(low_budget, request_bulk(runs, manager))
    for abort in Abort.objects.all():
        assert abort.retry_at is not None
        assert abort.retry_at - abort.requested_at > timedelta(minutes=50)
        assert "rate limited by Northflank until" in abort_message(abort)
        assert abort.settled_at is not None
    assert sent_run_ids(low_budget) == []


def test_bulk_abort_stops_sending_when_rate_limited(
    live: Live, runs: list[Run], manager: User
) -> None:
    live.sandbox.faults = [parse_fault(f"rate-limited@{runs[2].run_id}/abort")]
    batch = request_bulk(runs, manager)
    process(live, batch)
    states = list(Abort.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["accepted"] * 2 + ["not_sent"] * 3
    assert sent_run_ids(live) == [run.run_id for run in runs[:3]]
    assert is_settled(batch)


def test_bulk_abort_waits_for_rate_limit_that_resets_soon(
    transactional_db: None, manager: User, settings: Settings
) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "4"
    with live_module.run_live(live_module.options(rate_limit=8, rate_window=4)) as live:
        runs = [create_run_in_flight(live) for _ in range(3)]
        batch = request_bulk(runs, manager)

        async def spend_all() -> None:
            for _ in range(8 - len(live.sandbox.requests) % 8):
                await live.connection.call(lambda nf: nf.get_auth())

        live.run(spend_all)
        assert aborts.paused_until(batch, ago(0)) is not None
        assert process(live, batch) == ["abort"] * 3
        assert set(Abort.objects.values_list("state", flat=True)) == {"accepted"}
        assert live.sandbox.abort_request_counts.total() == 3


# --- The process dies ---------------------------------------------------------------------------


def start(live: Live, batch: BulkAbort) -> None:
    live.run(lambda: aborts.start_bulk_abort(batch.pk))


def test_bulk_abort_continues_in_background_after_request(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    start(live, batch)
    wait_until(lambda: is_settled(batch))
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}


def test_started_bulk_abort_is_sent_past_deadline(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs[:1], manager)
    with append_only_disabled():
        BulkAbort.objects.update(requested_at=ago(400))
    start(live, batch)
    wait_until(lambda: is_settled(batch))
    assert sent_run_ids(live) == [runs[0].run_id]


def test_bulk_abort_interrupted_while_sending_is_resumed_after_lease_expires(
    live: Live, runs: list[Run], manager: User
) -> None:
    live.sandbox.faults = [parse_fault(f"abort-timeout:5@{runs[1].run_id}")]
    batch = request_bulk(runs, manager)
    start(live, batch)
    wait_until(lambda: live.sandbox.abort_request_counts[runs[1].run_id])
    live.run(aborts.cancel_tasks)
    assert results(batch) == ["abort", "abort", "waiting", "waiting", "waiting"]
    reconcile(live)
    assert sent_run_ids(live) == [run.run_id for run in runs[:2]]  # its lease is still valid
    aborts.release_all_leases()
    reconcile(live)
    wait_until(lambda: is_settled(batch))
    assert results(batch) == ["abort"] * 5
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}


def test_bulk_abort_sends_unsent_abort_before_next_run(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    assert bulk_abort.process_next(batch.pk).abort_pk is not None
    assert bulk_abort.process_next(batch.pk).is_waiting
    aborts.release_all_leases()
    reconcile(live)
    wait_until(lambda: is_settled(batch))
    assert sent_run_ids(live) == [run.run_id for run in runs]


def test_concurrent_workers_adopt_bulk_abort_once(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    aborts.release_all_leases()

    async def workers() -> None:
        await asyncio.gather(*(bulk_abort.adopt_bulk_aborts(live.connection) for _ in range(3)))

    live.run(workers)
    wait_until(lambda: is_settled(batch))
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}


def test_bulk_abort_with_valid_lease_is_not_adopted(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    reconcile(live)
    assert results(batch) == ["waiting"] * 5


def test_bulk_abort_adopted_past_deadline_is_not_sent(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    with append_only_disabled():
        BulkAbort.objects.update(requested_at=ago(400), claimed_at=ago(350))
    reconcile(live)
    wait_until(lambda: is_settled(batch))
    assert results(batch) == ["abort"] * 5
    assert {abort_message(abort) for abort in Abort.objects.all()} == {
        "Not sent: Sending timed out."
    }
    assert sent_run_ids(live) == []
    assert all(abort.events.filter(event_type="not_sent").exists() for abort in Abort.objects.all())


def test_bulk_abort_processed_without_pause_is_sent_past_deadline(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    with append_only_disabled():
        BulkAbort.objects.update(requested_at=ago(400))
    process(live, batch)
    assert set(Abort.objects.values_list("state", flat=True)) == {"accepted"}


# --- What is stored, turn by turn, without requests ---------------------------------------------


@pytest.fixture
def two_runs(manager: User) -> list[Run]:
    """Two runs in flight in a stage where an abort takes a reason."""
    return [factories.run(factories.stage(), run_id) for run_id in ("r1", "r2")]


REQUEST_FIELDS = {"reason": " Bad\n release ", "client_address": "192.0.2.7", "token_name": "ci"}


def create_bulk_abort(runs: list[Run], user: User, key: UUID | None = None) -> BulkAbort:
    """Request a bulk abort at T0, by an API token."""
    request = aborts.AbortRequest(user, via=Via.API, **REQUEST_FIELDS)
    with time_machine.travel(T0, tick=False):
        return aborts.request_bulk_abort([run.pk for run in runs], request, key or uuid4())


def take_turn_at(
    batch: BulkAbort, *, after: float = 1, is_delayed: bool = False
) -> bulk_abort.TurnResult:
    """Process one turn `after` seconds after T0."""
    with time_machine.travel(at(after), tick=False):
        return bulk_abort.process_next(batch.pk, is_delayed=is_delayed)


def items(batch: BulkAbort) -> list[tuple[Any, ...]]:
    return list(batch.items.values_list("run__run_id", "result", "abort", "note"))


def test_bulk_abort_request_stores_all_fields(two_runs: list[Run], manager: User) -> None:
    key = uuid4()
    with capture_logs() as logs:
        batch = create_bulk_abort(two_runs, manager, key)
    stored = BulkAbort.objects.values(
        "key", "user", "username", "reason", "client_address", "via", "token_name",
        "requested_at", "claimed_at", "settled_at",
    ).get()  # fmt: skip
    assert stored == {
        "key": key, "user": manager.pk, "username": "manager", "reason": "Bad release",
        "client_address": "192.0.2.7", "via": "api", "token_name": "ci",
        "requested_at": T0, "claimed_at": T0, "settled_at": None,
    }  # fmt: skip
    assert list(batch.items.values_list("position", flat=True)) == [1, 2]
    assert items(batch) == [("r1", "waiting", None, ""), ("r2", "waiting", None, "")]
    assert logs == [
        {
            "event": "abort.bulk_requested", "log_level": "info",
            "runs": 2, "by": "manager", "reason": "Bad release",
        }
    ]  # fmt: skip


def test_concurrent_bulk_abort_requests_with_same_key_store_one(
    two_runs: list[Run], manager: User
) -> None:
    key, has_written = uuid4(), False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_written
        result = run(sql, *rest)
        if sql.startswith("SELECT") and not has_written:
            has_written = True
            create_bulk_abort(
                two_runs[:1], manager, key
            )  # after the other's check that none exists
        return result

    with connection.execute_wrapper(execute):
        batch = create_bulk_abort(two_runs, manager, key)
    assert batch == BulkAbort.objects.get()
    assert batch.items.count() == 1


@pytest.mark.parametrize(
    ("required", "named_stages"),
    [
        (["Staging"], "Staging"),
        (["Production", "Staging"], "Production and Staging"),
        (["Staging", "Production", "Development"], "Development and Production and Staging"),
    ],
)
def test_missing_reason_error_names_all_stages_requiring_one(
    manager: User, settings: Settings, required: list[str], named_stages: str
) -> None:
    settings.ABORT_REASON_REQUIRED = required
    stages = ("Production", "Staging", "Development")
    runs = [factories.run(factories.stage(name)) for name in stages]
    with pytest.raises(
        aborts.ReasonMissing, match=rf"^A reason is required to abort runs in {named_stages}\.$"
    ):
        request_bulk(runs, manager, reason="")


def test_bulk_abort_without_reason_is_stored_when_no_stage_requires_one(
    two_runs: list[Run], manager: User, settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = []
    assert request_bulk(two_runs, manager, reason="").reason == ""


def test_bulk_abort_of_maximum_size_is_stored(manager: User) -> None:
    production = factories.stage()
    runs = [factories.run(production) for _ in range(aborts.MAX_RUNS + 1)]
    assert request_bulk(runs[:-1], manager).items.count() == aborts.MAX_RUNS
    message = "^At most 200 runs can be aborted at once; 201 are selected\\.$"
    with pytest.raises(aborts.TooManyRuns, match=message):
        request_bulk(runs, manager)


def test_turn_creates_abort_and_renews_lease(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch) == bulk_abort.TurnResult(abort_pk=Abort.objects.get().pk)
    batch.refresh_from_db()
    abort = Abort.objects.get()
    assert items(batch) == [("r1", "abort", abort.pk, ""), ("r2", "waiting", None, "")]
    assert (batch.claimed_at, abort.requested_at, abort.bulk_abort) == (at(1), at(1), batch)
    assert (abort.username, abort.reason, abort.client_address) == (
        "manager",
        "Bad release",
        "192.0.2.7",
    )
    assert (abort.via, abort.token_name, abort.state) == ("api", "ci", "requested")


def test_turn_waits_while_previous_abort_is_unanswered(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    take_turn_at(batch)
    assert take_turn_at(batch, after=2) == bulk_abort.TurnResult(is_waiting=True)
    batch.refresh_from_db()
    assert batch.claimed_at == at(2)
    Abort.objects.update(state="accepted")
    assert take_turn_at(batch, after=3).abort_pk == Abort.objects.latest("pk").pk


def test_turn_does_not_wait_for_abort_of_another_bulk_abort(
    two_runs: list[Run], manager: User
) -> None:
    take_turn_at(create_bulk_abort(two_runs[:1], manager))
    assert take_turn_at(create_bulk_abort(two_runs[1:], manager)).abort_pk is not None


def test_bulk_abort_is_settled_after_last_turn(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs[:1], manager)
    take_turn_at(batch)
    assert take_turn_at(batch, after=2) == bulk_abort.TurnResult(is_finished=True)
    batch.refresh_from_db()
    assert (batch.settled_at, batch.claimed_at) == (at(2), at(1))
    assert take_turn_at(batch, after=3) == bulk_abort.TurnResult(is_finished=True)
    batch.refresh_from_db()
    assert batch.settled_at == at(2)


def test_turn_of_unknown_bulk_abort_is_over(db: None) -> None:
    assert bulk_abort.process_next(4711, is_delayed=False) == bulk_abort.TurnResult(
        is_finished=True
    )


def not_sent_fields(after: float) -> tuple[Any, ...]:
    """Return what is stored of the latest abort; `after`: when it was not sent, from T0."""
    abort = Abort.objects.latest("pk")
    stored = abort.state, abort.answer, abort.retry_at, abort.settled_at
    events = list(abort.events.values_list("event_type", "detail", "occurred_at"))[1:]
    assert events == [("not_sent", abort.answer, at(after))]
    return stored


@pytest.mark.parametrize(("after", "is_delayed"), [(301, False), (300, True)])
def test_turn_without_pause_or_before_deadline_is_sent(
    two_runs: list[Run], manager: User, after: float, is_delayed: bool
) -> None:
    assert (
        take_turn_at(
            create_bulk_abort(two_runs, manager), after=after, is_delayed=is_delayed
        ).abort_pk
        is not None
    )


def test_turn_resumed_past_deadline_is_not_sent(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch, after=301, is_delayed=True) == bulk_abort.TurnResult()
    expected = ("not_sent", "Sending timed out.", None, at(301))
    assert not_sent_fields(301) == expected
    batch.refresh_from_db()
    assert items(batch)[0] == ("r1", "abort", Abort.objects.get().pk, "")
    assert batch.claimed_at == T0  # the lease was not renewed


@pytest.mark.parametrize("reset_seconds", [1, 299])
def test_turn_waits_for_rate_limit_that_resets_before_deadline(
    two_runs: list[Run], manager: User, reset_seconds: float
) -> None:
    budget_store.record_rate_limited(reset_seconds, at(1))
    assert take_turn_at(create_bulk_abort(two_runs, manager)) == bulk_abort.TurnResult(
        is_waiting=True
    )
    assert not Abort.objects.exists()


def test_turn_is_not_sent_when_rate_limit_resets_past_deadline(
    two_runs: list[Run], manager: User
) -> None:
    budget_store.record_rate_limited(300, at(1))
    assert take_turn_at(create_bulk_abort(two_runs, manager)) == bulk_abort.TurnResult()
    message = "Rate limit reached."
    assert not_sent_fields(1) == ("not_sent", message, at(301), at(1))


def test_bulk_abort_is_held_until_rate_limit_resets(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    assert aborts.paused_until(batch, at(1)) is None
    budget_store.record_response(RateLimit(1000, 25, 90), at(1))  # the last quarter of the reserve
    assert aborts.paused_until(batch, at(11)) == at(91)
    budget_store.record_rate_limited(40, at(1))
    assert aborts.paused_until(batch, at(11)) == at(41)
    BulkAbort.objects.update(settled_at=T0)
    batch.refresh_from_db()
    assert aborts.paused_until(batch, at(11)) is None


def test_turn_for_externally_aborting_run_is_joined_with_note(
    two_runs: list[Run], manager: User
) -> None:
    Run.objects.filter(run_id="r1").update(status="aborting")
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch) == bulk_abort.TurnResult()
    assert items(batch)[0] == ("r1", "joined", None, "The run was already being aborted.")
    assert not Abort.objects.exists()


def test_turn_for_run_with_open_abort_is_joined_to_it(two_runs: list[Run], manager: User) -> None:
    Run.objects.filter(run_id="r1").update(status="aborting")
    first = factories.abort(two_runs[0], manager)
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch) == bulk_abort.TurnResult()
    assert items(batch)[0] == ("r1", "joined", first.pk, "")


def test_turn_for_concluded_run_records_ended(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    Run.objects.filter(run_id="r1").update(status="aborting", in_flight=False)
    assert take_turn_at(batch) == bulk_abort.TurnResult()
    assert items(batch)[0] == ("r1", "ended", None, "")


def test_turn_after_permission_is_revoked_records_reason(
    two_runs: list[Run], manager: User
) -> None:
    batch = create_bulk_abort(two_runs, manager)
    manager.groups.clear()
    assert take_turn_at(batch) == bulk_abort.TurnResult()
    reason = "Only members of the group “Release managers” can abort runs here."
    assert items(batch)[0] == ("r1", "not_allowed", None, reason)


def test_turn_after_account_is_deleted_records_reason(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    manager.delete()
    assert take_turn_at(batch) == bulk_abort.TurnResult()
    reason = "The requesting account was deleted."
    assert items(batch)[0] == ("r1", "not_allowed", None, reason)


def test_visible_runs_are_permitted_ones_once_in_given_order(
    two_runs: list[Run], manager: User
) -> None:
    hidden = factories.run(factories.stage("Staging"))
    Grant.objects.all().delete()
    factories.grant("view", stage="Production")
    keys = [two_runs[1].pk, hidden.pk, 4711, two_runs[0].pk, two_runs[1].pk]
    user_permissions = permissions.for_user(manager)
    with CaptureQueriesContext(connection) as queries:
        visible = aborts.visible_runs(keys, user_permissions)
        assert [run.stage.pipeline.project.slug for run in visible] == ["shop", "shop"]
    assert visible == [two_runs[1], two_runs[0]]
    [query] = queries
    assert '"dashboard_run"."id" IN' in query["sql"]  # no other runs are read


def test_bulk_abort_repeated_with_same_key_skips_permission_check(
    two_runs: list[Run], manager: User
) -> None:
    key = uuid4()
    batch = create_bulk_abort(two_runs, manager, key)
    manager.groups.clear()
    assert create_bulk_abort(two_runs, manager, key) == batch


def test_bulk_abort_without_permission_shows_reason_of_first_run(
    two_runs: list[Run], manager: User, viewer: User
) -> None:
    Grant.objects.filter(action=Action.ABORT).delete()
    factories.grant("abort", "Leads", stage="Staging")
    other_run = factories.run(factories.stage("Staging"))
    reason = "^Only administrators can abort runs here.$"
    for runs in ([two_runs[0]], [two_runs[0], other_run]):
        with pytest.raises(aborts.NotAllowed, match=reason):
            create_bulk_abort(runs, viewer)
