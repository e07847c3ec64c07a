"""The rate budget: rate limit headers, the reserve, and a worker that stays within it."""

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from math import inf
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, CatalogSync, RateBudget, Run, Stage, Upstream
from dashboard.northflank import Call, NorthflankClient, RateLimit
from dashboard.sandbox import parse_fault
from dashboard.sync import baselines
from dashboard.sync.stage_reader import MAX_REQUESTS_PER_READ
from dashboard.upstream import budget_store
from tests.support.rate_budget import record_response
from tests.support.world import LONG_AGO, T0, LoggedEvents, World, at, get_run


def record_rate_limit(
    remaining: int, *, limit: int = 1000, reset: float = 3000, now: float = 0
) -> None:
    record_response(RateLimit(limit, remaining, reset), at(now))


@pytest.mark.parametrize(
    ("reserve", "requests"),
    [("10%", 100), ("0", 0), ("250", 250), ("12.5%", 125), ("5000", 900), ("0%", 0)],
)
def test_reserve_setting_is_number_or_percentage(
    settings: Settings, reserve: str, requests: int
) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = reserve
    assert budget_store.abort_reserve(1000) == requests


def answered_call(remaining: int | None, *, status: int | None = 200) -> Call:
    rate_limit = None if remaining is None else RateLimit(1000, remaining, 3000)
    return Call("GET", "GET run", status, 0.1, rate_limit)


def test_each_of_several_calls_recorded_together_counts(db: None) -> None:
    budget_store.record_calls([answered_call(900), answered_call(899), answered_call(None)])
    window = RateBudget.objects.get()
    assert (window.remaining, window.own_requests) == (898, 3)
    assert window.burst == pytest.approx(3, abs=0.1)


def test_excluded_call_does_not_count_against_the_even_rate(db: None) -> None:
    budget_store.record_calls([answered_call(900), answered_call(899)], excluded_from_burst=1)
    window = RateBudget.objects.get()
    assert window.own_requests == 2
    assert window.burst == pytest.approx(1, abs=0.1)


def test_call_that_another_answer_has_recorded_may_be_excluded(db: None) -> None:
    budget_store.record_calls([answered_call(900), answered_call(899)])
    budget_store.record_calls([], excluded_from_burst=1)
    window = RateBudget.objects.get()
    assert (window.remaining, window.own_requests) == (899, 2)
    assert window.burst == pytest.approx(1, abs=0.1)


def test_no_calls_take_no_statement(db: None) -> None:
    with CaptureQueriesContext(connection) as queries:
        budget_store.record_calls([])
    assert not queries.captured_queries


def test_429s_and_lost_answers_are_not_recorded(db: None) -> None:
    budget_store.record_calls([answered_call(900)])
    budget_store.record_calls([answered_call(1, status=429), answered_call(2, status=None)])
    assert RateBudget.objects.get().remaining == 900


def test_calls_recorded_together_take_as_many_statements_as_one(db: None) -> None:
    budget_store.record_calls([answered_call(900)])
    counts = []
    for calls in ([answered_call(899)], [answered_call(n) for n in range(890, 898)]):
        with CaptureQueriesContext(connection) as queries:
            budget_store.record_calls(calls, excluded_from_burst=1)
        counts.append(len(queries))
    assert counts == [5, 5]  # two of them for the savepoint, one for the metrics


def test_calls_without_headers_open_no_window(db: None) -> None:
    budget_store.record_calls([answered_call(None)], excluded_from_burst=1)
    assert not RateBudget.objects.exists()


def test_call_cancelled_before_its_recording_starts_leaves_no_coroutine(world: World) -> None:
    async def answer_at_once(client: NorthflankClient) -> None:
        """No request: this tests the moment after an answer."""

    async def cancel() -> None:
        call = asyncio.create_task(world.live.connection.call(answer_at_once, request_seq=1))
        await asyncio.sleep(0)  # the answer has come, its recording is a task that has not run yet
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    world.live.run(cancel)
    gc.collect()  # pytest fails the test for a coroutine that nobody awaited


def test_reserve_above_limit_leaves_a_tenth_in_whole_requests(settings: Settings) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "5000"
    requests = budget_store.abort_reserve(1009)
    assert (requests, type(requests)) == (908, int)


