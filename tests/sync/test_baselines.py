"""Baselines: learned from successes when they conclude."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard.db.threads import now
from dashboard.models import Pipeline, Run, Stage, StageTiming
from dashboard.models.typical_duration import MIN_SAMPLES
from dashboard.northflank import Node, RunDetail, UnexpectedResponse
from dashboard.northflank import Run as ApiRun
from dashboard.sync import baselines, mirror, missing_runs, watchers
from tests.support import factories
from tests.support.successes import (
    NOW,
    create_successes,
    migration_steps,
    minutes_later,
    run_in_flight,
    scheduled_detail_count,
    success,
    update_baseline,
)
from tests.support.world import LONG_AGO, World, api_run, at


def test_baseline_of_five_successes_has_durations(read_stage: Stage) -> None:
    for minutes in (2, 3, 4, 5, 6):
        success(read_stage, minutes)
    baseline = update_baseline(read_stage)
    assert (
        baseline.observed_run_median,
        baseline.observed_run_p95,
        baseline.observed_queue_median,
    ) == (
        240,
        360,
        60,
    )


def test_baseline_of_four_successes_is_none(read_stage: Stage) -> None:
    for _ in range(4):
        success(read_stage, 2)
    assert update_baseline(read_stage).typical_run is None


@pytest.mark.parametrize("status", ["failure", "aborted", "skipped"])
def test_baseline_ignores_other_outcomes(read_stage: Stage, status: str) -> None:
    for _ in range(4):
        success(read_stage, 2)
    factories.run(read_stage, status=status)
    assert update_baseline(read_stage).typical_run is None


def test_baseline_ignores_success_with_abort(read_stage: Stage, manager: User) -> None:
    for _ in range(5):
        last_run = success(read_stage, 2)
    factories.abort(last_run, manager, "too_late", settled_at=NOW)
    assert update_baseline(read_stage).success_count == 4


def test_baseline_has_steps_of_runs_with_details(read_stage: Stage) -> None:
    for minutes in (1, 2, 3, 4, 5):
        success(read_stage, minutes, root=migration_steps(minutes))
    baseline = update_baseline(read_stage)
    assert baseline.observed_steps == {"migrate": [180, 300]}
    assert baseline.detail_count == 5


def test_baseline_excludes_approval_time_from_run_duration(read_stage: Stage) -> None:
    for _ in range(5):
        success(read_stage, 62, root=migration_steps(2, approval=60))
    baseline = update_baseline(read_stage)
    assert baseline.observed_run_median == 120
    assert baseline.observed_steps["Approval sign-off"] == [3600, 3600]
    assert baseline.approval_keys == ["Approval sign-off"]


def test_first_approval_of_a_stage_keeps_the_usual_duration_until_five_are_read(
    read_stage: Stage,
) -> None:
    for _ in range(5):
        success(read_stage, 5)
    assert update_baseline(read_stage).observed_run_median == 300
    for count in range(1, 6):
        success(read_stage, 62, root=migration_steps(2, approval=60))
        is_complete = count == 5
        assert update_baseline(read_stage).observed_run_median == (120 if is_complete else 300)


def test_baseline_update_keeps_override(read_stage: Stage) -> None:
    before = update_baseline(read_stage)
    StageTiming.objects.update(override_run_median=900)
    before.record_baseline(run=None, queue=None, steps={}, success_count=0, observed_at=NOW)
    assert StageTiming.objects.get().override_run_median == 900


def test_last_success_is_latest_successful_run(read_stage: Stage) -> None:
    success(read_stage, 2)
    last = success(read_stage, 3)
    factories.run(read_stage, status="failure")
    assert update_baseline(read_stage).last_success == last


def test_last_success_may_be_a_run_with_abort(read_stage: Stage, manager: User) -> None:
    success(read_stage, 2)
    last = success(read_stage, 3)
    factories.abort(last, manager, "concluded", outcome="success", settled_at=NOW)
    assert update_baseline(read_stage).last_success == last


def test_unchanged_list_does_not_update_baseline(stage: Stage) -> None:
    end_fields = {
        "status": "success",
        "concluded": True,
        "started_at": at(0),
        "concluded_at": at(60),
    }
    api_runs = [api_run(f"r{n}", **end_fields) for n in range(5)]
    mirror.apply_runs(stage.pk, api_runs, requested_at=at(100))
    StageTiming.objects.all().delete()
    mirror.apply_runs(stage.pk, api_runs, requested_at=at(200))
    assert not StageTiming.objects.exists()


def test_baseline_reads_only_twenty_runs(read_stage: Stage) -> None:
    for _ in range(25):
        success(read_stage, 2, root=migration_steps(2))
    with CaptureQueriesContext(connection) as queries:
        update_baseline(read_stage)
    assert StageTiming.objects.get().success_count == 20
    assert len(queries) <= 8


# --- scheduled reads ----------------------------------------------------------------------------

INTERVAL = timedelta(minutes=7)


def scheduled_run() -> Run:
    return Run.objects.filter(baselines.SCHEDULED_DETAIL).get()


def test_concluded_success_is_not_read_for_baseline_at_once(stage: Stage) -> None:
    for n in range(7):
        run_id = f"r{n}"
        mirror.apply_runs(stage.pk, [api_run(run_id)], requested_at=at(n * 100))
        concluded_run = api_run(
            run_id, status="success", concluded=True, concluded_at=at(n * 100 + 5)
        )
        mirror.apply_runs(stage.pk, [concluded_run], requested_at=at(n * 100 + 10))
    assert not Run.objects.exclude(next_detail_sync_at=None).exists()


def test_baseline_read_is_scheduled_for_one_success_at_a_time(read_stage: Stage) -> None:
    for stage in (read_stage, factories.stage("Staging")):
        create_successes(stage)
    assert baselines.schedule_next_detail(NOW, INTERVAL)
    assert baselines.schedule_next_detail(NOW + INTERVAL, INTERVAL)
    assert scheduled_run().next_detail_sync_at == NOW + INTERVAL


def test_next_baseline_read_is_scheduled_after_previous(read_stage: Stage) -> None:
    create_successes(read_stage)
    baselines.schedule_next_detail(NOW, INTERVAL)
    first = scheduled_run()
    Run.objects.filter(pk=first.pk).update(
        detail_synced_at=minutes_later(7), next_detail_sync_at=None
    )
    baselines.schedule_next_detail(minutes_later(7), INTERVAL)
    assert scheduled_run() != first
    assert scheduled_run().next_detail_sync_at == minutes_later(14)


@pytest.mark.parametrize("read_count", [0, MIN_SAMPLES])
def test_baseline_read_is_not_scheduled_when_steps_are_known_or_successes_few(
    read_stage: Stage, read_count: int
) -> None:
    create_successes(read_stage, read_count=read_count, count=6 if read_count else MIN_SAMPLES - 1)
    assert not baselines.schedule_next_detail(NOW, INTERVAL)
    assert scheduled_detail_count() == 0


@pytest.mark.parametrize("case", ["failed before", "gone", "no longer listed", "aborted in vain"])
def test_baseline_read_is_not_scheduled_for_unusable_run(
    read_stage: Stage, manager: User, case: str
) -> None:
    create_successes(read_stage)
    match case:
        case "failed before":
            Run.objects.update(failures=1)
        case "gone":
            Run.objects.update(removed_at=NOW)
        case "no longer listed":
            Pipeline.objects.update(removed_at=NOW)
        case _:
            for run in Run.objects.all():
                factories.abort(run, manager, "too_late", settled_at=NOW)
    assert not baselines.schedule_next_detail(NOW, INTERVAL)


def test_baseline_read_is_not_scheduled_for_old_success(read_stage: Stage) -> None:
    old_success = success(read_stage, 10, concluded_at=NOW - timedelta(days=2))
    for _ in range(20):
        success(read_stage, 10, detail_synced_at=NOW)  # read, without steps
    update_baseline(read_stage)
    assert StageTiming.objects.get().detail_count == 0
    assert not baselines.schedule_next_detail(NOW, INTERVAL)
    assert Run.objects.get(pk=old_success.pk).next_detail_sync_at is None


def test_baseline_reads_prefer_overdue_then_partial_then_longest_waiting_stage(
    read_stage: Stage,
) -> None:
    pipeline = read_stage.pipeline
    kinds = ["known", "late", "earlier", "begun", "overdue"]
    stages = {kind: factories.stage(kind, parent=pipeline) for kind in kinds}
    for kind, stage in stages.items():
        create_successes(stage, read_count=MIN_SAMPLES if kind == "known" else int(kind == "begun"))
    known_timing = StageTiming.objects.filter(stage=stages["known"])
    known_timing.update(detail_count=MIN_SAMPLES - 1)  # one is no longer among the latest
    StageTiming.objects.filter(stage=stages["earlier"]).update(observed_at=LONG_AGO)
    run_in_flight(stages["overdue"], 60)
    Run.objects.in_flight().update(overdue_severity=1, overdue_reason="run")
    order = []
    while baselines.schedule_next_detail(NOW, INTERVAL):
        order.append(scheduled_run().stage.name)
        Run.objects.filter(stage=scheduled_run().stage).update(failures=1)
    assert order == ["overdue", "begun", "earlier", "late", "known"]


def test_scheduled_baseline_run_being_watched_is_due_now(read_stage: Stage) -> None:
    create_successes(read_stage)
    baselines.schedule_next_detail(NOW, INTERVAL)
    run = scheduled_run()
    watchers.watch_run(run, minutes_later(1))
    run.refresh_from_db()
    assert run.next_detail_sync_at == minutes_later(1)


def test_failed_baseline_read_does_not_delay_the_next(read_stage: Stage) -> None:
    create_successes(read_stage)
    baselines.schedule_next_detail(NOW, INTERVAL)
    first = scheduled_run()
    missing_runs.back_off(first.pk, UnexpectedResponse("No.", http_status=200), NOW)
    baselines.schedule_next_detail(NOW, INTERVAL)
    assert scheduled_run() != first


def test_scheduling_baseline_read_takes_three_queries_for_many_stages(read_stage: Stage) -> None:
    for n in range(20):
        create_successes(factories.stage(f"Stage {n}", parent=read_stage.pipeline))
    with CaptureQueriesContext(connection) as queries:
        baselines.schedule_next_detail(NOW, INTERVAL)
    assert len(queries) == 3


# --- the worker ---------------------------------------------------------------------------------


def restart_worker(world: World) -> None:
    """Replace the worker by a new one, which makes its own plan."""
    world.live.replace_worker()


def details(world: World) -> list[str]:
    runs = set(Run.objects.filter(status="success").values_list("run_id", flat=True))
    return [
        run
        for request in world.requests_for("/runs/")
        if (run := request.rpartition("/")[2]) in runs
    ]


def test_worker_reads_one_success_at_a_time_until_baseline_has_steps(world: World) -> None:
    world.sandbox.rate_limit_window.limit = 4_000  # so that no read becomes due during the test
    world.sync()
    world.sandbox.requests.clear()
    typical = StageTiming.objects.filter(success_count__gte=MIN_SAMPLES).order_by("stage").first()
    assert typical is not None
    Run.objects.exclude(stage=typical.stage_id).update(
        detail_synced_at=now()
    )  # one stage is enough
    rounds = 0
    while True:
        restart_worker(world)
        world.sync()
        assert len(details(world)) == rounds  # never before its time
        if not Run.objects.filter(baselines.SCHEDULED_DETAIL).exists():
            break
        due = scheduled_run()
        assert due.next_detail_sync_at is not None
        assert due.next_detail_sync_at > now()
        Run.objects.filter(pk=due.pk).update(next_detail_sync_at=LONG_AGO)
        rounds += 1
        world.sync()
        assert details(world)[-1] == due.run_id
    typical.refresh_from_db()
    assert (rounds, typical.detail_count) == (MIN_SAMPLES, MIN_SAMPLES)
    assert typical.observed_steps


# --- as new successes replace old ones ----------------------------------------------------------


class SlidingHistory:
    """A stage whose runs succeed one after another, and are read when the sync schedules it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.count = 0
        self.read = 0
        self.api_runs: dict[str, ApiRun] = {}

    def succeed(self, root: Node, *, readable: bool = True) -> StageTiming:
        """Let one more run succeed, and return the baseline before its detail can be read."""
        self.count += 1
        start_seconds = self.count * 1000
        run = {"created_at": at(start_seconds), "started_at": at(start_seconds)}
        end_fields = {
            "status": "success",
            "concluded": True,
            "concluded_at": at(start_seconds + 600),
        }
        mirror.apply_runs(
            self.stage.pk, [api_run(f"r{self.count}", **run)], requested_at=at(start_seconds)
        )
        api_run_concluded = api_run(f"r{self.count}", **run | end_fields)
        mirror.apply_runs(self.stage.pk, [api_run_concluded], requested_at=at(start_seconds + 601))
        self.api_runs[api_run_concluded.id] = api_run_concluded
        before = StageTiming.objects.get()
        if baselines.schedule_next_detail(at(start_seconds + 601), timedelta()) and readable:
            self.read += 1
            detail = RunDetail(run=self.api_runs[scheduled_run().run_id], root=root)
            row = mirror.apply_detail(self.stage.pk, detail, requested_at=at(start_seconds + 602))
            Run.objects.filter(pk=row.pk).update(next_detail_sync_at=None)
        return before


