"""A clock set forward or back: no wrong times are shown, and the sync continues."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard import aborts
from dashboard.db import threads as db_threads
from dashboard.models import (
    Abort,
    ApiToken,
    Pipeline,
    Project,
    RateBudget,
    RequestCounter,
    Run,
    Stage,
    Upstream,
    Worker,
)
from dashboard.models.accounts.api_tokens import Scope
from dashboard.models.catalog import StageQuerySet
from dashboard.northflank import RateLimit
from dashboard.sandbox import parse_fault
from dashboard.sync import clock_correction, leases, mirror
from dashboard.sync.worker import SyncWorker
from dashboard.web.components.runs import run_row
from tests.support import factories
from tests.support.live import Live
from tests.support.live_runs import create_run_in_flight, notice_text, read, submit_abort
from tests.support.rate_budget import record_response
from tests.support.world import LoggedEvents, World, api_run, at, detail, get_run

HOUR = timedelta(hours=1)
BOTH_DIRECTIONS = pytest.mark.parametrize("interval", [HOUR, -HOUR], ids=["forward", "back"])


def set_clock_offset(offset: timedelta) -> None:
    """Use a clock in this process that is `offset` ahead."""
    db_threads.set_clock_offset(offset)


# --- which answer is newer -----------------------------------------------------------------------


@BOTH_DIRECTIONS
def test_later_request_wins_whatever_the_clock(stage: Stage, interval: timedelta) -> None:
    request_time = at(0)
    mirror.apply_runs(stage.pk, [api_run(status="running")], requested_at=request_time)
    mirror.apply_detail(stage.pk, detail(status="aborting"), requested_at=request_time + interval)
    assert get_run().status == "aborting"
    assert get_run().synced_at == get_run().detail_synced_at == request_time + interval
    mirror.mark_removed(get_run().pk, requested_at=request_time)
    assert get_run().removed_at == request_time


@BOTH_DIRECTIONS
def test_abort_after_clock_change_is_accepted(
    live: Live, manager: User, interval: timedelta
) -> None:
    set_clock_offset(-interval)
    run = create_run_in_flight(live)
    read(live, run)
    set_clock_offset(timedelta())
    assert "accepted" in notice_text(submit_abort(live.sign_in("manager"), run)).lower()
    assert Run.objects.get(pk=run.pk).status == "aborting"
    assert read(live, run).status in {"aborting", "aborted"}


@BOTH_DIRECTIONS
def test_error_after_clock_change_ends_with_next_answer(world: World, interval: timedelta) -> None:
    world.sync()
    world.sandbox.faults = [parse_fault("500")]
    set_clock_offset(-interval)
    world.sync(2)
    assert Upstream.objects.get().error
    set_clock_offset(timedelta())
    world.sandbox.faults = []
    world.live.connection.retry_at = 0
    world.live.run(lambda: world.live.connection.call(lambda nf: nf.get_auth()))
    assert Upstream.objects.get().error == ""


def test_latest_abort_is_last_created_whatever_the_clock(read_stage: Stage, manager: User) -> None:
    run = factories.run(read_stage)
    now = timezone.now()
    factories.abort(run, manager, "refused", requested_at=now, settled_at=now)
    later = factories.abort(run, manager, requested_at=now - HOUR)
    assert run_row.latest_aborts([run]) == {run.pk: later}


# --- scheduled reads -----------------------------------------------------------------------------


def worker(world: World) -> tuple[SyncWorker, list[timedelta]]:
    """A worker that measures its clock at each tick, and the offsets: the last one applies."""
    clock = [timedelta()]
    clock_worker = SyncWorker(
        world.live.connection,
        chores=[aborts.reconcile_open_aborts],
        heartbeat_interval=0,
        sync_clock=lambda: db_threads.set_clock_offset(clock[-1]),
    )
    return clock_worker, clock


def stages_scheduled_far_ahead() -> StageQuerySet:
    # A stage without a release flow is read again after hours.
    return Stage.objects.filter(has_flow=True, next_sync_at__gt=timezone.now() + HOUR / 2)


def work(world: World, worker: SyncWorker, rounds: int = 20) -> None:
    async def tick() -> None:
        for _ in range(rounds):
            await worker.tick()
            await worker.wait_idle()

    world.live.run(tick)


def test_clock_set_back_reschedules_reads(world: World, logged_events: LoggedEvents) -> None:
    world.sync()  # everything has been read
    reader, clock = worker(world)
    clock.append(HOUR)
    work(world, reader)  # all is due, and scheduled by this clock
    assert stages_scheduled_far_ahead().exists()
    clock.append(timedelta())
    work(world, reader, rounds=1)
    assert not stages_scheduled_far_ahead().exists()
    assert not Stage.objects.filter(leased_until__gt=timezone.now() + leases.LEASE).exists()
    log_lines = logged_events("clock.set_back")
    assert [round(line["seconds"], -2) for line in log_lines] == [3600]


def test_clock_set_back_before_restart_reschedules_reads(
    world: World, logged_events: LoggedEvents
) -> None:
    world.sync()
    reader, clock = worker(world)
    clock.append(HOUR)
    work(world, reader)
    Worker.objects.all().delete()  # it has ended normally
    db_threads.set_clock_offset(timedelta())
    restarted_reader, _ = worker(world)
    work(world, restarted_reader, rounds=1)
    assert len(logged_events("clock.set_back")) == 1
    assert not stages_scheduled_far_ahead().exists()


@pytest.mark.slow
def test_clock_set_forward_and_back_keeps_reading(
    world: World, logged_events: LoggedEvents
) -> None:
    world.sync()
    reader, clock = worker(world)
    for offset in (timedelta(), HOUR, timedelta()):
        clock.append(offset)
        run_id = world.start()
        Stage.objects.update(next_sync_at=timezone.now() - HOUR)  # all are due
        work(world, reader)
        assert Run.objects.filter(run_id=run_id).exists()
    assert len(logged_events("clock.set_back")) == 1


def test_clock_correction_is_done_by_one_worker(
    read_stage: Stage, logged_events: LoggedEvents
) -> None:
    now = timezone.now()
    factories.worker("a", heartbeat_at=now + HOUR)
    Stage.objects.update(next_sync_at=now + HOUR + timedelta(seconds=90))
    corrections = [
        clock_correction.correct_timestamps(now),
        clock_correction.correct_timestamps(now),
    ]
    assert corrections == [HOUR, timedelta()]
    assert Stage.objects.get().next_sync_at == now + timedelta(seconds=90)
    assert len(logged_events("clock.set_back")) == 1


@pytest.mark.parametrize("model", [Project, Pipeline])
def test_clock_correction_shifts_since_when_an_entry_is_missing(
    read_stage: Stage, model: type[Project | Pipeline]
) -> None:
    now = timezone.now()
    factories.worker("a", heartbeat_at=now + HOUR)
    model.objects.update(missing_since=now + HOUR)
    clock_correction.correct_timestamps(now)
    assert model.objects.get().missing_since == now


def test_clock_difference_of_seconds_corrects_nothing(read_stage: Stage) -> None:
    now = timezone.now()
    factories.worker("a", heartbeat_at=now + timedelta(seconds=4))
    Stage.objects.update(next_sync_at=now + HOUR)
    assert clock_correction.correct_timestamps(now) == timedelta()
    assert Stage.objects.get().next_sync_at == now + HOUR


def test_clock_correction_shifts_refusal_and_window(db: None) -> None:
    now = timezone.now()
    in_an_hour = now + HOUR
    record_response(RateLimit(limit=1000, remaining=900, reset_seconds=1200), in_an_hour)
    RateBudget.objects.update(backoff_until=in_an_hour + timedelta(minutes=5))
    clock_correction.correct_timestamps(now)
    budget_row = RateBudget.objects.get()
    assert budget_row.synced_at == now
    assert budget_row.resets_at == now + timedelta(minutes=20)
    assert budget_row.backoff_until == now + timedelta(minutes=5)


def test_clock_correction_shifts_leases_of_open_aborts_only(
    read_stage: Stage, manager: User, logged_events: LoggedEvents
) -> None:
    now = timezone.now()
    factories.worker("dead", heartbeat_at=now + HOUR)
    run = factories.run(read_stage)
    abort = factories.abort(run, manager, "requested", claimed_at=now + HOUR, requested_at=now)
    settled = factories.abort(
        factories.run(read_stage), manager, "refused", claimed_at=now + HOUR, settled_at=now
    )
    clock_correction.correct_timestamps(now)
    assert Abort.objects.get(pk=abort.pk).claimed_at == now
    assert Abort.objects.get(pk=settled.pk).claimed_at == now + HOUR  # unchanged


def test_clock_correction_resets_api_token_window(manager: User) -> None:
    now = timezone.now()
    token, _ = ApiToken.create_token(manager, "runbook", Scope.READ, now)
    ApiToken.objects.update(window_started_at=now + HOUR, window_requests=10_000)
    factories.worker("a", heartbeat_at=now + HOUR)
    clock_correction.correct_timestamps(now)
    token.refresh_from_db()
    assert token.throttle(now + timedelta(minutes=1)) == timedelta()


def test_clock_correction_shifts_times_of_runs_in_flight(read_stage: Stage) -> None:
    now = timezone.now()
    factories.worker("a", heartbeat_at=now + HOUR)
    run = factories.run(
        read_stage, status_since=now + HOUR - timedelta(minutes=2), synced_at=now + HOUR
    )
    ended_run = factories.run(read_stage, status="success", synced_at=now + HOUR)
    clock_correction.correct_timestamps(now)
    assert Run.objects.get(pk=ended_run.pk).synced_at == now + HOUR
    before, run = run, Run.objects.get(pk=run.pk)
    assert run.status_since == now - timedelta(minutes=2)
    assert run.synced_at == now
    assert run.version > before.version


def test_request_seq_takes_one_statement(world: World) -> None:
    RequestCounter.take_next()
    with CaptureQueriesContext(connection) as queries:
        numbers = [RequestCounter.take_next() for _ in range(3)]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    assert len(queries) == 3
    assert RequestCounter.latest() == numbers[-1]