def test_response_without_headers_creates_no_row(db: None) -> None:
    record_response(None, T0)
    assert not RateBudget.objects.exists()


def test_failing_insert_raises_at_once(db: None) -> None:
    """An IntegrityError that is no race was tried for ever."""

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("INSERT"):
            raise IntegrityError("a constraint")
        return run(sql, *rest)

    with connection.execute_wrapper(execute), pytest.raises(IntegrityError, match="a constraint"):
        record_rate_limit(800)


def test_concurrent_responses_are_all_counted(transactional_db: None) -> None:
    barrier = threading.Barrier(4)

    def record(_: int) -> None:
        barrier.wait(10)
        try:
            for number in range(10):
                record_rate_limit(900 - number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(4)))
    assert RateBudget.objects.get().own_requests == 40


def test_concurrent_first_responses_are_both_counted(db: None) -> None:
    has_recorded = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_recorded
        result = run(sql, *rest)
        if sql.startswith("RELEASE") and not has_recorded:
            has_recorded = True
            record_rate_limit(900)  # another process, after this one's check that no row exists
        return result

    with connection.execute_wrapper(execute):
        record_rate_limit(800)
    budget_row = RateBudget.objects.get()
    assert (budget_row.own_requests, budget_row.remaining) == (2, 800)


def test_burst_recovery_respects_reserve_of_actual_limit(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "50%"
    record_rate_limit(2990, limit=3000, reset=3600)
    RateBudget.objects.update(own_requests=10, burst=50)
    record_rate_limit(2989, limit=3000, reset=3580, now=20)
    # Of 2990 requests 1500 are reserved: so much is regained in twenty seconds.
    assert RateBudget.objects.get().burst == pytest.approx(51 - 20 * 1490 / 3580)


def test_sync_stores_rate_limit_headers(world: World) -> None:
    world.sync()
    assert RateBudget.objects.get().limit == 100_000


def test_sync_without_rate_limit_headers_reads_runs(world: World) -> None:
    world.sandbox.choices["rate-limit-headers"] = "absent"
    world.sync()
    assert Run.objects.in_flight().exists()


def test_sync_without_rate_limit_headers_stores_no_budget(world: World) -> None:
    world.sandbox.choices["rate-limit-headers"] = "absent"
    world.sync()
    assert not RateBudget.objects.exists()


def read_with_limit(world: World, limit: int) -> None:
    """Start a new window with that limit, and read all that the worker may, without bursts."""
    world.sandbox.rate_limit_window.limit = limit
    world.sandbox.rate_limit_window.opened_at = -inf
    for _ in range(20):
        RateBudget.objects.update(burst=0)
        world.make_due()
        world.live.sync(1)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [40, 60, 75])
def test_sync_never_uses_reserve(full_world: World, limit: int) -> None:
    read_with_limit(full_world, limit)
    assert full_world.sandbox.rate_limit_window.request_count <= limit - budget_store.abort_reserve(
        limit
    )


@pytest.mark.slow
@pytest.mark.parametrize("order", ["oldest-first", "shuffled"])
def test_sync_of_several_pages_never_uses_reserve(full_world: World, order: str) -> None:
    full_world.restart(history_hours=72)  # lists of several pages
    full_world.sandbox.choices["run-order"] = order
    read_with_limit(full_world, 60)
    assert full_world.sandbox.rate_limit_window.request_count <= 54


@pytest.mark.slow
def test_sync_uses_most_of_budget(full_world: World) -> None:
    read_with_limit(full_world, 60)
    assert full_world.sandbox.rate_limit_window.request_count >= 40


@pytest.mark.slow
def test_sync_of_backlog_uses_only_a_burst(full_world: World) -> None:
    full_world.sync()
    full_world.sandbox.rate_limit_window.limit = 120
    full_world.sandbox.rate_limit_window.opened_at = -inf
    RateBudget.objects.all().delete()
    full_world.make_due()
    full_world.live.sync(1)
    # The margin of 12, and the reads that had started meanwhile.
    assert (
        12 <= full_world.sandbox.rate_limit_window.request_count <= 12 + 4 * MAX_REQUESTS_PER_READ
    )


