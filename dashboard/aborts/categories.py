"""Categories of aborts: how each stands, by its state and the status of its run. Pure.

Each abort belongs to exactly one, also as a condition on the database.
"""

from django.db.models import F, Q

from dashboard.aborts.messages import status_changed_after_end
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import AbortState

# Aborts that settled with a known run status that has changed since. Must agree with
# `status_changed_after_end`, or an abort's category and message contradict each other.
_ENDED_WITH_OUTCOME = Q(state=AbortState.CONCLUDED) | Q(state=AbortState.TOO_LATE) & ~Q(outcome="")
_RUN_DIFFERS = ~Q(run__status=F("outcome")) | Q(run__concluded=False)
_CHANGED_AFTER_END = _ENDED_WITH_OUTCOME & Q(run__removed_at=None) & _RUN_DIFFERS

# The condition on aborts of each category.
CONDITIONS = {
    "under_way": Q(settled_at=None),
    "aborted": Q(state=AbortState.CONCLUDED, outcome="aborted") & ~_CHANGED_AFTER_END,
    "status_changed": _CHANGED_AFTER_END,
    "not_stopped": (
        Q(state=AbortState.CONCLUDED) & ~Q(outcome__in=["aborted", ""]) & ~_CHANGED_AFTER_END
    ),
    "too_late": Q(state=AbortState.TOO_LATE) & ~Q(outcome="") & ~_CHANGED_AFTER_END,
    "removed": (
        Q(state__in=[AbortState.CONCLUDED, AbortState.TOO_LATE], outcome="") & ~_CHANGED_AFTER_END
    ),
    "refused": Q(state=AbortState.REFUSED),
    "not_sent": Q(state=AbortState.NOT_SENT),
    "not_arrived": Q(state=AbortState.UNKNOWN, settled_at__isnull=False),
    "retried": Q(state=AbortState.RETRIED),
}


def category(abort: Abort, run: Run) -> str:
    """Return the category of an abort of `run`: a key of CONDITIONS."""
    if abort.settled_at is None:
        return "under_way"
    if status_changed_after_end(abort, run):
        return "status_changed"
    if abort.state == AbortState.CONCLUDED:
        return by_outcome(abort.outcome)
    if abort.state == AbortState.TOO_LATE and not abort.outcome:
        return "removed"
    return "not_arrived" if abort.state == AbortState.UNKNOWN else str(abort.state)


def by_outcome(outcome: str) -> str:
    """Return the category of an abort whose run has concluded with a status; empty: removed."""
    if outcome == "aborted":
        return "aborted"
    return "not_stopped" if outcome else "removed"
