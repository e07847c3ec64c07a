"""Baselines: learned from successes when they conclude."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from dashboard.db.threads import now
from dashboard.models import Pipeline, RateBudget, Run, Stage, StageTiming
from dashboard.models.typical_duration import MIN_SAMPLES
from dashboard.northflank import Node, RunDetail, UnexpectedResponse
from dashboard.northflank import Run as ApiRun
from dashboard.sync import baselines, mirror, overdue_checker, watchers
from dashboard.sync.worker import SyncWorker
from tests.support import factories
from tests.support.successes import (
    NOW,
    after,
    asked_for,
    flying,
    learned,
    migrated,
    succeeded,
    success,
)
from tests.support.world import LONG_AGO, World, api_run, at


def test_baseline_of_five_successes_has_durations(place: Stage) -> None:
    for minutes in (2, 3, 4, 5, 6):
        success(place, minutes)
    known = learned(place)
    assert (known.observed_run_median, known.observed_run_p95, known.observed_queue_median) == (
        240,
        360,
        60,
    )


def test_baseline_of_four_successes_is_none(place: Stage) -> None:
    for _ in range(4):
        success(place, 2)
    assert learned(place).typical_run is None


@pytest.mark.parametrize("status", ["failure", "aborted", "skipped"])
def test_baseline_ignores_other_outcomes(place: Stage, status: str) -> None:
    for _ in range(4):
        success(place, 2)
    factories.run(place, status=status)
    assert learned(place).typical_run is None


def test_baseline_ignores_success_with_abort(place: Stage, manager: User) -> None:
    for _ in range(5):
        last = success(place, 2)
    factories.abort(last, manager, "too_late", settled_at=NOW)
    assert learned(place).success_count == 4


def test_baseline_ignores_runs_of_other_stages(place: Stage) -> None:
    for _ in range(5):
        success(factories.stage("Staging"), 2)
    assert learned(place).success_count == 0


def test_baseline_has_steps_of_runs_with_details(place: Stage) -> None:
    for minutes in (1, 2, 3, 4, 5):
        success(place, minutes, root=migrated(minutes))
    known = learned(place)
    assert known.observed_steps == {"migrate": [180, 300]}
    assert known.detail_count == 5


def test_baseline_excludes_approval_time_from_run_duration(place: Stage) -> None:
    for _ in range(5):
        success(place, 62, root=migrated(2, approval=60))
    known = learned(place)
    assert known.observed_run_median == 120
    assert known.observed_steps["Approval sign-off"] == [3600, 3600]
    assert known.approval_keys == ["Approval sign-off"]


def test_baseline_update_keeps_override(place: Stage) -> None:
    read_before = learned(place)
    StageTiming.objects.update(override_run_median=900)
    read_before.record_baseline(run=None, queue=None, steps={}, approvals=(), at=NOW)
    assert StageTiming.objects.get().override_run_median == 900


def test_last_success_is_latest_successful_run(place: Stage) -> None:
    success(place, 2)
    last = success(place, 3)
    factories.run(place, status="failure")
    assert learned(place).last_success == last


def test_last_success_may_be_a_run_with_abort(place: Stage, manager: User) -> None:
    success(place, 2)
    last = success(place, 3)
    factories.abort(last, manager, "concluded", outcome="success", settled_at=NOW)
    assert learned(place).last_success == last


def test_mirrored_success_updates_baseline(stage: Stage) -> None:
    ended = {"status": "success", "concluded": True, "started_at": at(0), "concluded_at": at(60)}
    mirror.apply_runs(stage.pk, [api_run(f"r{n}", **ended) for n in range(5)], requested_at=at(100))
    assert StageTiming.objects.get().observed_run_median == 60


def test_detail_read_after_success_updates_baseline(
    stage: Stage,
) -> None:
    def read(seconds: float, status: str, people: Node) -> None:
        over = status == "success"
        ended = {"started_at": at(0), "concluded_at": at(3720)} if over else {"started_at": at(0)}
        run = api_run("watched", status=status, concluded=over, **ended)
        steps = factories.node("Workflow", steps=(people,))
        mirror.apply_detail(
            stage.pk, RunDetail(run=run, root=steps, raw={}), requested_at=at(seconds)
        )

    for _ in range(4):
        success(stage, 2, root=migrated(2))
    waits = {"label": "sign-off", "started_at": at(60)}
    read(70, "approval_wait", factories.node("Approval", status="approval_wait", **waits))
    ended = {"status": "success", "concluded": True, "started_at": at(0), "concluded_at": at(3720)}
    mirror.apply_runs(stage.pk, [api_run("watched", **ended)], requested_at=at(3721))
    approved = factories.node("Approval", status="success", ended_at=at(3660), **waits)
    read(3722, "success", approved)
    assert StageTiming.objects.get().observed_run_p95 == 120


def test_unchanged_list_does_not_update_baseline(stage: Stage) -> None:
    ended = {"status": "success", "concluded": True, "started_at": at(0), "concluded_at": at(60)}
    said = [api_run(f"r{n}", **ended) for n in range(5)]
    mirror.apply_runs(stage.pk, said, requested_at=at(100))
    StageTiming.objects.all().delete()
    mirror.apply_runs(stage.pk, said, requested_at=at(200))
    assert not StageTiming.objects.exists()


def test_baseline_reads_only_twenty_runs(place: Stage) -> None:
    for _ in range(25):
        success(place, 2, root=migrated(2))
    with CaptureQueriesContext(connection) as queries:
        learned(place)
    assert StageTiming.objects.get().success_count == 20
    assert len(queries) <= 9


# --- which successes are read, and when ---------------------------------------------------------

EVERY = timedelta(minutes=7)


def booked_run() -> Run:
    return Run.objects.filter(baselines.SCHEDULED_DETAIL).get()


def test_concluded_success_is_not_read_for_baseline_at_once(stage: Stage) -> None:
    for n in range(7):
        run_id = f"r{n}"
        mirror.apply_runs(stage.pk, [api_run(run_id)], requested_at=at(n * 100))
        ended = api_run(run_id, status="success", concluded=True, concluded_at=at(n * 100 + 5))
        mirror.apply_runs(stage.pk, [ended], requested_at=at(n * 100 + 10))
    assert not Run.objects.exclude(next_detail_sync_at=None).exists()


def test_baseline_read_is_scheduled_for_one_success_at_a_time(place: Stage) -> None:
    for stage in (place, factories.stage("Staging")):
        succeeded(stage)
    assert baselines.schedule_next_detail(NOW, EVERY)
    assert baselines.schedule_next_detail(NOW + EVERY, EVERY)
    assert booked_run().next_detail_sync_at == NOW + EVERY


def test_next_baseline_read_is_scheduled_after_previous(place: Stage) -> None:
    succeeded(place)
    baselines.schedule_next_detail(NOW, EVERY)
    first = booked_run()
    Run.objects.filter(pk=first.pk).update(detail_synced_at=after(7), next_detail_sync_at=None)
    baselines.schedule_next_detail(after(7), EVERY)
    assert booked_run() != first
    assert booked_run().next_detail_sync_at == after(14)


def test_concurrent_workers_schedule_one_baseline_read(transactional_db: None) -> None:
    succeeded(factories.stage())
    succeeded(factories.stage("Staging"))
    barrier = Barrier(4)

    def book(_: int) -> bool:
        barrier.wait(60)
        try:
            return baselines.schedule_next_detail(NOW, EVERY)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(book, range(4)))
    assert booked_run()


@pytest.mark.parametrize("read", [0, MIN_SAMPLES])
def test_baseline_read_is_not_scheduled_when_steps_are_known_or_successes_few(
    place: Stage, read: int
) -> None:
    succeeded(place, read=read, times=6 if read else MIN_SAMPLES - 1)
    assert not baselines.schedule_next_detail(NOW, EVERY)
    assert asked_for() == 0


@pytest.mark.parametrize("what", ["failed before", "gone", "no longer listed", "aborted in vain"])
def test_baseline_read_is_not_scheduled_for_unusable_run(
    place: Stage, manager: User, what: str
) -> None:
    succeeded(place)
    match what:
        case "failed before":
            Run.objects.update(failures=1)
        case "gone":
            Run.objects.update(removed_at=NOW)
        case "no longer listed":
            Pipeline.objects.update(removed_at=NOW)
        case _:
            for run in Run.objects.all():
                factories.abort(run, manager, "too_late", settled_at=NOW)
    assert not baselines.schedule_next_detail(NOW, EVERY)


def test_baseline_read_is_not_scheduled_for_old_success(place: Stage) -> None:
    old = success(place, 10, concluded_at=NOW - timedelta(days=2))
    for _ in range(20):
        success(place, 10, detail_synced_at=NOW)  # read, and Northflank showed no steps
    learned(place)
    assert StageTiming.objects.get().detail_count == 0
    assert not baselines.schedule_next_detail(NOW, EVERY)
    assert Run.objects.get(pk=old.pk).next_detail_sync_at is None


def test_baseline_reads_prefer_overdue_then_partial_then_longest_waiting_stage(
    place: Stage,
) -> None:
    of = place.pipeline
    kinds = ["known", "late", "earlier", "begun", "overdue"]
    stages = {kind: factories.stage(kind, of=of) for kind in kinds}
    for kind, stage in stages.items():
        succeeded(stage, read=MIN_SAMPLES if kind == "known" else int(kind == "begun"))
    known = StageTiming.objects.filter(stage=stages["known"])
    known.update(detail_count=MIN_SAMPLES - 1)  # one has slid by
    StageTiming.objects.filter(stage=stages["earlier"]).update(observed_at=LONG_AGO)
    flying(stages["overdue"], 60)
    Run.objects.in_flight().update(overdue_severity=1, overdue_reason="run")
    order = []
    while baselines.schedule_next_detail(NOW, EVERY):
        order.append(booked_run().stage.name)
        Run.objects.filter(stage=booked_run().stage).update(failures=1)
    assert order == ["overdue", "begun", "earlier", "late", "known"]


def test_scheduled_baseline_run_being_watched_is_due_now(place: Stage) -> None:
    succeeded(place)
    baselines.schedule_next_detail(NOW, EVERY)
    run = booked_run()
    watchers.watch_run(run, after(1))
    run.refresh_from_db()
    assert run.next_detail_sync_at == after(1)


def test_baseline_reads_of_stage_with_watched_run_are_due_now(place: Stage) -> None:
    succeeded(place)
    baselines.schedule_next_detail(NOW, EVERY)
    run = flying(place, 5)
    Run.objects.filter(pk=run.pk).update(last_viewed_at=NOW)
    overdue_checker.check_runs(NOW)
    times = Run.objects.filter(status="success").exclude(next_detail_sync_at=None)
    assert list(times.values_list("next_detail_sync_at", flat=True)) == [NOW] * MIN_SAMPLES


def test_failed_baseline_read_is_not_repeated(place: Stage) -> None:
    succeeded(place)
    baselines.schedule_next_detail(NOW, EVERY)
    first = booked_run()
    mirror.back_off(first.pk, UnexpectedResponse("No.", http_status=200), NOW)
    first.refresh_from_db()
    assert first.next_detail_sync_at is None
    baselines.schedule_next_detail(NOW, EVERY)
    assert booked_run() != first


def test_scheduling_baseline_read_takes_three_queries_for_many_stages(place: Stage) -> None:
    for n in range(20):
        succeeded(factories.stage(f"Stage {n}", of=place.pipeline))
    with CaptureQueriesContext(connection) as queries:
        baselines.schedule_next_detail(NOW, EVERY)
    assert len(queries) == 3


# --- the worker ---------------------------------------------------------------------------------


def restart_worker(world: World) -> None:
    """Have the next plan made by a worker that has just been started."""
    world.live.worker = SyncWorker(world.live.connection)


def details(world: World) -> list[str]:
    runs = set(Run.objects.filter(status="success").values_list("run_id", flat=True))
    return [run for asked in world.asked("/runs/") if (run := asked.rpartition("/")[2]) in runs]


def test_worker_reads_one_success_at_a_time_until_baseline_has_steps(world: World) -> None:
    world.sandbox.rate_limit_window.limit = 4_000  # so that none comes due by itself in the test
    world.sync()
    world.sandbox.requests.clear()
    typical = StageTiming.objects.filter(success_count__gte=MIN_SAMPLES).order_by("stage").first()
    assert typical is not None
    Run.objects.exclude(stage=typical.stage_id).update(detail_synced_at=now())  # one will do
    rounds = 0
    while True:
        restart_worker(world)
        world.sync()
        assert len(details(world)) == rounds  # however often it looks, none before its time
        if not Run.objects.filter(baselines.SCHEDULED_DETAIL).exists():
            break
        due = booked_run()
        assert due.next_detail_sync_at is not None
        assert due.next_detail_sync_at > now()
        Run.objects.filter(pk=due.pk).update(next_detail_sync_at=LONG_AGO)
        rounds += 1
        world.sync()
        assert details(world)[-1] == due.run_id
    typical.refresh_from_db()
    assert (rounds, typical.detail_count) == (MIN_SAMPLES, MIN_SAMPLES)
    assert typical.observed_steps


def test_baseline_read_with_small_budget_is_scheduled_late(world: World) -> None:
    world.sandbox.rate_limit_window.limit = 400
    world.sync()
    restart_worker(world)
    began = now()
    world.sync()
    spent = RateBudget.objects.get()
    # One in a hundred of what is left to us: not before the time of a hundred requests.
    hundred = 100 * (spent.resets_at - began) / spent.limit
    at_ = booked_run().next_detail_sync_at
    assert at_ is not None
    assert at_ - began >= min(hundred, timedelta(minutes=59))


# --- while successes and their details slide by -------------------------------------------------


class SlidingHistory:
    """A stage whose runs succeed one by one, and are read where the sync asks for it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ended = 0
        self.read = 0
        self.said: dict[str, ApiRun] = {}

    def succeed(self, root: Node, *, readable: bool = True) -> StageTiming:
        """Let one more run succeed, and return what is usual before its detail can be read."""
        self.ended += 1
        began = self.ended * 1000
        run = {"created_at": at(began), "started_at": at(began)}
        ended = {"status": "success", "concluded": True, "concluded_at": at(began + 600)}
        mirror.apply_runs(self.stage.pk, [api_run(f"r{self.ended}", **run)], requested_at=at(began))
        api = api_run(f"r{self.ended}", **run | ended)
        mirror.apply_runs(self.stage.pk, [api], requested_at=at(began + 601))
        self.said[api.id] = api
        before = StageTiming.objects.get()
        if baselines.schedule_next_detail(at(began + 601), timedelta()) and readable:
            self.read += 1
            detail = RunDetail(run=self.said[booked_run().run_id], root=root, raw={})
            row = mirror.apply_detail(self.stage.pk, detail, requested_at=at(began + 602))
            Run.objects.filter(pk=row.pk).update(next_detail_sync_at=None)
        return before


