"""Dismiss runs that Northflank removed before they concluded, so that their end is unknown.

Users who may abort a run may dismiss and restore it. Who did so, and when, is recorded.
"""

import structlog
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Acknowledgement, ChangeCounter, Dismissal, Run
from dashboard.models.runs import mark_changed
from dashboard.runs import removals

log = structlog.get_logger(__name__)


class NothingToDismiss(Exception):
    """Northflank still lists the run, or it has concluded."""


def is_dismissible(run: Run) -> bool:
    """Return whether a run is removed and still in flight."""
    return run.in_flight and run.removed_at is not None


def dismiss(run: Run, user: User, user_permissions: Permissions | None = None) -> None:
    """Dismiss a removed run, so that it is no longer in flight; idempotent.

    `user_permissions` default to the account's; a token may narrow them. Raise PermissionDenied or
    NothingToDismiss.
    """
    _check_permission(run, user, user_permissions)
    now, username = db_threads.now(), user.get_username()
    with transaction.atomic():
        ChangeCounter.lock()
        current = Run.objects.without_detail().get(pk=run.pk)
        if current.dismissals.open().exists():
            return
        if not is_dismissible(current):
            raise NothingToDismiss
        Dismissal.objects.create(run=current, user=user, username=username, dismissed_at=now)
        mark_changed([run.pk], in_flight=False, next_detail_sync_at=None)
        Acknowledgement.objects.all().end_for_runs([run.pk], now)
    log.info("run.dismissed", run=run.run_id, by=username)


def restore(run: Run, user: User, user_permissions: Permissions | None = None) -> bool:
    """Restore a dismissed run, and have it read next; return whether it was dismissed.

    Idempotent. Raise PermissionDenied, also while the run's project is not read.
    """
    _check_permission(run, user, user_permissions)
    if reason := removals.not_read_reason(run.stage.pipeline):
        raise PermissionDenied(str(reason))
    now, username = db_threads.now(), user.get_username()
    with transaction.atomic():
        ChangeCounter.lock()
        if not run.dismissals.open().update(restored_at=now, restored_by=username):
            return False
        mark_changed([run.pk], in_flight=True, next_detail_sync_at=now)
    log.info("run.restored", run=run.run_id, by=username)
    return True


def _check_permission(run: Run, user: User, user_permissions: Permissions | None) -> None:
    permission = (user_permissions or permissions.for_user(user)).abort_permission(run.stage)
    if not permission.allowed:
        log.warning("run.dismissal_denied", run=run.run_id, by=user.get_username())
        raise PermissionDenied(permission.denied_reason)