@pytest.mark.slow
def test_sync_of_stages_with_events_at_one_time_uses_only_a_burst(full_world: World) -> None:
    full_world.sync()
    full_world.sandbox.rate_limit_window.limit = 120
    full_world.sandbox.rate_limit_window.opened_at = -inf
    RateBudget.objects.all().delete()
    now = timezone.now()
    read_at, window_end = now - timedelta(seconds=90), now - timedelta(seconds=1)
    Stage.objects.update(
        synced_at=read_at, next_sync_at=window_end, last_release_event_at=window_end
    )
    full_world.live.sync(1)
    # The margin of 12, and the reads that had started meanwhile.
    assert (
        12 <= full_world.sandbox.rate_limit_window.request_count <= 12 + 4 * MAX_REQUESTS_PER_READ
    )


@pytest.mark.slow
def test_first_reads_may_exceed_even_rate(full_world: World) -> None:
    full_world.sandbox.rate_limit_window.limit = 120
    full_world.sync()
    assert full_world.sandbox.rate_limit_window.request_count > 2 * 12
    assert not Stage.objects.filter(synced_at=None).exists()
    assert budget_store.load(timezone.now()).burst < 12 + 4 * MAX_REQUESTS_PER_READ


@pytest.mark.slow
def test_first_sync_reads_runs_in_flight(full_world: World) -> None:
    full_world.sandbox.rate_limit_window.limit = 1000
    full_world.sync()
    assert Run.objects.in_flight().exists()


def test_watched_stage_is_read_while_backlog_waits(world: World) -> None:
    world.sync()
    world.make_due()
    now = timezone.now()
    Stage.objects.filter(pipeline__slug="ledger", name="Production").update(last_viewed_at=now)
    Run.objects.update(next_detail_sync_at=None, failed_step="")  # no cause is to be read
    limit = RateBudget.objects.get().limit
    RateBudget.objects.update(burst=limit * 0.15, synced_at=now)
    world.sandbox.requests.clear()
    world.live.sync(1)
    read_paths = {request.rpartition("/runs")[0] for request in world.requests_for("/runs")}
    assert read_paths == {"GET /v1/projects/payments/pipelines/ledger/release-flows/production"}


@pytest.mark.slow
def test_sync_respects_larger_reserve(full_world: World, settings: Settings) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "50%"
    read_with_limit(full_world, 60)
    assert full_world.sandbox.rate_limit_window.request_count <= 30


@pytest.mark.slow
def test_worker_stops_reading_when_budget_is_spent(full_world: World) -> None:
    read_with_limit(full_world, 60)
    before = full_world.sandbox.rate_limit_window.request_count
    full_world.make_due()
    full_world.live.sync(2)
    assert full_world.sandbox.rate_limit_window.request_count == before


@pytest.mark.slow
def test_run_with_open_abort_is_read_from_reserve(world: World) -> None:
    run_id = world.start()
    world.sync()
    read_with_limit(world, 40)
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
    Abort.objects.create(
        run=Run.objects.get(run_id=run_id), state="accepted", username="ana",
        requested_at=LONG_AGO, claimed_at=LONG_AGO, sent_at=LONG_AGO,
    )  # fmt: skip
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert [request for request in world.requests_for("/runs/") if request.endswith(run_id)]


def use_up_hour(world: World) -> str:
    """Leave 35 of the reserve's 40 requests, as others do; return the id of an aborting run."""
    run_id = world.start()
    world.sync()
    RateBudget.objects.all().delete()
    window = world.sandbox.rate_limit_window
    window.limit, window.opened_at = 400, -inf
    world.make_due()
    world.live.sync(1)
    window.request_count = 365
    RateBudget.objects.update(remaining=35)
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
    Abort.objects.create(
        run=get_run(run_id), state="accepted", username="ana",
        requested_at=LONG_AGO, claimed_at=LONG_AGO, sent_at=LONG_AGO,
    )  # fmt: skip
    return run_id


def test_aborting_run_is_read_from_reserve_after_a_429(world: World) -> None:
    """A single 429 ended all reads until the hour was over."""
    run_id = use_up_hour(world)
    world.sandbox.faults = [parse_fault(f"too-fast:1*1@{run_id}")]
    world.live.sync(1)
    assert RateBudget.objects.get().refusals == 1
    RateBudget.objects.update(backoff_until=timezone.now() - timedelta(seconds=1))
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
    world.live.connection.retry_at = 0
    world.sandbox.requests.clear()
    world.live.sync(1)
    (_, probe), (_, path) = list(world.sandbox.requests)[:2]
    assert (probe, path.rpartition("/")[2]) == ("/v1/auth", run_id)
    assert RateBudget.objects.get().refusals == 0


