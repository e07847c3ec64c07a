"""Mark runs as removed that Northflank no longer has, or that are no longer tracked."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from dashboard.db.threads import now
from dashboard.models import Abort, Acknowledgement, ChangeCounter, Run, Stage
from dashboard.models.runs import RunQuerySet, mark_changed
from dashboard.sync import mirror

# A removed run in flight is read again after the time since its removal, within these bounds.
REMOVED_RETRY_MIN, REMOVED_RETRY_MAX = timedelta(minutes=10), timedelta(hours=6)


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

    A run that had not concluded stays in flight until it is dismissed, and is read again at growing
    intervals.
    """
    seq = mirror.take_seq(request_seq)
    row = Run.objects.filter(pk=run_pk)
    _mark_removed(row, requested_at, seq)
    in_flight = row.in_flight().filter(request_seq__lte=seq)
    removed_since = in_flight.values_list("removed_at", flat=True).first()
    if removed_since is not None:
        interval = min(max(REMOVED_RETRY_MIN, requested_at - removed_since), REMOVED_RETRY_MAX)
        row.update(next_detail_sync_at=requested_at + interval, failures=0)
    else:  # concluded or dismissed: no further reads
        row.filter(in_flight=False).update(next_detail_sync_at=None, failures=0)


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
