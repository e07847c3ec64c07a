"""The plan made from the database, and the schedule of stages that follows it."""

from datetime import timedelta
from typing import Any

import pytest

from dashboard.models import Run, Stage
from dashboard.sync import mirror, missing_runs, read_plan, watchers
from dashboard.sync.read_plan import ReadPlan
from tests.support import factories
from tests.support.world import T0, api_run, at


def make_plan(rate: float, now: float, **options: Any) -> ReadPlan:
    return read_plan.make_plan(rate, at(now), read_plan.count_starts(at(now)), **options)


def interval_of(stage: Stage, plan: ReadPlan, now: float = 0.0) -> timedelta:
    [(facts, runs)] = read_plan.load_stages(at(now), stage.pk)
    return plan.stage_interval(facts, runs, at(now))


def add_stage(name: str) -> Stage:
    """Create a stage of another pipeline, read at T0."""
    return factories.stage(
        name, factories.pipeline("other"), next_sync_at=T0, synced_at=T0, fresh_until=at(900)
    )


def read_fresh_until(stage: Stage) -> Any:
    stage.refresh_from_db()
    return stage.fresh_until


def test_slower_plan_extends_fresh_until_before_it_expires(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, fresh_until=at(100), next_sync_at=at(100))
    rate = 1 / 3000  # one read each fifty minutes
    make_plan(rate, 50)
    assert read_fresh_until(stage) == at(100)  # not yet
    make_plan(rate, 95)
    extended = read_fresh_until(stage)
    assert extended > at(1000)
    make_plan(rate, 97)
    assert read_fresh_until(stage) == extended


def test_expired_fresh_until_is_not_extended(stage: Stage) -> None:
    Stage.objects.update(synced_at=at(-200), fresh_until=at(-100), next_sync_at=at(-100))
    make_plan(10.0, 95)  # each five seconds
    assert read_fresh_until(stage) == at(-100)


def test_stage_scheduled_late_is_made_due(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, next_sync_at=at(86400))
    make_plan(10.0, 60)
    assert [due_stage.pk for due_stage in Stage.objects.due(at(60))] == [stage.pk]


def test_failing_stage_keeps_back_off_with_faster_plan(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, next_sync_at=at(86400), failures=1)
    make_plan(10.0, 60)
    assert not Stage.objects.due(at(60)).exists()


def test_removed_run_is_not_in_flight(stage: Stage) -> None:
    mirror.apply_runs(stage.pk, [api_run()], requested_at=T0)
    assert len(read_plan.load_stages(T0)[0][1]) == 1
    missing_runs.mark_removed(Run.objects.get().pk, requested_at=at(1))
    assert read_plan.load_stages(T0)[0][1] == []


def test_stage_without_flow_is_looked_at_every_six_hours(stage: Stage) -> None:
    Stage.objects.update(has_flow=False)
    assert interval_of(stage, make_plan(0.02, 1)) == timedelta(hours=6)


def test_gap_gets_half_of_the_rate(stage: Stage) -> None:
    others = [add_stage(name) for name in ("Development", "Production")]
    Stage.objects.update(synced_at=T0, fresh_until=at(900))
    before = interval_of(others[0], make_plan(0.01, 1))
    Stage.objects.filter(pk=stage.pk).update(synced_at=None)
    plan = make_plan(0.01, 1)
    assert plan.has_gaps
    assert interval_of(others[0], plan) == pytest.approx(2 * before, rel=0.01)


def test_stage_of_an_open_pipeline_has_a_quarter_of_the_share(stage: Stage) -> None:
    other = factories.stage("Development", stage.pipeline)
    watchers.watch_pipeline(stage.pipeline, T0)
    watchers.watch_stage(stage, T0)
    plan = make_plan(0.005, 1)
    assert interval_of(stage, plan) == timedelta(seconds=20)
    assert interval_of(other, plan) == timedelta(seconds=80)


def test_stage_is_fresh_for_a_much_shorter_interval_at_once(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, fresh_until=at(7200), next_sync_at=at(7200))
    plan = make_plan(0.02, 1)
    interval = interval_of(stage, plan)
    assert interval < timedelta(hours=1)
    assert Stage.objects.get().fresh_until == T0 + interval
