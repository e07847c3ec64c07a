"""Read what aborts may have left running: the job runs and builds that steps of aborted runs name.

Each is read once the abort of its run is under way, and once the run has ended; then while somebody
looks at the run, or an abort of the job run or build itself is open.
"""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from dashboard.db.prepared import update_row
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import Abort, ChangeCounter, Run, Work
from dashboard.models.runs import mark_changed
from dashboard.models.works import WorkQuerySet
from dashboard.northflank import NorthflankError, WorkRef
from dashboard.runs import steps
from dashboard.runs.works import named_works
from dashboard.sync import schedule, works
from dashboard.upstream.connection import Connection

MAX_WORKS = 20  # of a run: those of its latest steps
MAX_AGE = timedelta(days=1)  # since the end of a run; what it left then is over
# Between two reads, of all together that somebody looks at: 120 requests an hour.
WATCHED_INTERVAL = timedelta(seconds=30)
RETRY_INTERVAL = timedelta(minutes=1)  # after a read that failed
_ABORT_STATUSES = ("aborting", "aborted")
_KEY = ("run", "kind", "owner_id", "work_id")


def was_aborted(run: Run) -> bool:
    """Return whether an abort of a run was accepted, wherever it was requested."""
    return run.status in _ABORT_STATUSES or Abort.objects.accepted().filter(run=run).exists()


def schedule_named(run: Run) -> None:
    """Have read what the steps of a run name, if its abort is under way or over, and not since.

    `run` is as just read, with its steps.
    """
    moment = now()
    if (run.ended_at or moment) < moment - MAX_AGE or not was_aborted(run):
        return
    named = named_works(steps.decode(run.steps))[-MAX_WORKS:]
    if not named:
        return
    known = set(run.works.filter(is_probable=False).values_list(*_KEY[1:]))
    new = [
        Work(
            run=run,
            step_key=step_key,
            kind=ref.kind,
            owner_kind=ref.owner_kind,
            owner_id=ref.owner_id,
            work_id=ref.id or "",
            name=ref.id or "",
            concluded=False,
            synced_at=moment,
            next_sync_at=moment,
        )
        for step_key, ref in named
        if (ref.kind, ref.owner_id, ref.id) not in known
    ]
    with transaction.atomic():
        if new:
            mark_changed([run.pk])
            # Found by its time before, it is now known to be the step's.
            fields = ["step_key", "is_probable", "next_sync_at"]
            Work.objects.bulk_create(
                new, update_conflicts=True, unique_fields=_KEY, update_fields=fields
            )
        _unscheduled(run).filter(synced_at__lt=run.status_since).update(next_sync_at=moment)


def watch(run: Run, moment: datetime) -> None:
    """Have read again what was left running by the abort of a run at which somebody looks."""
    if run.in_flight and run.status not in _ABORT_STATUSES:
        return  # most views: they cost nothing more
    accepted = Abort.objects.accepted().filter(run=OuterRef("run"))
    of_aborted = _unscheduled(run).filter(Q(run__status__in=_ABORT_STATUSES) | Exists(accepted))
    of_aborted.filter(synced_at__lt=moment - WATCHED_INTERVAL).update(next_sync_at=moment)


def _unscheduled(run: Run) -> WorkQuerySet:
    return Work.objects.running().filter(run=run, is_probable=False, next_sync_at=None)


def schedule_next(work: Work, *, has_failed: bool) -> None:
    """Schedule the next read of a job run or build that was read, if it needs one."""
    moment = now()
    row = Work.objects.select_related("run").get(pk=work.pk)
    interval = _interval(row, moment) if row.in_flight else None
    if interval is not None and has_failed:
        interval = max(interval, RETRY_INTERVAL)
    # A time changed meanwhile requests a read newer than ours: keep it.
    unchanged = Work.objects.filter(pk=row.pk, next_sync_at=work.next_sync_at)
    unchanged.update(next_sync_at=moment + interval if interval is not None else None)


def _interval(work: Work, moment: datetime) -> timedelta | None:
    """Return the time until the next read; None: nobody waits for it."""
    open_aborts = Abort.every.open().exclude(work=None)
    if abort := open_aborts.filter(work=work).first():
        return schedule.aborting_interval(moment - abort.requested_at, open_aborts.count())
    if schedule.is_watched(work.run.last_viewed_at, moment):
        return WATCHED_INTERVAL * Work.objects.exclude(next_sync_at=None).count()
    return None


def ref(work: Work) -> WorkRef:
    """Return what names a stored job run or build at Northflank."""
    return WorkRef(work.kind, work.owner_kind, work.owner_id, work.work_id)


async def read_again(connection: Connection, run: Run, work: Work) -> Work | None:
    """Read a stored job run or build of a run, and return its row; None if it is gone.

    Raises NorthflankError; the row then says why.
    """
    try:
        found = await works.read_work(connection, run, work.step_key, ref(work))
    except NorthflankError as error:
        await run_in_db_thread(_update, work, error=str(error))
        raise
    if found is None:
        await run_in_db_thread(_update, work, error="", removed_at=now())
    return found


def _update(work: Work, **fields: Any) -> None:
    """Store what a read without an answer has shown; open pages show what changed."""
    with transaction.atomic():
        ChangeCounter.lock()
        work.refresh_from_db(fields=["error", "removed_at"])
        if work.removed_at is None and (work.error != fields["error"] or len(fields) > 1):
            update_row(Work, work.pk, **fields)
            mark_changed([work.run_id])
