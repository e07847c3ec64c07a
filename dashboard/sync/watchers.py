"""Record what has viewers; the sync reads it more often, within the budget.

Not during a database outage: pages are shown then, too.
"""

import contextlib
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from django.db import DatabaseError
from django.db.models import F, Q

from dashboard.db import health as db_health
from dashboard.db import notify as db_notify
from dashboard.models import Pipeline, Run, Stage
from dashboard.models.catalog import Watched
from dashboard.sync import baselines, left_running, plan, schedule

# However many viewers a page has, they write its row at most once in this time.
_UPDATE_INTERVAL = timedelta(seconds=10)


def watch_stage(stage: Stage, now: datetime) -> None:
    """Record that a stage's runs are being viewed; one without a release flow is checked for it."""
    if not _is_due(stage, now):
        return
    checked_before = now - schedule.WATCHED_FLOW_INTERVAL
    read_before = now - timedelta(seconds=plan.WATCHED_INTERVAL)
    row = Stage.objects.filter(pk=stage.pk, failures=0)
    is_wanted = Q(pk__in=[])
    if not schedule.is_watched(stage.last_viewed_at, now):
        is_wanted |= Q(synced_at__lt=read_before)
    if stage.has_flow is False:  # it would be read after hours
        is_wanted |= Q(flow_synced_at__lt=checked_before)
    with _outage_recorded():
        is_due = row.filter(is_wanted, next_sync_at__gt=now).update(next_sync_at=now)
        _record_view(stage, now)
        if is_due:
            db_notify.send(db_notify.Topic.READS)


def watch_pipeline(pipeline: Pipeline, now: datetime) -> None:
    """Record that the stages of a pipeline are being viewed, together."""
    if _is_due(pipeline, now):
        with _outage_recorded():
            _record_view(pipeline, now)


def keep_alive(page: str, keys: Collection[int], now: datetime) -> None:
    """Record that pages of this name, of these keys, are still being viewed."""
    is_outdated = Q(last_viewed_at=None) | Q(last_viewed_at__lt=now - _UPDATE_INTERVAL)
    match page:
        case "stage":
            for stage in Stage.objects.filter(is_outdated, pk__in=keys):
                watch_stage(stage, now)
        case "pipeline":
            for pipeline in Pipeline.objects.filter(is_outdated, pk__in=keys):
                watch_pipeline(pipeline, now)
        case "run":
            for run in Run.objects.filter(is_outdated, pk__in=keys).without_detail():
                watch_run(run, now)


def watch_run(run: Run, now: datetime) -> None:
    """Record that a run is being viewed; make its detail due if missing or possibly outdated."""
    if not _is_due(run, now):
        return
    is_unscheduled = Q(next_detail_sync_at=None) | baselines.SCHEDULED_DETAIL
    if not schedule.is_watched(run.last_viewed_at, now):
        # Planned for later, or in the backoff of a run that nobody views.
        is_later = Q(next_detail_sync_at__gt=now)
        is_unscheduled |= is_later & (Q(in_flight=False, failures__gt=0) | Q(failures=0))
    # One with failures that is not scheduled was given up: see missing_runs.back_off.
    needs_detail = Run.objects.filter(
        Q(in_flight=True)
        | Q(detail_synced_at=None)
        | Q(detail_synced_at__lt=F("concluded_at"))
        | Q(failures__gt=0)
        | Q(status="failure", concluded=True, failed_step=None, steps_removed_at=None),
        is_unscheduled,
        pk=run.pk, removed_at=None,
    )  # fmt: skip
    with _outage_recorded():
        is_due = needs_detail.update(next_detail_sync_at=now)
        left_running.watch(run, now)
        _record_view(run, now)
        if is_due:
            db_notify.send(db_notify.Topic.READS)


def _is_due(row: Watched, now: datetime) -> bool:
    if row.last_viewed_at is not None and now - row.last_viewed_at <= _UPDATE_INTERVAL:
        return False
    return db_health.down_since() is None


def _record_view(row: Watched, now: datetime) -> None:
    views = {"last_viewed_at": now}
    if not schedule.is_watched(row.last_viewed_at, now):
        views["watched_since"] = now
    type(row)._default_manager.filter(pk=row.pk).update(**views)


@contextlib.contextmanager
def _outage_recorded() -> Iterator[None]:
    """Record the outage in which a write fails, and let the caller go on; raise other errors.

    Never inside a transaction: on PostgreSQL a failed statement ends it.
    """
    # With SQLite's wait for locks: the sync holds them for a moment, and without this write an open
    # run may stay without its detail. Nobody waits again: the first timeout counts as an outage.
    try:
        yield
    except DatabaseError as error:
        if not db_health.record_failure(error):
            raise
