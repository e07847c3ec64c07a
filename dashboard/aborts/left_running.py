"""What an abort has left running: which job runs and builds of a run's steps a page lists.

Only those that steps name by id: nothing else is known to be the run's.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Min, prefetch_related_objects
from django.utils.translation import gettext_lazy

from dashboard.aborts.abort_rules import can_abort_again
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run, Work
from dashboard.northflank import Node
from dashboard.runs import steps, waiting_for
from dashboard.runs.works import named_works
from dashboard.sync import left_running
from dashboard.sync.left_running import MAX_WORKS, was_aborted
from dashboard.texts.local_time import format_full
from dashboard.texts.rich_text import ExternalText, Message, MessageTable

_text = MessageTable(
    {
        "left": gettext_lazy("Left running by the abort: %(what)s (%(id)s), %(status)s"),
        "left_since": gettext_lazy("%(left)s, started %(time)s"),
        "left_ended": gettext_lazy("%(left)s, ended %(time)s"),
    }
)


@dataclass(frozen=True, slots=True)
class LeftWork:
    """A job run or build that was still running after the abort of its run."""

    work: Work
    aborts: list[Abort]  # of it, latest first

    @property
    def open_abort(self) -> Abort | None:
        """Its abort under way, if any."""
        latest = self.aborts[0] if self.aborts else None
        return latest if latest is not None and latest.settled_at is None else None

    @property
    def is_abortable(self) -> bool:
        """Whether its abort can be requested, or requested again."""
        abort = self.open_abort
        if not self.work.in_flight:
            return False
        return abort is None or abort.is_unconfirmed or self.is_abort_again_offered

    @property
    def is_abort_again_offered(self) -> bool:
        """Whether its abort under way takes so long that it can be requested again."""
        abort = self.open_abort
        return abort is not None and can_abort_again(abort, db_threads.now())


@dataclass(frozen=True, slots=True)
class LeftRunning:
    """What the abort of a run has left running, as last read."""

    works: list[LeftWork]
    is_being_read: bool  # some that the steps name were not read yet
    more_count: int  # those that the steps name and that are not read: there are too many


def load(run: Run, root: Node | None) -> LeftRunning | None:
    """Return what the abort of a run has left running; None if it was not aborted, or names none.

    `root` are its steps. What ended before the abort is left out.
    """
    named = named_works(root)
    if not named or not was_aborted(run):
        return None
    rows = list(run.works.filter(is_probable=False).order_by("-pk"))
    aborts = aborts_by_work(rows)
    since = _aborted_since(run)
    unread = [row for row in rows if row.in_flight and not row.status and not row.error]
    listed = [
        LeftWork(row, aborts.get(row.pk, []))
        for row in rows
        if row not in unread and (row.in_flight or row.pk in aborts or _ended_after(row, since))
    ]
    return LeftRunning(listed, bool(unread), max(len(named) - MAX_WORKS, 0))


def find(run: Run, work_id: str) -> LeftWork | None:
    """Return what has this id of what the abort of a run has left running."""
    left = load(run, steps.decode(run.steps))
    works = left.works if left is not None else []
    return next((found for found in works if found.work.work_id == work_id), None)


def dated_line(work: Work) -> Message:
    """Return what an abort has left running, as a line of a plain text."""
    what, status = (
        waiting_for.name(left_running.ref(work), work),
        ExternalText(work.status or "unknown"),
    )
    left = _text("left", what=what, id=ExternalText(work.work_id), status=status)
    if (ended_at := work.ended_at or work.removed_at) is not None:
        return _text("left_ended", left=left, time=format_full(ended_at))
    if work.started_at is None:
        return left
    return _text("left_since", left=left, time=format_full(work.started_at))


def aborts_by_work(works: list[Work]) -> dict[int, list[Abort]]:
    """Return the aborts of job runs and builds by their keys, latest first, with their events."""
    aborts = list(Abort.every.filter(work__in=works).with_target().order_by("-pk"))
    prefetch_related_objects(aborts, "events")
    found: dict[int, list[Abort]] = {}
    for abort in aborts:
        found.setdefault(abort.work_id or 0, []).append(abort)
    return found


def _aborted_since(run: Run) -> datetime:
    first: datetime | None = run.aborts.aggregate(at=Min("requested_at"))["at"]
    return min(first or run.status_since, run.aborting_since or run.status_since)


def _ended_after(work: Work, since: datetime) -> bool:
    return work.ended_at is not None and work.ended_at >= since