@pytest.fixture
def history(stage: Stage) -> SlidingHistory:
    return SlidingHistory(stage)


# Of which successes the details can be read: all, not for a while, every other, some at random.
READABLE = {
    "all": lambda n: True,
    "an outage": lambda n: n < 10 or n > 40,
    "every other": lambda n: n % 2 == 0,
    "some": lambda n: n * 2654435761 % 7 < 4,
}


@pytest.mark.parametrize("readable", READABLE.values(), ids=READABLE)
def test_baseline_step_stays_as_successes_pass(
    history: SlidingHistory, readable: Callable[[int], bool]
) -> None:
    known = False
    for n in range(70):
        usual = history.succeed(migrated(3, approval=4), readable=readable(n))
        assert usual.typical_step("migrate") is not None or not known
        assert usual.typical_approval("Approval sign-off") is not None or not known
        assert usual.typical_run is not None or not known
        known = known or usual.typical_step("migrate") is not None
    assert known


def test_baseline_reads_at_most_one_success_in_four(history: SlidingHistory) -> None:
    for _ in range(60):
        history.succeed(migrated(3))
    assert history.read <= 60 / 4 + 1


def test_baseline_step_that_no_longer_runs_is_dropped(history: SlidingHistory) -> None:
    for _ in range(20):
        history.succeed(migrated(3))
    renamed = factories.node(
        "JobRun", label="convert", ref="convert", status="success",
        started_at=NOW, ended_at=NOW + timedelta(minutes=4),
    )  # fmt: skip
    for _ in range(30):
        history.succeed(renamed)
    known = StageTiming.objects.get()
    assert list(known.observed_steps) == ["convert"]


