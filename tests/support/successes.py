"""Successful runs, and the baselines learned from them."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.utils import timezone

from dashboard.models import Run, Stage, StageTiming
from dashboard.northflank import Node
from dashboard.sync import baselines
from tests.support import factories

NOW = timezone.now()


def success(stage: Stage, minutes: float, *, root: Node | None = None, **fields: Any) -> Run:
    """Create a run that took this many minutes, after one minute in the queue."""
    started_at = NOW - timedelta(hours=2)
    defaults = {
        "created_at": started_at - timedelta(minutes=1),
        "started_at": started_at,
        "concluded_at": started_at + timedelta(minutes=minutes),
        "status_since": started_at + timedelta(minutes=minutes),
        "steps": msgspec.to_builtins(root) if root else None,
        "detail_synced_at": NOW if root else None,
    }
    return factories.run(stage, status="success", **defaults | fields)


def update_baseline(stage: Stage) -> StageTiming:
    baselines.update_baseline(stage.pk, NOW)
    return StageTiming.objects.get()


def migration_steps(minutes: float, approval: float = 0) -> Node:
    started_at = NOW - timedelta(hours=1)
    approval_end = started_at + timedelta(minutes=approval)
    approval_step = factories.node(
        "Approval", label="sign-off", status="success", started_at=started_at, ended_at=approval_end
    )
    job_step = factories.node(
        "JobRun", label="migrate", ref="migrate", status="success",
        started_at=approval_end, ended_at=approval_end + timedelta(minutes=minutes),
    )  # fmt: skip
    return factories.node("Workflow", steps=(*([approval_step] if approval else []), job_step))


def create_successes(stage: Stage, *, read_count: int = 0, count: int = 6) -> None:
    """Create `count` successes, `read_count` of them with details, and record the baseline."""
    for n in range(count):
        fields = {"root": migration_steps(3), "detail_synced_at": NOW} if n < read_count else {}
        success(stage, 10, **fields)
    baselines.update_baseline(stage.pk, NOW)


def run_in_flight(stage: Stage, minutes: float) -> Run:
    started_at = NOW - timedelta(minutes=minutes)
    return factories.run(stage, created_at=started_at, started_at=started_at)


def minutes_later(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def scheduled_detail_count() -> int:
    return Run.objects.filter(status="success", next_detail_sync_at__isnull=False).count()
