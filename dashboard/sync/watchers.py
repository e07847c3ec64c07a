"""What looking does: it raises interest, which the sync turns into attention within the budget."""

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db.models import F, Q

from dashboard.models import Run, Stage
from dashboard.sync import baselines

# A thousand people who watch one page write one row each time this has passed.
_AGAIN_AFTER = timedelta(seconds=10)


def in_stage(stage: Stage, now: datetime) -> None:
    """Note that somebody looks at a stage's runs."""
    if stage.watched_at is None or now - stage.watched_at > _AGAIN_AFTER:
        Stage.objects.filter(pk=stage.pk).update(watched_at=now)


def goes_on(stages: Collection[int], runs: Collection[int], now: datetime) -> None:
    """Note that somebody still looks at these stages and runs, by their keys."""
    again = Q(watched_at=None) | Q(watched_at__lt=now - _AGAIN_AFTER)
    for stage in Stage.objects.filter(again, pk__in=stages):
        in_stage(stage, now)
    for run in Run.objects.filter(again, pk__in=runs).without_detail():
        in_run(run, now)


def in_run(run: Run, now: datetime) -> None:
    """Note that somebody looks at a run; its steps are read if they are missing or may be old."""
    if run.watched_at is not None and now - run.watched_at <= _AGAIN_AFTER:
        return
    wanting = Run.objects.filter(
        Q(in_flight=True) | Q(detail_seen_at=None) | Q(detail_seen_at__lt=F("concluded_at")),
        Q(next_read_at=None) | baselines.BOOKED,
        pk=run.pk, gone_at=None,
    )  # fmt: skip
    wanting.update(next_read_at=now)
    Run.objects.filter(pk=run.pk).update(watched_at=now)