@pytest.mark.parametrize("is_due", [True, False], ids=["aborting run is due", "nothing is due"])
def test_outage_ends_while_the_hour_is_used_up(world: World, *, is_due: bool) -> None:
    run_id = use_up_hour(world)
    world.sandbox.faults = [parse_fault("502-html")]
    world.live.sync(1)
    assert Upstream.objects.get().error == "server_error"
    world.sandbox.faults = []
    if not is_due:
        Run.objects.update(next_detail_sync_at=None)
    world.make_due()
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert Upstream.objects.get().error == world.live.connection.outage == ""
    paths = [path for _, path in world.sandbox.requests]
    assert paths[0] == "/v1/auth"
    assert [path.endswith(run_id) for path in paths[1:]] == [True] * is_due


@pytest.mark.slow
@pytest.mark.parametrize("is_due", [True, False], ids=["aborting run is due", "nothing is due"])
def test_outage_of_an_hour_leaves_the_second_half_of_the_reserve(
    world: World, *, is_due: bool
) -> None:
    use_up_hour(world)
    world.sandbox.faults = [parse_fault("502-html")]
    world.live.sync(1)
    assert world.live.connection.outage
    if not is_due:
        Run.objects.update(next_detail_sync_at=None)
    for _ in range(120):  # one each 30 s
        world.live.connection.retry_at = 0
        world.live.run(world.live.worker.tick)
        world.live.run(world.live.worker.wait_idle)
    # The last probe may begin with the first half's last request: it and the account's, repeated.
    assert 20 - 3 <= RateBudget.objects.get().remaining <= 20
    world.sandbox.requests.clear()
    world.live.connection.retry_at = 0
    world.live.sync(1)
    assert not world.sandbox.requests


@pytest.mark.slow
def test_externally_aborting_run_is_not_read_from_reserve(world: World) -> None:
    run_id = world.start()
    world.sync()
    read_with_limit(world, 40)
    Run.objects.filter(run_id=run_id).update(status="aborting", next_detail_sync_at=LONG_AGO)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert not world.requests_for("/runs/")


@pytest.mark.parametrize(
    ("requests", "is_allowed"), [(5, True), (0, True), (-49, True), (-50, False)]
)
def test_second_half_of_reserve_is_only_for_sending_aborts(requests: int, is_allowed: bool) -> None:
    assert budget_store.ReadBudget(requests, 60, reserve=100).may_reconcile_aborts is is_allowed


@pytest.mark.slow
def test_watched_run_is_not_read_from_reserve(world: World) -> None:
    run_id = world.start()
    world.sync()
    read_with_limit(world, 40)
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert not world.requests_for("/runs/")


@pytest.mark.slow
def test_run_detail_for_baseline_is_not_read_from_reserve(world: World) -> None:
    world.sync()
    baselines.schedule_next_detail(LONG_AGO, timedelta())
    due_run = Run.objects.get(baselines.SCHEDULED_DETAIL)
    read_with_limit(world, 40)
    Run.objects.filter(pk=due_run.pk).update(next_detail_sync_at=LONG_AGO, detail_synced_at=None)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert not world.requests_for("/runs/")


def run_into_rate_limit(world: World) -> None:
    world.sync()
    world.sandbox.faults = [parse_fault("rate-limited*1")]
    world.make_due()
    Run.objects.update(next_detail_sync_at=None)
    world.live.sync(1)
    world.sandbox.requests.clear()
    world.make_due()
    world.live.sync(2)


def test_refusal_stops_reading(world: World) -> None:
    run_into_rate_limit(world)
    assert not world.sandbox.requests


def test_refusal_keeps_mirrored_runs(world: World) -> None:
    run_into_rate_limit(world)
    assert Run.objects.in_flight().exists()


@pytest.mark.parametrize("body", ["error", "text", "no-wrapper"])
def test_refusal_with_any_body_stops_reading(world: World, body: str) -> None:
    world.sandbox.choices["429-body"] = body
    run_into_rate_limit(world)
    assert not world.sandbox.requests


