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
    began = NOW - timedelta(hours=2)
    usual = {
        "created_at": began - timedelta(minutes=1),
        "started_at": began,
        "concluded_at": began + timedelta(minutes=minutes),
        "steps": msgspec.to_builtins(root) if root else None,
    }
    return factories.run(stage, status="success", **usual | fields)


def learned(stage: Stage) -> StageTiming:
    baselines.update_baseline(stage.pk, NOW)
    return StageTiming.objects.get()


def migrated(minutes: float, approval: float = 0) -> Node:
    began = NOW - timedelta(hours=1)
    until = began + timedelta(minutes=approval)
    people = factories.node(
        "Approval", label="sign-off", status="success", started_at=began, ended_at=until
    )
    work = factories.node(
        "JobRun", label="migrate", ref="migrate", status="success",
        started_at=until, ended_at=until + timedelta(minutes=minutes),
    )  # fmt: skip
    return factories.node("Workflow", steps=(*([people] if approval else []), work))


def succeeded(stage: Stage, *, read: int = 0, times: int = 6) -> None:
    """Create `times` successes, `read` of them with details, and record the resulting baseline."""
    for n in range(times):
        fields = {"root": migrated(3), "detail_synced_at": NOW} if n < read else {}
        success(stage, 10, **fields)
    baselines.update_baseline(stage.pk, NOW)


def flying(stage: Stage, minutes: float) -> Run:
    began = NOW - timedelta(minutes=minutes)
    return factories.run(stage, created_at=began, started_at=began)


def after(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def asked_for() -> int:
    return Run.objects.filter(status="success", next_detail_sync_at__isnull=False).count()
