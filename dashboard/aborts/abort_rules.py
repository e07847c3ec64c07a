"""What can be requested for a run: an abort, a retry, a bulk abort. Pure.

`abort` is the run's latest abort made here, or None. Who may request it is another question
(accounts/permissions.py), and each request is checked again (request.py).
"""

from datetime import datetime

from django.db.models import Q

from dashboard.aborts import severity
from dashboard.models import Abort, Run
from dashboard.models.severity import Severity
from dashboard.runs import statuses

# Known statuses of runs that a bulk abort includes.
SELECTABLE_STATUSES = [
    status
    for status in statuses.RUN_STATUSES
    if status not in {"aborting", "aborted", "success", "failure", "skipped"}
]


def is_aborting(run: Run, abort: Abort | None) -> bool:
    """Return whether an abort of a run in flight is under way, whoever requested it."""
    return run.status == "aborting" or (abort is not None and abort.settled_at is None)


def not_aborting_condition() -> Q:
    """Return the condition on runs in flight that `is_aborting` is false."""
    return ~Q(status="aborting") & ~Q(pk__in=Abort.objects.open().values("run"))


def is_selectable(run: Run, abort: Abort | None) -> bool:
    """Return whether a bulk abort can include a run: in flight, and no abort under way."""
    return run.in_flight and not is_aborting(run, abort)


def is_retry_offered(run: Run, abort: Abort | None) -> bool:
    """Return whether a run's row offers to retry the abort under way.

    By the severity that is stored with the run, as the row shows it; whether a request may is
    decided by the time as well (`can_retry`).
    """
    if not run.in_flight or run.abort_severity < Severity.CRITICAL:
        return False
    if abort is not None and abort.settled_at is None:
        return abort.is_awaiting_northflank
    return run.status == "aborting"


def can_retry(abort: Abort, now: datetime) -> bool:
    """Return whether an open abort is so long overdue (critical) that a new one makes sense."""
    if not abort.is_awaiting_northflank:
        return False
    current = max(abort.run.abort_severity, severity.classify(abort.requested_at, now))
    return current >= Severity.CRITICAL


def is_abortable(run: Run, abort: Abort | None) -> bool:
    """Return whether an abort of a run can be requested.

    Also while one is under way, if that can be retried, or if it may not have arrived: the request
    then makes it due to be resent or, if Northflank refused that, replaces it.
    """
    if not run.in_flight:
        return False
    if not is_aborting(run, abort):
        return True
    is_unconfirmed = abort is not None and abort.is_unconfirmed and run.status != "aborting"
    return is_unconfirmed or is_retry_offered(run, abort)
