"""What is due, in which order, and when it is due again after a read; the database's clock."""

import asyncio
import math
import time
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.db import threads as db_threads
from dashboard.models import CatalogSync, Pipeline, Project, RateBudget, Run, Stage
from dashboard.server import process
from dashboard.sync import due, mirror, missing_runs, watchers
from dashboard.sync.plan import Plan
from dashboard.sync.read_plan import ReadPlan
from tests.support import factories
from tests.support.live import WAIT_TIMEOUT
from tests.support.world import T0, World, api_run, at, get_run

PLAN = ReadPlan(Plan(scale=math.inf, longest=300.0), {})  # everything each 300 s


def find(now: float, limit: int = 4) -> list[int]:
    return [stage.pk for stage in due.find_stages(at(now), limit)]


def test_due_stage_is_found(stage: Stage) -> None:
    assert find(1) == [stage.pk]


def test_stage_not_due_is_not_found(stage: Stage) -> None:
    assert find(-1) == []


def test_released_stage_has_fresh_until(stage: Stage) -> None:
    due.record_stage(stage, T0, PLAN, started_at=T0)
    assert Stage.objects.get().fresh_until == at(300)


def test_failed_read_keeps_fresh_until(stage: Stage) -> None:
    Stage.objects.update(fresh_until=at(9), failures=1, error="server_error")
    due.record_stage(stage, T0, PLAN, started_at=T0)
    assert Stage.objects.get().fresh_until == at(9)


POSTGRES_ONLY = pytest.mark.skipif(
    connection.vendor != "postgresql",
    reason="a SQLite file has no clock of its own, and is read by one machine only",
)


@POSTGRES_ONLY
def test_clock_follows_database_on_machines_with_different_clocks(world: World) -> None:
    before = timezone.now()
    try:
        with time_machine.travel(before + timedelta(hours=1)):
            db_threads.set_clock_offset()
            measured_now = db_threads.now()
    finally:
        db_threads.set_clock_offset()
    assert abs(measured_now - before) < timedelta(minutes=1)
    assert abs(db_threads.now() - timezone.now()) < timedelta(minutes=1)


@POSTGRES_ONLY
@pytest.mark.parametrize("hours", [1, -1])
def test_jump_of_a_machines_own_clock_does_not_change_the_time(db: None, hours: int) -> None:
    """An abort that was recorded after it was adopted while it was being sent."""
    before = timezone.now()
    db_threads.set_clock_offset()
    with time_machine.travel(before + timedelta(hours=hours)):
        assert abs(db_threads.now() - before) < timedelta(minutes=1)


@POSTGRES_ONLY
def test_time_goes_on_between_measurements(db: None) -> None:
    db_threads.set_clock_offset()
    started_at, started = db_threads.now(), time.monotonic()
    time.sleep(0.2)
    passed = (db_threads.now() - started_at).total_seconds()
    assert 0.2 <= passed <= time.monotonic() - started + 0.01
    assert abs(db_threads.now() - timezone.now()) < timedelta(minutes=1)


def test_clock_is_corrected_to_database_after_change(world: World) -> None:
    db_threads.set_clock_offset(timedelta(hours=1))  # as measured before

    async def run_clock() -> None:
        task = asyncio.ensure_future(process.keep_clock_synced(interval=0.01))
        try:
            async with asyncio.timeout(WAIT_TIMEOUT / 2):
                while db_threads.now() > timezone.now() + timedelta(minutes=1):
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()

    try:
        world.live.run(run_clock)
    finally:
        db_threads.set_clock_offset()
    assert abs(db_threads.now() - timezone.now()) < timedelta(minutes=1)


def test_released_stage_is_due_after_its_interval(stage: Stage) -> None:
    due.record_stage(stage, at(2), PLAN, started_at=at(2))
    assert Stage.objects.get().next_sync_at == at(2) + timedelta(seconds=300)


def test_what_a_read_has_found_is_stored_with_the_release(stage: Stage) -> None:
    [found] = due.find_stages(at(1), 1)
    Stage.objects.update(failures=2, error="timeout")
    due.record_stage(found, at(2), PLAN, started_at=at(2), failures=0, error="", synced_at=at(1))
    stage.refresh_from_db()
    assert (stage.failures, stage.error, stage.synced_at) == (0, "", at(1))
    assert stage.next_sync_at == stage.fresh_until == at(302)


