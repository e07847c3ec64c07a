"""Following aborts to their end: those of dead processes, the doubtful and the overdue."""

import asyncio
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import Exists, F, OuterRef
from django.utils.translation import gettext as _

from dashboard.aborts import bulk as bulk_abort
from dashboard.aborts import resend_policy
from dashboard.aborts import severity as abort_severity
from dashboard.aborts.request import LEASE
from dashboard.aborts.resend import due, repeat
from dashboard.aborts.send import LOOK_BEFORE, look, review, send, too_late, unknown, withdrawn
from dashboard.aborts.severity import Level
from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.db.threads import in_database
from dashboard.models import Abort, AbortBatch, Run
from dashboard.models.aborts import AbortState, What
from dashboard.models.runs import ChangeCounter, touch
from dashboard.northflank import NorthflankError
from dashboard.runs import abort_clock
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

AT_ONCE = 8  # looks under way at the same time

_looks: set[asyncio.Task[None]] = set()


async def keep_looking(to: Connection, patience: float = 1.0) -> None:
    """Look after open aborts, and go on with that beside the next look where it takes longer.

    A chore of the sync's worker: what waits for a slow Northflank holds up no other abort for more
    than `patience` seconds.
    """
    if len(_looks) >= AT_ONCE:
        return
    task = asyncio.create_task(look_after_open_aborts(to))
    _looks.add(task)
    done, _ = await asyncio.wait({task}, timeout=patience)
    if done:
        _looks.discard(task)
        await task  # raises what it raised
    else:
        task.add_done_callback(_looked)


async def let_go() -> None:
    """Leave all that is under way to the next process, or to another."""
    under_way = list(_looks)
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    await bulk_abort.let_go()


def _looked(task: asyncio.Task[None]) -> None:
    _looks.discard(task)
    error = None if task.cancelled() else task.exception()
    if error is not None and not db_health.is_outage(error):
        log.error("abort.look_failed", exc_info=error)


async def look_after_open_aborts(to: Connection) -> None:
    """Adopt aborts whose process died, send those again that did not arrive, tell the overdue.

    Cheap when nothing is open. Any number of these may be under way, here and elsewhere.
    """
    adoptable = await in_database(_adoptable, db_threads.now())
    # Side by side: one after the other they would outlive their leases while Northflank is slow.
    await asyncio.gather(*(_adopt(to, abort) for abort in adoptable))
    await bulk_abort.adopt_batches(to)
    await in_database(review, db_threads.now())
    doubtful = await in_database(due, db_threads.now())
    await asyncio.gather(*(repeat(to, abort) for abort in doubtful))
    await in_database(_escalate, db_threads.now())


def orphan_all() -> None:
    """Have whatever is not sent or not answered adopted at once.

    For the start of a process that has the database to itself: nobody else can be at it.
    """
    left = [AbortState.REQUESTED, AbortState.UNKNOWN]
    Abort.objects.open().filter(state__in=left).update(claimed_at=F("requested_at") - LEASE)
    AbortBatch.objects.open().update(claimed_at=F("requested_at") - bulk_abort.LEASE)


def hand_over(abort: Abort) -> None:
    """Have a worker send an abort at once, for a process that wrote it down and can't send it."""
    unsent = Abort.objects.open().filter(pk=abort.pk, state=AbortState.REQUESTED, sent_at=None)
    unsent.update(claimed_at=F("requested_at") - LEASE)


async def _adopt(to: Connection, abort: Abort) -> None:
    log.warning("abort.adopted", run=abort.run.run_id, by=abort.username)
    if abort.sent_at is not None:
        # Whatever becomes of the reading: nobody waits for an answer any more.
        await in_database(abort.note, What.ADOPTED, db_threads.now())
        why = _("The process that sent it ended before the answer.")
        await in_database(unknown, abort, why)
    elif await in_database(withdrawn, abort):
        return
    try:
        run = await look(to, abort.run, LOOK_BEFORE)
    except NorthflankError as error:
        log.info("abort.adoption_waits", run=abort.run.run_id, cause=error.cause)
        return
    if abort.sent_at is not None:
        return  # the review that follows looks at what was read
    await in_database(abort.note, What.ADOPTED, db_threads.now())
    if run is None or not run.in_flight:
        await in_database(too_late, abort, run)
    else:
        await send(to, abort.pk)


def _adoptable(now: datetime) -> list[Abort]:
    stranded = Abort.objects.stranded(now, LEASE).select_related("run__stage__pipeline__project")
    return [
        abort
        for abort in stranded
        if Abort.objects.filter(pk=abort.pk, claimed_at=abort.claimed_at).update(claimed_at=now)
    ]


def _escalate(now: datetime) -> None:
    """Tell each abort that has become overdue once: its run gets a level, and a new version."""
    ours = Abort.objects.open().filter(run__in_flight=True, run__gone_at=None).select_related("run")
    acts = {abort.run_id: abort for abort in ours.defer("run__steps", "run__raw")}
    # Aborts that were asked for elsewhere take their time too.
    aborting = Run.objects.followed().filter(status="aborting").without_detail()
    runs = {run.pk: run for run in aborting} | {pk: abort.run for pk, abort in acts.items()}
    known = {pk: abort_clock.since(run, acts.get(pk)) for pk, run in runs.items()}
    amber = now - abort_severity.after(Level.AMBER)
    since = {pk: one.at for pk, one in known.items() if one is not None and one.at <= amber}
    lost = _lost(now)
    for run in Run.objects.filter(pk__in={*since, *lost}).only("run_id", "aborting_level"):
        level = Level.RED if run.pk in lost else abort_severity.level(since[run.pk], now)
        if level <= run.aborting_level:
            continue
        with transaction.atomic():
            ChangeCounter.reserve(0)  # of several workers one tells it
            told = not Run.objects.filter(pk=run.pk, aborting_level__lt=level).exists()
            touch([] if told else [run.pk], aborting_level=level)
        if not told:
            log.warning("abort.overdue", run=run.run_id, tone=level.name.lower())
    # One that goes on without an abort, having been taken for aborting, is overdue no more.
    over = Run.objects.in_flight().filter(aborting_level__gt=Level.CALM)
    over = over.exclude(pk__in={*since, *lost})
    for run_pk in over.values_list("pk", flat=True):
        with transaction.atomic():
            touch([run_pk], aborting_level=Level.CALM)


def _lost(now: datetime) -> set[int]:
    """Return the runs that go on though somebody wanted to abort them, and nothing more is sent."""
    running = Run.objects.in_flight().exclude(status="aborting")
    doubtful = Abort.objects.filter(state=AbortState.UNKNOWN, run__in=running)
    later = Abort.objects.filter(run=OuterRef("run"), pk__gt=OuterRef("pk"))
    given_up = doubtful.exclude(settled_at=None).exclude(Exists(later))
    return set(given_up.values_list("run_id", flat=True)) | {
        abort.run_id  # of those Northflank says nothing
        for abort in doubtful.filter(settled_at=None)
        if resend_policy.is_over(0, abort.first_sent_at, now)
    }
