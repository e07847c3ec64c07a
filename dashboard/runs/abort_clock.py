"""Since when an abort goes on, whoever asked for it. Pure.

The clock of a run's abort never begins anew, whoever presses again. An act of ours counts from its
press, or from what it found under way. One that was begun elsewhere counts from Northflank's word
(`Run.aborting_since`) and, where there is none, from when we first saw it: it is older then.
"""

from dataclasses import dataclass
from datetime import datetime

from dashboard.models import Abort, Run


@dataclass(frozen=True, slots=True)
class Since:
    """When an abort began, or that this was then or before."""

    at: datetime
    at_least: bool = False


def begun(run: Run) -> Since:
    """Return since when a run is aborting that Northflank calls so."""
    if run.aborting_since is not None and run.aborting_since <= run.status_since:
        return Since(run.aborting_since)
    return Since(run.status_since, at_least=True)


def since(run: Run, abort: Abort | None) -> Since | None:
    """Return since when a run's abort goes on; None: nobody aborts it. `abort` is its latest."""
    known = []
    if run.in_flight and run.status == "aborting":
        known.append(begun(run))
    if abort is not None and abort.settled_at is None:
        known.append(Since(abort.begun_at or abort.requested_at))
    return min(known, key=lambda one: one.at, default=None)