def test_read_that_omits_older_runs_in_flight_makes_the_stage_due_at_once(stage: Stage) -> None:
    [found] = due.find_stages(at(1), 1)
    due.record_stage(found, at(2), PLAN, started_at=at(2), in_flight_incomplete=True)
    stage.refresh_from_db()
    assert stage.in_flight_incomplete
    assert (stage.next_sync_at, stage.fresh_until) == (at(2), at(302))


def test_read_that_finds_no_release_flow_makes_the_stage_due_later(stage: Stage) -> None:
    [found] = due.find_stages(at(1), 1)
    found_nothing: dict[str, Any] = {"has_flow": False, "in_flight_incomplete": True}
    due.record_stage(found, at(2), PLAN, started_at=at(2), **found_nothing)
    assert Stage.objects.get().next_sync_at == at(2) + timedelta(hours=6)


def test_read_is_stored_and_its_stage_released_by_two_statements(stage: Stage) -> None:
    [found] = due.find_stages(at(1), 1)
    with CaptureQueriesContext(connection) as queries:
        due.record_stage(found, at(2), PLAN, started_at=at(2), synced_at=at(1))
    assert len(queries) == 2


def test_failing_stage_backs_off_longer_each_time(stage: Stage) -> None:
    delays = []
    for failures in range(1, 10):
        Stage.objects.update(failures=failures)
        due.record_stage(stage, T0, PLAN, started_at=T0)
        delays.append((Stage.objects.get().next_sync_at - T0).total_seconds())
    assert delays[:3] == [10, 20, 40]
    assert delays == sorted(delays)
    assert delays[-1] == 300


def stage_in_flight(stage: Stage) -> Stage:
    """Another stage of the pipeline, with a run in flight."""
    other = Stage.objects.create(
        pipeline=stage.pipeline, name="Staging", has_flow=True, next_sync_at=T0, synced_at=T0
    )
    mirror.apply_runs(other.pk, [api_run()], requested_at=T0)
    return other


def test_watched_stage_is_found_before_longest_due(stage: Stage) -> None:
    Stage.objects.update(next_sync_at=at(-86400))
    other = stage_in_flight(stage)
    Run.objects.update(in_flight=False)
    watchers.watch_stage(other, at(0))
    assert find(1, limit=1) == [other.pk]


def spend_requests(**fields: Any) -> None:
    """Leave none of the hour's requests but the reserve, for another 45 minutes."""
    now = timezone.now()
    defaults = {
        "limit": 1000, "remaining": 100, "resets_at": now + timedelta(minutes=45), "synced_at": now,
        "others_rate_before": None, "burst": 0,
    }  # fmt: skip
    RateBudget.objects.update(**defaults | fields)


def test_data_is_stale_in_time_while_no_requests_are_left(world: World) -> None:
    world.sync()
    expired_at = timezone.now() - timedelta(minutes=1)
    Stage.objects.update(fresh_until=expired_at)
    spend_requests()
    world.live.reads.plan_again()
    world.live.run(world.live.worker.tick)
    assert set(Stage.objects.values_list("fresh_until", flat=True)) == {expired_at}


def test_first_reads_of_a_window_are_not_planned_without_its_requests(world: World) -> None:
    world.sync()
    world.make_due()
    spend_requests()
    world.live.reads.plan_again()
    world.live.run(world.live.worker.tick)
    RateBudget.objects.update(resets_at=timezone.now())
    world.live.sync(1)
    latest = Stage.objects.filter(has_flow=True).latest("fresh_until").fresh_until
    assert latest is not None
    assert latest < timezone.now() + timedelta(hours=1)


def test_watched_failing_stage_keeps_back_off(stage: Stage) -> None:
    mirror.apply_runs(stage.pk, [api_run()], requested_at=T0)
    Stage.objects.update(synced_at=T0, next_sync_at=at(300), failures=1)
    watchers.watch_stage(Stage.objects.get(), at(21))
    assert find(21) == []


def test_watching_again_soon_writes_nothing(stage: Stage) -> None:
    watchers.watch_stage(stage, at(0))
    watchers.watch_stage(Stage.objects.get(), at(9))
    assert Stage.objects.get().last_viewed_at == at(0)


