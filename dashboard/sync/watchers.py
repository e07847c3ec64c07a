"""Record which stages and runs have viewers; the sync reads those more often, within the budget."""

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db.models import F, Q

from dashboard.models import Run, Stage
from dashboard.sync import baselines

# However many viewers a page has, they write its row at most once in this time.
_UPDATE_INTERVAL = timedelta(seconds=10)


def watch_stage(stage: Stage, now: datetime) -> None:
    """Record that a stage's runs are being viewed."""
    if stage.last_viewed_at is None or now - stage.last_viewed_at > _UPDATE_INTERVAL:
        Stage.objects.filter(pk=stage.pk).update(last_viewed_at=now)


def keep_alive(stages: Collection[int], runs: Collection[int], now: datetime) -> None:
    """Record that these stages and runs, given by key, are still being viewed."""
    is_outdated = Q(last_viewed_at=None) | Q(last_viewed_at__lt=now - _UPDATE_INTERVAL)
    for stage in Stage.objects.filter(is_outdated, pk__in=stages):
        watch_stage(stage, now)
    for run in Run.objects.filter(is_outdated, pk__in=runs).without_detail():
        watch_run(run, now)


def watch_run(run: Run, now: datetime) -> None:
    """Record that a run is being viewed; make its detail due if missing or possibly outdated."""
    if run.last_viewed_at is not None and now - run.last_viewed_at <= _UPDATE_INTERVAL:
        return
    needs_detail = Run.objects.filter(
        Q(in_flight=True) | Q(detail_synced_at=None) | Q(detail_synced_at__lt=F("concluded_at")),
        Q(next_detail_sync_at=None) | baselines.SCHEDULED_DETAIL,
        pk=run.pk, removed_at=None,
    )  # fmt: skip
    needs_detail.update(next_detail_sync_at=now)
    Run.objects.filter(pk=run.pk).update(last_viewed_at=now)
