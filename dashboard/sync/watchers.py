"""What looking does: it raises interest, which the sync turns into attention within the budget."""

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db.models import F, Q

from dashboard.models import Run, Stage
from dashboard.sync import baselines

# A thousand people who watch one page write one row each time this has passed.
_UPDATE_INTERVAL = timedelta(seconds=10)


def watch_stage(stage: Stage, now: datetime) -> None:
    """Note that somebody looks at a stage's runs."""
    if stage.last_viewed_at is None or now - stage.last_viewed_at > _UPDATE_INTERVAL:
        Stage.objects.filter(pk=stage.pk).update(last_viewed_at=now)


def keep_alive(stages: Collection[int], runs: Collection[int], now: datetime) -> None:
    """Note that somebody still looks at these stages and runs, by their keys."""
    is_outdated = Q(last_viewed_at=None) | Q(last_viewed_at__lt=now - _UPDATE_INTERVAL)
    for stage in Stage.objects.filter(is_outdated, pk__in=stages):
        watch_stage(stage, now)
    for run in Run.objects.filter(is_outdated, pk__in=runs).without_detail():
        watch_run(run, now)


def watch_run(run: Run, now: datetime) -> None:
    """Note that somebody looks at a run; its steps are read if they are missing or may be old."""
    if run.last_viewed_at is not None and now - run.last_viewed_at <= _UPDATE_INTERVAL:
        return
    needs_detail = Run.objects.filter(
        Q(in_flight=True) | Q(detail_synced_at=None) | Q(detail_synced_at__lt=F("concluded_at")),
        Q(next_detail_sync_at=None) | baselines.SCHEDULED_DETAIL,
        pk=run.pk, removed_at=None,
    )  # fmt: skip
    needs_detail.update(next_detail_sync_at=now)
    Run.objects.filter(pk=run.pk).update(last_viewed_at=now)