def test_baseline_run_duration_stays_without_new_details(history: SlidingHistory) -> None:
    for _ in range(10):
        history.succeed(migrated(3, approval=4))
    before = StageTiming.objects.get().typical_run
    for _ in range(25):
        usual = history.succeed(migrated(3, approval=4), readable=False)
        assert usual.typical_run == before


# --- what is learned anew shows at once ---------------------------------------------------------


def versions(stage: Stage) -> dict[str, int]:
    return dict(stage.runs.in_flight().values_list("run_id", "version"))


def add_five_successes(stage: Stage, minutes: float, *, first: int = 0) -> None:
    """Five more runs of the stage have succeeded, in so many minutes each."""
    for n in range(first, first + 5):
        began = at(n * 100)
        times = {"created_at": began, "started_at": began}
        times |= {"concluded_at": began + timedelta(minutes=minutes)}
        said = api_run(f"r{n}", status="success", concluded=True, **times)
        mirror.apply_runs(stage.pk, [said], requested_at=at(9000 + n))


def test_changed_baseline_updates_runs_in_flight_of_its_stage(stage: Stage) -> None:
    elsewhere = factories.run(factories.stage("Staging", of=stage.pipeline), "elsewhere")
    mirror.apply_runs(stage.pk, [api_run("flying")], requested_at=at(0))
    before = versions(stage)
    add_five_successes(stage, 5)
    assert versions(stage)["flying"] > before["flying"]
    assert versions(elsewhere.stage) == {"elsewhere": elsewhere.version}


def test_baseline_change_with_same_text_updates_no_run(stage: Stage) -> None:
    add_five_successes(stage, 5)
    mirror.apply_runs(stage.pk, [api_run("flying")], requested_at=at(9100))
    before = versions(stage)
    add_five_successes(stage, 5.1, first=5)
    assert StageTiming.objects.get().observed_run_p95 == pytest.approx(306)
    assert versions(stage) == before


def test_baseline_change_updates_only_runs_that_show_it(stage: Stage) -> None:
    add_five_successes(stage, 5)
    queued = api_run("queued", status="queued", started_at=None)
    mirror.apply_runs(stage.pk, [api_run("flying"), queued], requested_at=at(9100))
    before = versions(stage)
    add_five_successes(stage, 50, first=5)
    after = versions(stage)
    assert after["flying"] > before["flying"]
    assert after["queued"] == before["queued"]


def test_baseline_change_behind_override_updates_no_run(stage: Stage) -> None:
    add_five_successes(stage, 5)
    StageTiming.objects.update(override_run_median=900)
    mirror.apply_runs(stage.pk, [api_run("flying")], requested_at=at(9100))
    before = versions(stage)
    add_five_successes(stage, 50, first=5)
    assert versions(stage) == before
