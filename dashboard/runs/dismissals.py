"""Dismissing a run that Northflank knows no more before it had concluded: nobody says how it ended.

Whoever may abort there may dismiss it, and undo that. It is kept who did, and when.
"""

import structlog
from django.contrib.auth.models import User
from django.db import transaction

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Acknowledgement, ChangeCounter, Dismissal, Run
from dashboard.models.runs import mark_changed

log = structlog.get_logger(__name__)


class NotAllowed(Exception):
    """The person may not; the message says why."""


class NothingToDismiss(Exception):
    """Northflank knows the run, or it has concluded."""


def is_dismissible(run: Run) -> bool:
    """Say whether a run is gone and still in flight."""
    return run.in_flight and run.removed_at is not None


def dismiss(run: Run, user: User, user_permissions: Permissions | None = None) -> None:
    """Take a run that is gone out of what is in flight; once is enough.

    `rights` are less than the account's where a token narrows them. Raises NotAllowed and
    NothingToDismiss.
    """
    _check_permission(run, user, user_permissions)
    now, username = db_threads.now(), user.get_username()
    with transaction.atomic():
        ChangeCounter.reserve(0)  # writers take turns: what is read from here on is so
        current = Run.objects.without_detail().get(pk=run.pk)
        if current.dismissals.open().exists():
            return
        if not is_dismissible(current):
            raise NothingToDismiss
        Dismissal.objects.create(run=current, user=user, username=username, dismissed_at=now)
        mark_changed([run.pk], in_flight=False, next_detail_sync_at=None)
        Acknowledgement.objects.all().end_for_runs([run.pk], now)
    log.info("run.dismissed", run=run.run_id, by=username)


def restore(run: Run, user: User, user_permissions: Permissions | None = None) -> None:
    """Put a run that was dismissed back, and have it asked for; raises NotAllowed."""
    _check_permission(run, user, user_permissions)
    now, username = db_threads.now(), user.get_username()
    with transaction.atomic():
        ChangeCounter.reserve(0)
        if not run.dismissals.open().update(restored_at=now, restored_by=username):
            return
        mark_changed([run.pk], in_flight=True, next_detail_sync_at=now)
    log.info("run.restored", run=run.run_id, by=username)


def _check_permission(run: Run, user: User, user_permissions: Permissions | None) -> None:
    permission = (user_permissions or permissions.for_user(user)).abort_permission(run.stage)
    if not permission.allowed:
        log.warning("run.dismissal_denied", run=run.run_id, by=user.get_username())
        raise NotAllowed(permission.denied_reason)
