"""Categories of aborts: how each stands, by its state and the status of its run. Pure.

Each abort belongs to exactly one, also as a condition on the database.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import F, Q
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from dashboard.aborts.messages import status_changed_after_end
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import AbortState

# Aborts that settled with a known run status that has changed since. Must agree with
# `status_changed_after_end`, or an abort's category and message contradict each other.
_ENDED_WITH_OUTCOME = Q(state=AbortState.CONCLUDED) | Q(state=AbortState.TOO_LATE) & ~Q(outcome="")
_RUN_DIFFERS = ~Q(run__status=F("outcome")) | Q(run__concluded=False)
_CHANGED_AFTER_END = _ENDED_WITH_OUTCOME & Q(run__removed_at=None, work=None) & _RUN_DIFFERS


@dataclass(frozen=True, slots=True)
class Category:
    """The condition on the aborts of a category, and how they are shown."""

    condition: Q
    label: str | Promise
    tone: str
    glyph: str


def _ended(*states: AbortState, **fields: Any) -> Q:
    return Q(state__in=states, **fields) & ~_CHANGED_AFTER_END


_FINAL_STATES = AbortState.CONCLUDED, AbortState.TOO_LATE
CATEGORIES = {
    "under_way": Category(Q(settled_at=None), gettext_lazy("Under way"), "warning", "hourglass"),
    "aborted": Category(
        _ended(AbortState.CONCLUDED, outcome="aborted", work=None),
        gettext_lazy("Aborted"),
        "neutral",
        "stop",
    ),
    "status_changed": Category(
        _CHANGED_AFTER_END, gettext_lazy("Status changed"), "bad", "warning"
    ),
    # What a run has left running has no status that means aborted.
    "ended": Category(
        _ended(AbortState.CONCLUDED, work__isnull=False) & ~Q(outcome=""),
        gettext_lazy("Ended"),
        "neutral",
        "stop",
    ),
    "not_stopped": Category(
        _ended(AbortState.CONCLUDED, work=None) & ~Q(outcome__in=["aborted", ""]),
        gettext_lazy("Not stopped"),
        "bad",
        "cross",
    ),
    "too_late": Category(
        _ended(AbortState.TOO_LATE) & ~Q(outcome=""), gettext_lazy("Too late"), "info", "clock"
    ),
    "removed": Category(
        _ended(*_FINAL_STATES, outcome=""),
        gettext_lazy("Removed from Northflank"),
        "warning",
        "question",
    ),
    "refused": Category(Q(state=AbortState.REFUSED), gettext_lazy("Refused"), "bad", "lock"),
    "not_sent": Category(Q(state=AbortState.NOT_SENT), gettext_lazy("Not sent"), "bad", "skip"),
    "not_arrived": Category(
        Q(state=AbortState.UNKNOWN, settled_at__isnull=False),
        gettext_lazy("Not confirmed"),
        "bad",
        "question",
    ),
    "aborted_again": Category(
        Q(state=AbortState.ABORTED_AGAIN), gettext_lazy("Aborted again"), "neutral", "retry"
    ),
}

OTHERWISE = "otherwise"
# All that are over, but neither stopped what they aborted nor gave way to another abort.
ENDED_OTHERWISE = Q(settled_at__isnull=False) & ~(
    CATEGORIES["aborted"].condition
    | CATEGORIES["ended"].condition
    | CATEGORIES["aborted_again"].condition
)


def category(abort: Abort, run: Run) -> str:
    """Return the category of an abort of `run`, or of what it left: a key of CATEGORIES."""
    if abort.settled_at is None:
        return "under_way"
    if status_changed_after_end(abort, run):
        return "status_changed"
    if abort.state in _FINAL_STATES and not abort.outcome:
        return "removed"
    if abort.state == AbortState.CONCLUDED and abort.work_id is not None:
        return "ended"
    if abort.state == AbortState.CONCLUDED:
        return "aborted" if abort.outcome == "aborted" else "not_stopped"
    return "not_arrived" if abort.state == AbortState.UNKNOWN else str(abort.state)