def test_watched_run_without_steps_is_due_for_read(stage: Stage) -> None:
    mirror.apply_runs(stage.pk, [api_run(status="success", concluded=True)], requested_at=T0)
    watchers.watch_run(get_run(), at(1))
    assert get_run().next_detail_sync_at == at(1)


def test_watched_concluded_run_with_steps_is_not_read(stage: Stage) -> None:
    concluded_run = api_run(status="success", concluded=True, concluded_at=at(-5))
    mirror.apply_runs(stage.pk, [concluded_run], requested_at=T0)
    Run.objects.update(detail_synced_at=T0)
    watchers.watch_run(get_run(), at(1))
    assert get_run().next_detail_sync_at is None


def test_watched_removed_run_is_not_read(stage: Stage) -> None:
    mirror.apply_runs(stage.pk, [api_run()], requested_at=T0)
    missing_runs.mark_removed(get_run().pk, requested_at=at(1))
    watchers.watch_run(get_run(), at(2))
    assert get_run().next_detail_sync_at is None


def count_aborting_reads(stage: Stage, manager: User, aborts: int, minutes: int) -> int:
    """Return how many reads so many open aborts take, requested at the same time."""
    runs = [api_run(f"r{number}", status="aborting") for number in range(aborts)]
    mirror.apply_runs(stage.pk, runs, requested_at=T0)
    for run in Run.objects.all():
        factories.abort(run, manager, requested_at=T0)
    Run.objects.update(next_detail_sync_at=T0)
    reads, now = 0, T0
    while now < T0 + timedelta(minutes=minutes):
        while found := due.find_runs(now, 4, aborting_only=True):
            for run in found:
                reads += 1
                due.record_run(run, now, PLAN)
        now = min(run.next_detail_sync_at for run in Run.objects.all() if run.next_detail_sync_at)
    return reads


@pytest.mark.parametrize(
    ("aborts", "minutes", "most"), [(1, 10, 76), (1, 60, 126), (4, 60, 260), (20, 3, 120)]
)
def test_reads_of_open_aborts_are_at_most_twice_those_of_one(
    stage: Stage, manager: User, aborts: int, minutes: int, most: int
) -> None:
    """Four open aborts took the requests of the whole hour."""
    assert count_aborting_reads(stage, manager, aborts, minutes) <= most


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ("concluded", {"settled_at": T0, "outcome": "aborted"}),
        ("accepted", {"requested_at": at(-3600)}),
    ],
    ids=["settled", "stuck"],
)
def test_new_abort_is_followed_quickly_beside_settled_or_stuck_ones(
    stage: Stage, manager: User, state: str, fields: dict[str, Any]
) -> None:
    for _ in range(20):
        factories.abort_of_new_run(manager, stage, state, **fields)
    Run.objects.update(next_detail_sync_at=None)
    run = factories.run(stage, status="aborting", next_detail_sync_at=T0)
    factories.abort(run, manager, requested_at=T0)
    [found] = due.find_runs(T0, 4, aborting_only=True)
    due.record_run(found, at(1), PLAN)
    run.refresh_from_db()
    assert run.next_detail_sync_at == at(3)


@pytest.mark.parametrize("aborts", [1, 8])
def test_release_of_aborting_run_takes_two_statements(
    stage: Stage, manager: User, aborts: int
) -> None:
    for _ in range(aborts):
        run = factories.run(stage, status="aborting", next_detail_sync_at=T0)
        factories.abort(run, manager, requested_at=T0)
    found, *_ = due.find_runs(T0, aborts, aborting_only=True)
    with CaptureQueriesContext(connection) as queries:
        due.record_run(found, at(1), PLAN)
    assert len(queries) == 2


def test_run_not_aborting_is_not_found_with_aborting_only(stage: Stage) -> None:
    mirror.apply_runs(stage.pk, [api_run()], requested_at=T0)
    Run.objects.update(next_detail_sync_at=T0)
    assert due.find_runs(at(1), 4, aborting_only=True) == []


def test_stage_of_removed_pipeline_is_not_found(stage: Stage) -> None:
    stage.pipeline.removed_at = T0
    stage.pipeline.save()
    assert find(1) == []


