"""Following aborts to their end: those of dead processes, the unanswered and the overdue."""

import asyncio
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _

from dashboard import database, escalation
from dashboard.aborting.many import adopt_batches
from dashboard.aborting.pressing import LEASE
from dashboard.aborting.sending import review, send, too_late, unknown, withdrawn
from dashboard.database import in_database
from dashboard.escalation import Level
from dashboard.models import Abort, AbortBatch, Run
from dashboard.models.aborts import AbortState, What
from dashboard.models.runs import ChangeCounter, touch
from dashboard.northflank import NorthflankError
from dashboard.sync.worker import read_run
from dashboard.upstream import Connection

log = structlog.get_logger(__name__)


async def look_after_open_aborts(to: Connection) -> None:
    """Adopt aborts whose process died, settle those whose answer never came, and tell the overdue.

    A chore of the sync's worker: cheap when nothing is open.
    """
    adoptable = await in_database(_adoptable, database.now())
    # Side by side: one after the other they would outlive their leases while Northflank is slow.
    await asyncio.gather(*(_adopt(to, abort) for abort in adoptable))
    await adopt_batches(to)
    await in_database(review, database.now())
    await in_database(_escalate, database.now())


def orphan_all() -> None:
    """Have whatever is not sent or not answered adopted at once.

    For the start of a process that has the database to itself: nobody else can be at it.
    """
    Abort.objects.open().filter(state=AbortState.REQUESTED).update(
        claimed_at=F("requested_at") - LEASE
    )
    AbortBatch.objects.open().update(claimed_at=F("requested_at") - LEASE)


def hand_over(abort: Abort) -> None:
    """Have a worker send an abort at once, for a process that wrote it down and can't send it."""
    unsent = Abort.objects.open().filter(pk=abort.pk, state=AbortState.REQUESTED, sent_at=None)
    unsent.update(claimed_at=F("requested_at") - LEASE)


async def _adopt(to: Connection, abort: Abort) -> None:
    log.warning("abort.adopted", run=abort.run.run_id, by=abort.username)
    if abort.sent_at is not None:
        # Whatever becomes of the reading: nobody waits for an answer any more.
        await in_database(abort.note, What.ADOPTED, database.now())
        why = _("The process that sent it ended before the answer.")
        await in_database(unknown, abort, why)
    elif await in_database(withdrawn, abort):
        return
    try:
        run = await read_run(to, abort.run)
    except NorthflankError as error:
        log.info("abort.adoption_waits", run=abort.run.run_id, cause=error.cause)
        return
    if abort.sent_at is not None:
        return  # the review that follows looks at what was read
    await in_database(abort.note, What.ADOPTED, database.now())
    if run is None or not run.in_flight:
        await in_database(too_late, abort, run)
    else:
        await send(to, abort.pk)


def _adoptable(now: datetime) -> list[Abort]:
    stranded = Abort.objects.stranded(now - LEASE).select_related("run__stage__pipeline__project")
    return [
        abort
        for abort in stranded
        if Abort.objects.filter(pk=abort.pk, claimed_at=abort.claimed_at).update(claimed_at=now)
    ]


def _escalate(now: datetime) -> None:
    """Tell each abort that has become overdue once: its run gets a level, and a new version."""
    amber = now - escalation.after(Level.AMBER)
    ours = Abort.objects.open().filter(requested_at__lte=amber, run__in_flight=True)
    since: dict[int, datetime] = dict(ours.values_list("run_id", "requested_at"))
    # Aborts that were asked for elsewhere take their time too.
    others = Run.objects.in_flight().filter(status="aborting", status_since__lte=amber)
    strangers = others.exclude(aborts__in=Abort.objects.open())
    since |= dict(strangers.values_list("pk", "status_since"))
    for run in Run.objects.filter(pk__in=since).only("run_id", "aborting_level"):
        level = escalation.level(since[run.pk], now)
        if level <= run.aborting_level:
            continue
        with transaction.atomic():
            ChangeCounter.reserve(0)  # of several workers one tells it
            told = not Run.objects.filter(pk=run.pk, aborting_level__lt=level).exists()
            touch([] if told else [run.pk], aborting_level=level)
        if not told:
            log.warning("abort.overdue", run=run.run_id, tone=level.name.lower())
    # One that goes on without an abort, having been taken for aborting, is overdue no more.
    over = Run.objects.in_flight().filter(aborting_level__gt=Level.CALM).exclude(pk__in=since)
    for run_pk in over.values_list("pk", flat=True):
        with transaction.atomic():
            touch([run_pk], aborting_level=Level.CALM)
