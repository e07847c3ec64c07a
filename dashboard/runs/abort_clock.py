"""Since when a run is being aborted, whoever requested it. Pure.

The clock never restarts when another abort is requested. An abort made here counts from its
request, or from an earlier abort in progress (`Abort.already_aborting_since`). One made elsewhere
counts from `Run.aborting_since` or, if that is unknown, from when the status `aborting` was first
read (`Run.status_since`): it is then older than shown.
"""

from dataclasses import dataclass
from datetime import datetime

from dashboard.models import Abort, Run


@dataclass(frozen=True, slots=True)
class AbortStart:
    """When an abort started; if `is_approximate`, then or earlier."""

    at: datetime
    is_approximate: bool = False


def northflank_start(run: Run) -> AbortStart:
    """Return since when a run with the status `aborting` is being aborted."""
    if run.aborting_since is not None and run.aborting_since <= run.status_since:
        return AbortStart(run.aborting_since)
    return AbortStart(run.status_since, is_approximate=True)


def start(run: Run, abort: Abort | None) -> AbortStart | None:
    """Return since when a run is being aborted, or None; `abort` is its latest abort made here."""
    starts = []
    if run.in_flight and run.status == "aborting":
        starts.append(northflank_start(run))
    if abort is not None and abort.settled_at is None:
        # Sent before its request: by a clock that was set back.
        requested_at = min(abort.requested_at, abort.sent_at or abort.requested_at)
        starts.append(AbortStart(abort.already_aborting_since or requested_at))
    return min(starts, key=lambda start: start.at, default=None)