def test_reading_resumes_in_new_window(world: World) -> None:
    run_into_rate_limit(world)
    a_second_ago = timezone.now() - timedelta(seconds=1)
    RateBudget.objects.update(backoff_until=a_second_ago, resets_at=a_second_ago)
    world.sandbox.rate_limit_window.opened_at = -inf
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(1)
    assert world.sandbox.requests


def run_into_short_pause(world: World) -> None:
    """Let one request be refused for five seconds, with nearly all of the hour's left."""
    world.sync()
    remaining = (
        world.sandbox.rate_limit_window.limit - world.sandbox.rate_limit_window.request_count
    )
    world.sandbox.faults = [parse_fault("too-fast:5*1")]
    world.make_due()
    Run.objects.update(next_detail_sync_at=None)
    world.live.sync(1)
    world.sandbox.requests.clear()
    assert RateBudget.objects.get().remaining > 0.9 * remaining


def test_refusal_of_5_s_stops_reading_for_5_s(world: World) -> None:
    run_into_short_pause(world)
    budget_row = RateBudget.objects.get()
    assert budget_row.backoff_until is not None
    assert timedelta() < budget_row.backoff_until - timezone.now() < timedelta(seconds=6)
    world.make_due()
    world.live.sync(2)
    assert not world.sandbox.requests


def test_probe_after_pause_does_not_wait_for_a_due_read(world: World) -> None:
    world.sync()
    RateBudget.objects.update(refusals=1)  # another process got the 429, and its pause is over
    later = timezone.now() + timedelta(hours=1)
    Stage.objects.update(next_sync_at=later)
    CatalogSync.objects.update(next_sync_at=later)
    Run.objects.update(next_detail_sync_at=None)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert world.sandbox.requests
    assert RateBudget.objects.get().refusals == 0


def test_reading_after_pause_resumes_after_one_probe(world: World) -> None:
    run_into_short_pause(world)
    RateBudget.objects.update(backoff_until=timezone.now())
    world.make_due()

    async def tick() -> None:
        await world.live.worker.tick()
        started_counts.append(len(world.live.reads.active))
        await world.live.worker.wait_idle()

    started_counts: list[int] = []
    world.live.run(tick)
    world.live.run(tick)
    assert started_counts[0] == 1
    assert started_counts[1] > 1
    budget_row = RateBudget.objects.get()
    assert (budget_row.refusals, budget_row.backoff_until) == (0, None)


def test_refusal_is_logged_once(world: World, logged_events: LoggedEvents) -> None:
    run_into_rate_limit(world)
    assert len(logged_events("northflank.unavailable")) == 1


def test_run_stays_in_flight_during_refusal(world: World) -> None:
    run_id = world.start()
    run_into_rate_limit(world)
    assert get_run(run_id).in_flight


def requests_of_one_tick(world: World) -> list[str]:
    """Let the worker start what is due and has a slot; return the requests for runs."""
    world.sandbox.requests.clear()

    async def tick() -> None:
        await world.live.worker.tick()
        await world.live.worker.wait_idle()

    world.live.run(tick)
    return world.requests_for("/runs")


def test_backlog_of_run_details_leaves_slots_for_stages(world: World) -> None:
    world.sync()
    Run.objects.update(next_detail_sync_at=LONG_AGO)
    world.make_due()
    requests = requests_of_one_tick(world)
    lists = [request for request in requests if request.endswith("/runs")]
    assert (len(lists) >= 2, len(requests) - len(lists)) == (True, 2)


def test_backlog_of_run_details_has_all_slots_while_no_stage_is_due(world: World) -> None:
    world.sync()
    Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1), last_viewed_at=None)
    Run.objects.update(next_detail_sync_at=LONG_AGO)
    assert len(requests_of_one_tick(world)) == 4


def test_run_with_open_abort_is_read_before_a_backlog_of_details(world: World) -> None:
    run_id = world.start()
    world.sync()
    Run.objects.update(next_detail_sync_at=LONG_AGO)
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=timezone.now())
    Abort.objects.create(
        run=get_run(run_id), state="accepted", username="ana",
        requested_at=LONG_AGO, claimed_at=LONG_AGO, sent_at=LONG_AGO,
    )  # fmt: skip
    assert [request for request in requests_of_one_tick(world) if request.endswith(run_id)]
