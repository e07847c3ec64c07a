"""An abort in one line of text: how it stands, who requested it, and since when it is under way."""

from dataclasses import dataclass

from dashboard.aborts import messages as abort_messages
from dashboard.aborts.messages import AbortMessage
from dashboard.models import Abort, Run
from dashboard.runs import abort_clock
from dashboard.runs.abort_clock import AbortStart


@dataclass(frozen=True, slots=True)
class AbortLine:
    """How an abort stands."""

    message: AbortMessage
    abort: Abort | None  # None: not by the latest abort made here
    start: AbortStart | None  # None: not under way


def latest(run: Run, abort: Abort | None) -> AbortLine | None:
    """Return the line of a run's latest abort, wherever it was requested; None: there is none.

    `abort` is the latest that was made here.
    """
    start = abort_clock.start(run, abort)
    if abort_messages.is_external(abort, run) and start is not None:
        return AbortLine(abort_messages.describe_external(run, abort), None, start)
    return of_abort(run, abort) if abort is not None else None


def of_abort(run: Run, abort: Abort) -> AbortLine:
    """Return the line of an abort that was made here."""
    start = None
    if abort.settled_at is None:
        is_of_run = abort.work_id is None
        start = abort_clock.start(run, abort) if is_of_run else AbortStart(abort.requested_at)
    return AbortLine(abort_messages.describe(abort, run), abort, start)