@pytest.fixture
def history(stage: Stage) -> SlidingHistory:
    return SlidingHistory(stage)


# Which details can be read: all, none for a while, every other, some at random.
READABLE = {
    "all": lambda n: True,
    "an outage": lambda n: n < 10 or n > 40,
    "every other": lambda n: n % 2 == 0,
    "some": lambda n: n * 2654435761 % 7 < 4,
}


@pytest.mark.slow
@pytest.mark.parametrize("readable", READABLE.values(), ids=READABLE)
def test_baseline_step_stays_as_successes_pass(
    history: SlidingHistory, readable: Callable[[int], bool]
) -> None:
    was_known = False
    for n in range(70):
        baseline = history.succeed(migration_steps(3, approval=4), readable=readable(n))
        assert baseline.typical_step("migrate") is not None or not was_known
        assert baseline.typical_approval("Approval sign-off") is not None or not was_known
        assert baseline.typical_run is not None or not was_known
        was_known = was_known or baseline.typical_step("migrate") is not None
    assert was_known


@pytest.mark.slow
def test_baseline_step_that_no_longer_runs_is_dropped(history: SlidingHistory) -> None:
    for _ in range(20):
        history.succeed(migration_steps(3))
    renamed = factories.node(
        "JobRun", label="convert", ref="convert", status="success",
        started_at=NOW, ended_at=NOW + timedelta(minutes=4),
    )  # fmt: skip
    for _ in range(30):
        history.succeed(renamed)
    baseline = StageTiming.objects.get()
    assert list(baseline.observed_steps) == ["convert"]
