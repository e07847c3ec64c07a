"""Which details of failed runs are read, and how many."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import Run, Stage
from dashboard.runs import acknowledgements
from dashboard.sync import causes, watchers
from dashboard.sync.causes import MAX_READS_PER_HOUR
from tests.support import factories
from tests.support.world import World

HOUR = timedelta(hours=1)


def failed(stage: Stage, run_id: str = "r1", hours_ago: float = 0.1, **fields: Any) -> Run:
    ended_at = timezone.now() - hours_ago * HOUR
    return factories.run(
        stage, run_id, status="failure", concluded_at=ended_at, status_since=ended_at, **fields
    )


def planned() -> list[str]:
    """Let the plan choose until it chooses nothing more, as if each was read; return the order."""
    order = []
    for _ in range(MAX_READS_PER_HOUR + 10):
        now = timezone.now()
        causes.schedule_next_detail(now)
        chosen = Run.objects.filter(next_detail_sync_at__isnull=False)
        if not chosen:
            break
        order += chosen.values_list("run_id", flat=True)
        chosen.update(failed_step="", detail_synced_at=now, next_detail_sync_at=None)
    return order


def test_the_latest_ten_come_first_then_production_and_then_the_latest(stage: Stage) -> None:
    staging = factories.stage("Staging")
    shown = [f"shown-{number}" for number in range(10)]
    for number, run_id in enumerate(shown):
        failed(staging, run_id, 0.1 + number / 100)
    failed(stage, "late", 1)
    failed(stage, "early", 20)
    failed(staging, "staging-late", 0.5)
    failed(staging, "staging-early", 3)
    assert planned() == [*shown, "late", "early", "staging-late", "staging-early"]


@pytest.mark.parametrize(
    "fields",
    [
        {"failed_step": "migrate"},
        {"failed_step": ""},
        {"removed_at": timezone.now()},
        {"failures": 7},  # given up
        {"hours_ago": acknowledgements.MAX_FAILURE_AGE / HOUR},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_other_failures_are_not_read(fields: dict[str, Any], stage: Stage) -> None:
    failed(stage, **fields)
    factories.run(stage, status="success")
    factories.run(stage, status="aborted")
    assert planned() == []


def test_one_is_read_after_the_other(stage: Stage) -> None:
    failed(stage, "r1")
    failed(stage, "r2")
    for _ in range(2):
        causes.schedule_next_detail(timezone.now())
    assert Run.objects.filter(next_detail_sync_at__isnull=False).count() == 1


def test_detail_that_cannot_be_read_does_not_hold_up_the_others(stage: Stage) -> None:
    failed(stage, "broken", failures=3, next_detail_sync_at=timezone.now() + HOUR)
    failed(stage, "r2")
    causes.schedule_next_detail(timezone.now())
    assert Run.objects.get(run_id="r2").next_detail_sync_at is not None


def broken_details(stage: Stage) -> None:
    retry_at = timezone.now() + HOUR
    for number in range(MAX_READS_PER_HOUR // 5):
        failed(stage, f"broken-{number}", failures=5, next_detail_sync_at=retry_at)


def read_details(stage: Stage) -> None:
    for number in range(MAX_READS_PER_HOUR):
        read_at = timezone.now() - 0.9 * HOUR
        failed(stage, f"read-{number}", hours_ago=2, failed_step="", detail_synced_at=read_at)


@pytest.mark.parametrize("reads", [read_details, broken_details])
def test_no_more_are_read_than_the_hour_allows(
    reads: Callable[[Stage], None], stage: Stage
) -> None:
    reads(stage)
    new = failed(stage, "new")
    causes.schedule_next_detail(timezone.now())
    new.refresh_from_db()
    assert new.next_detail_sync_at is None
    Run.objects.exclude(pk=new.pk).update(
        next_detail_sync_at=None, detail_synced_at=timezone.now() - 1.1 * HOUR
    )
    causes.schedule_next_detail(timezone.now())
    new.refresh_from_db()
    assert new.next_detail_sync_at is not None


def test_failure_whose_cause_was_never_stored_is_read_once_somebody_opens_it(stage: Stage) -> None:
    run = failed(stage, hours_ago=300, detail_synced_at=timezone.now())
    watchers.watch_run(run, timezone.now())
    run.refresh_from_db()
    assert run.next_detail_sync_at is not None


@pytest.mark.slow
def test_worker_reads_why_a_run_failed(world: World) -> None:
    world.keep_one_pipeline()
    world.sync(3)
    [step] = Run.objects.filter(failed_step__isnull=False).values_list("failed_step", flat=True)
    assert step
