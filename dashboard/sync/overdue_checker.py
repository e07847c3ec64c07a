"""Marks the runs that have become overdue: each gets its level once, and a new version with it.

Time alone makes a run overdue, so nothing else would have open pages hear of it.
"""

from datetime import datetime
from time import monotonic

import msgspec
import structlog
from django.db import DatabaseError, InterfaceError, transaction

from dashboard.db import threads as db_threads
from dashboard.db.threads import in_database
from dashboard.models import ChangeCounter, Run, StageTiming
from dashboard.models.runs import touch
from dashboard.models.typical_duration import LEAST, Overdue
from dashboard.northflank import Node
from dashboard.runs import overdue
from dashboard.sync import baselines, schedule
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

EVERY = 5.0  # seconds; each look decodes the steps of all runs in flight


class OverdueMarks:
    """A chore of the sync's worker: judges all runs in flight every few seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    async def __call__(self, _: Connection) -> None:
        if monotonic() < self._next:
            return
        self._next = monotonic() + EVERY
        await in_database(mark, db_threads.now())


def _is_watched(run: Run, now: datetime) -> bool:
    return run.watched_at is not None and now - run.watched_at < schedule.WATCHED_FOR


def _waits_since_before(run: Run) -> bool:
    """Say whether people may have kept a run waiting for longer than is known without its steps."""
    only_so = run.status == "approval_wait" and run.status_since <= run.first_seen_at
    unread = run.detail_seen_at is None and run.next_read_at is None
    return only_so and unread and run.gone_at is None


def mark(now: datetime) -> None:
    """Judge all runs in flight by the time `now`."""
    flying = list(
        Run.objects.followed().select_related("stage").defer("raw", "description").order_by("pk")
    )
    stages = {run.stage_id for run in flying}
    timings = {one.stage_id: one for one in StageTiming.objects.filter(stage__in=stages)}
    for run in flying:
        try:
            _mark(run, timings.get(run.stage_id), now)
        except (DatabaseError, InterfaceError):
            raise
        except (
            Exception
        ):  # a defect in judging one run must neither stop the others nor pass unseen
            log.exception("overdue.defect", run=run.run_id)


def _mark(run: Run, known: StageTiming | None, now: datetime) -> None:
    if _is_watched(run, now) and known and known.details < LEAST <= known.successes:
        # Somebody will ask which step takes longer than usual, and waits.
        baselines.ask_for_details(run.stage_id, now)
    if _waits_since_before(run):
        Run.objects.filter(pk=run.pk, next_read_at=None).update(next_read_at=now)
    root = msgspec.convert(run.steps, Node) if run.steps is not None else None
    found = overdue.finding(run, root, known, now)
    level, why = (found.level, str(found.why)) if found else (Overdue.NO, "")
    if (level, why) == (run.overdue, run.overdue_why):
        return
    with transaction.atomic():
        ChangeCounter.reserve(0)  # the mirror waits: a run that has ended keeps no mark
        if not Run.objects.in_flight().filter(pk=run.pk).exists():
            return
        touch([run.pk], overdue=level, overdue_why=why)
        if level > run.overdue and run.next_read_at is None and run.gone_at is None:
            # One request says at which step it is.
            Run.objects.filter(pk=run.pk).update(next_read_at=now)
    if level > run.overdue:
        log.warning("run.overdue", run=run.run_id, why=why, very=level is Overdue.VERY)