def test_nothing_is_due_before_its_time(stage: Stage) -> None:
    CatalogSync.objects.create(project=stage.pipeline.project, next_sync_at=T0)
    factories.run(stage, next_detail_sync_at=T0)
    assert not due.has_due_reads(at(-1))


def test_stage_is_due_at_its_time(stage: Stage) -> None:
    assert due.has_due_reads(T0)


def test_stage_of_removed_pipeline_is_not_due(stage: Stage) -> None:
    Pipeline.objects.update(removed_at=T0)
    assert not due.has_due_reads(at(1))


def test_run_is_due_at_its_time(stage: Stage) -> None:
    Stage.objects.update(next_sync_at=at(60))
    factories.run(stage, next_detail_sync_at=T0)
    assert due.has_due_reads(T0)


def test_catalog_list_is_due_at_its_time(db: None) -> None:
    CatalogSync.objects.create(next_sync_at=T0)
    assert due.has_due_reads(T0)


def test_catalog_list_of_removed_project_is_not_due(stage: Stage) -> None:
    Stage.objects.update(next_sync_at=at(60))
    CatalogSync.objects.create(project=stage.pipeline.project, next_sync_at=T0)
    Project.objects.update(removed_at=T0)
    assert not due.has_due_reads(at(1))


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({}, True),
        ({"flow_synced_at": T0 - timedelta(minutes=4)}, False),  # just looked for
        ({"failures": 1}, False),  # backed off
        ({"has_flow": True}, False),
    ],
)
def test_stage_without_flow_that_is_watched_is_looked_at_every_five_minutes(
    stage: Stage, fields: dict[str, Any], due: bool
) -> None:
    later = T0 + timedelta(hours=6)
    defaults = {
        "has_flow": False,
        "flow_synced_at": T0 - timedelta(minutes=6),
        "next_sync_at": later,
    }
    Stage.objects.update(**defaults | fields)
    watchers.watch_stage(Stage.objects.get(), T0)
    assert (Stage.objects.get().next_sync_at == T0) == due


def test_watched_stage_is_read_at_once_if_its_data_is_older_than_20_s(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, next_sync_at=at(300))
    watchers.watch_stage(Stage.objects.get(), at(21))
    assert find(21) == [stage.pk]


def test_watched_stage_with_newer_data_waits(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, next_sync_at=at(300))
    watchers.watch_stage(Stage.objects.get(), at(19))
    assert find(19) == []


def test_stage_is_watched_since_its_first_view_without_a_break(stage: Stage) -> None:
    for seconds, since in ((0, 0), (50, 0), (100, 0), (160, 160)):
        watchers.watch_stage(Stage.objects.get(), at(seconds))
        assert Stage.objects.get().watched_since == at(since)


def test_viewed_run_is_read_before_the_time_planned_for_its_steps(stage: Stage) -> None:
    run = factories.run(stage, "r1", detail_synced_at=T0, next_detail_sync_at=at(600))
    watchers.watch_run(run, at(60))
    assert get_run().next_detail_sync_at == at(60)


def test_detail_of_a_run_follows_each_read_of_its_stage_in_turn(stage: Stage) -> None:
    runs = [factories.run(stage, started_at=T0, status="running") for _ in range(2)]
    turns = []
    for seconds in (0, 600, 1200, 1800):
        read: dict[str, Any] = {"synced_at": at(seconds), "error": ""}
        due.record_stage(stage, at(seconds), PLAN, started_at=at(seconds), **read)
        stage.refresh_from_db()
        assert stage.next_sync_at == at(seconds + 600)
        [planned] = Run.objects.exclude(next_detail_sync_at=None)
        assert planned.next_detail_sync_at == at(seconds + 300)
        turns.append(planned)
        at_detail = {"detail_synced_at": at(seconds + 300), "next_detail_sync_at": None}
        Run.objects.filter(pk=planned.pk).update(**at_detail)
    assert turns == runs * 2


def test_detail_of_queued_run_is_not_planned(stage: Stage) -> None:
    factories.run(stage, "r1", started_at=None, status="queued")
    due.record_stage(stage, T0, PLAN, started_at=T0, synced_at=T0, error="")
    assert get_run().next_detail_sync_at is None
