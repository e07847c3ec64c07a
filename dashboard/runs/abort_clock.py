"""Since when an abort goes on, whoever asked for it. Pure.

The clock of a run's abort never begins anew, whoever presses again. An act of ours counts from its
press, or from what it found under way. One that was begun elsewhere counts from Northflank's word
(`Run.aborting_since`) and, where there is none, from when we first saw it: it is older then.
"""

from dataclasses import dataclass
from datetime import datetime

from dashboard.models import Abort, Run


@dataclass(frozen=True, slots=True)
class AbortStart:
    """When an abort began, or that this was then or before."""

    at: datetime
    is_approximate: bool = False


def northflank_start(run: Run) -> AbortStart:
    """Return since when a run is aborting that Northflank calls so."""
    if run.aborting_since is not None and run.aborting_since <= run.status_since:
        return AbortStart(run.aborting_since)
    return AbortStart(run.status_since, is_approximate=True)


def start(run: Run, abort: Abort | None) -> AbortStart | None:
    """Return since when a run's abort goes on; None: nobody aborts it. `abort` is its latest."""
    starts = []
    if run.in_flight and run.status == "aborting":
        starts.append(northflank_start(run))
    if abort is not None and abort.settled_at is None:
        starts.append(AbortStart(abort.already_aborting_since or abort.requested_at))
    return min(starts, key=lambda start: start.at, default=None)
