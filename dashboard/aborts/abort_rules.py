"""What can be requested for a run, and by whom: an abort, another one, a bulk abort.

`abort` is the run's latest abort made here, or None. Each request is checked again (request.py).
"""

from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import Q
from django.utils.translation import gettext as _

from dashboard.aborts import severity
from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.models import Abort, Run, Stage
from dashboard.models.severity import Severity
from dashboard.texts.rich_text import Message


def is_aborting(run: Run, abort: Abort | None) -> bool:
    """Return whether an abort of a run in flight is under way, whoever requested it."""
    return run.status == "aborting" or (abort is not None and abort.settled_at is None)


def not_aborting_condition() -> Q:
    """Return the condition on runs in flight that `is_aborting` is false."""
    return ~Q(status="aborting") & ~Q(pk__in=Abort.objects.open().values("run"))


def is_selectable(run: Run, abort: Abort | None) -> bool:
    """Return whether a bulk abort can include a run: in flight, and no abort under way."""
    return run.in_flight and not is_aborting(run, abort)


def is_abort_again_offered(run: Run, abort: Abort | None) -> bool:
    """Return whether a run's row offers to abort again while an abort is under way.

    By the severity that is stored with the run, as the row shows it; whether a request may is
    decided by the time as well (`can_abort_again`).
    """
    if not run.in_flight or run.abort_severity < Severity.CRITICAL:
        return False
    if abort is not None and abort.settled_at is None:
        return abort.is_awaiting_northflank
    return run.status == "aborting"


def can_abort_again(abort: Abort, now: datetime) -> bool:
    """Return whether an open abort is so long overdue (critical) that a new one makes sense."""
    if not abort.is_awaiting_northflank:
        return False
    current = max(abort.target.abort_severity, severity.classify(abort.requested_at, now))
    return current >= Severity.CRITICAL


def is_abortable(run: Run, abort: Abort | None) -> bool:
    """Return whether an abort of a run can be requested.

    Also while one is under way, if the run can be aborted again, or if that abort may not have
    arrived: the request then makes it due to be resent or, if Northflank refused that, replaces it.
    """
    if not run.in_flight:
        return False
    if not is_aborting(run, abort):
        return True
    is_unconfirmed = abort is not None and abort.is_unconfirmed and run.status != "aborting"
    return is_unconfirmed or is_abort_again_offered(run, abort)


def denied_reason(user: User | None, stage: Stage, own: Permissions | None = None) -> Message | str:
    """Return why a user, None if deleted, may not abort runs of `stage` now; empty if they may.

    `own` are the user's permissions, where a token narrows them or they have been read.
    """
    if user is None:
        return _("The requesting account was deleted.")
    if not user.is_active:
        return _("The requesting account is inactive.")
    return (own or permissions.for_user(user)).abort_permission(stage).denied_reason
