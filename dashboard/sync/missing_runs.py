"""Runs that a list or a read lacks: read them again, or mark them as removed; failing runs, too."""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

import structlog
from django.db import transaction
from django.db.models import BigIntegerField, Q, TextField
from django.db.models.functions import Least

from dashboard.db.prepared import Keys, Parameter, PreparedQuery, PreparedUpdate, parameters
from dashboard.db.threads import now
from dashboard.models import (
    Abort,
    Acknowledgement,
    ChangeCounter,
    Dismissal,
    RequestCounter,
    Run,
    Stage,
)
from dashboard.models.catalog import StageQuerySet
from dashboard.models.runs import RunQuerySet, mark_changed
from dashboard.northflank import NorthflankError
from dashboard.northflank import Run as ApiRun
from dashboard.sync import mirror, schedule

log = structlog.get_logger(__name__)

# After which the detail of a run that has ended is given up, as long as nobody views it: one that
# can never be read would take its share of all reads for as long as the run is kept. They take a
# quarter of an hour or more, so that a short failure has no run given up.
MAX_FAILURES = 16

_STAGE = Parameter("stage", BigIntegerField())
_RUN_IDS = Keys("run_ids", TextField())


def schedule_reread(
    stages: StageQuerySet, moment: datetime, *, with_dismissed: bool = True
) -> None:
    """Make due the details of all runs of these stages that are not known to have concluded."""
    unconcluded = Run.objects.filter(stage__in=stages, concluded=False, next_detail_sync_at=None)
    may_go_on = unconcluded.filter(Q(in_flight=True) | Q(removed_at__isnull=False))
    if not with_dismissed:
        may_go_on = may_go_on.exclude(pk__in=Dismissal.objects.open().values("run"))
    # Each gets all its tries again.
    may_go_on.update(next_detail_sync_at=moment, failures=Least("failures", 1))


def back_off(run_pk: int, error: NorthflankError, moment: datetime) -> None:
    """Schedule the retry of a run that could not be read, after a backoff that grows each time.

    A run that has ended, or was dismissed, is given up after MAX_FAILURES; one that somebody views
    is not.
    """
    row = Run.objects.filter(pk=run_pk)
    run_id, failures_before, has_concluded, in_flight, last_viewed_at = row.values_list(
        "run_id", "failures", "concluded", "in_flight", "last_viewed_at"
    ).get()
    failures = failures_before + 1
    is_given_up = failures > MAX_FAILURES and not in_flight
    is_given_up &= not schedule.is_watched(last_viewed_at, moment)
    backoff = schedule.failure_backoff(failures, error.cause)
    next_detail_sync_at = None if is_given_up else moment + backoff
    if failures_before:
        # Not if it has ended meanwhile: its final detail has all its tries.
        row.filter(failures=failures_before, concluded=has_concluded).update(
            failures=failures, next_detail_sync_at=next_detail_sync_at
        )
    else:  # its page says so from now on
        with transaction.atomic():
            mark_changed([run_pk], failures=failures, next_detail_sync_at=next_detail_sync_at)
        log.warning("run.read_failed", run=run_id, cause=error.cause, message=str(error))


def schedule_unlisted(
    stage_id: int,
    api_runs: Iterable[ApiRun],
    *,
    requested_at: datetime,
    request_seq: int | None = None,
) -> None:
    """Make due the details of tracked runs that are missing from their stage's list."""
    _unlisted_update().execute(
        stage=stage_id,
        run_ids=[run.id for run in api_runs],
        seq=RequestCounter.take_next() if request_seq is None else request_seq,
        next_detail_sync_at=requested_at,
    )


def count_unlisted(stage_id: int, api_runs: Iterable[ApiRun], request_seq: int) -> int:
    """Return the number of details that `schedule_unlisted` would make due."""
    run_ids = [run.id for run in api_runs]
    return len(_unlisted_query().fetch(stage=stage_id, run_ids=run_ids, seq=request_seq))


@cache
def _unlisted_query() -> PreparedQuery:
    return PreparedQuery(_unlisted().order_by().values_list("pk"))


@cache
def _unlisted_update() -> PreparedUpdate:
    return PreparedUpdate(_unlisted(), **parameters(Run, ["next_detail_sync_at"]))


def _unlisted() -> RunQuerySet:
    seq = Parameter("seq", BigIntegerField())
    unlisted = Run.objects.tracked().filter(stage=_STAGE, request_seq__lt=seq)
    return unlisted.exclude(run_id__in=_RUN_IDS).filter(next_detail_sync_at=None)


# --- Removed runs ---------------------------------------------------------------------------------

# A run that is removed or not tracked may have ended: neither it nor its abort is overdue, and it
# waits for no approval.
_NOT_OVERDUE: dict[str, Any] = {
    "overdue_severity": 0,
    "overdue_reason": "",
    "approval_since": None,
    "abort_severity": 0,
}


def mark_removed(run_pk: int, *, requested_at: datetime, request_seq: int | None = None) -> None:
    """Mark a run as removed from Northflank; its last known data is kept.

    A run that had not concluded stays in flight until it is dismissed, or a list has it again.
    """
    seq = mirror.take_seq(request_seq)
    row = Run.objects.filter(pk=run_pk)
    _mark_removed(row, requested_at, seq)
    row.filter(request_seq__lte=seq).update(next_detail_sync_at=None, failures=0)


def mark_orphaned(requested_at: datetime, request_seq: int | None = None) -> None:
    """Mark runs in flight as removed if Northflank no longer lists their pipeline."""
    orphaned = Run.objects.in_flight().exclude(stage__in=Stage.objects.listed())
    _mark_removed(orphaned, requested_at, mirror.take_seq(request_seq))


def _mark_removed(runs: RunQuerySet, requested_at: datetime, seq: int) -> None:
    with transaction.atomic():
        ChangeCounter.lock()  # no list comes between
        older = list(runs.filter(request_seq__lte=seq).values_list("pk", "removed_at"))
        newly_removed = [pk for pk, removed_at in older if removed_at is None]
        mark_changed(
            newly_removed,
            removed_at=requested_at,
            request_seq=seq,
            next_detail_sync_at=None,
            **_NOT_OVERDUE,
        )
        _close_open_records([pk for pk, _ in older])


def _close_open_records(run_keys: Iterable[int]) -> None:
    not_in_flight = Run.objects.filter(pk__in=run_keys, in_flight=False).values_list(
        "pk", flat=True
    )
    Acknowledgement.objects.all().end_for_runs(list(not_in_flight), now())
    for run_pk in run_keys:
        Abort.objects.all().settle_for_removed_run(run_pk, now())


def stop_tracking(runs: RunQuerySet, moment: datetime) -> None:
    """Stop tracking these runs, since the settings no longer include their project."""
    with transaction.atomic():
        run_keys = list(runs.in_flight().values_list("pk", flat=True))
        mark_changed(
            run_keys, removed_at=moment, in_flight=False, next_detail_sync_at=None, **_NOT_OVERDUE
        )
        _close_open_records(run_keys)
