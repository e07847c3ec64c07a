"""Dismissing a run that Northflank knows no more before it had concluded: nobody says how it ended.

Whoever may abort there may dismiss it, and undo that. It is kept who did, and when.
"""

import structlog
from django.contrib.auth.models import User
from django.db import transaction

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Rights
from dashboard.db import threads as db_threads
from dashboard.models import ChangeCounter, Dismissal, Looking, Run
from dashboard.models.runs import touch

log = structlog.get_logger(__name__)


class NotAllowed(Exception):
    """The person may not; the message says why."""


class NothingToDismiss(Exception):
    """Northflank knows the run, or it has concluded."""


def can_be_dismissed(run: Run) -> bool:
    """Say whether a run is gone and still in flight."""
    return run.in_flight and run.gone_at is not None


def dismiss(run: Run, user: User, rights: Rights | None = None) -> None:
    """Take a run that is gone out of what is in flight; once is enough.

    `rights` are less than the account's where a token narrows them. Raises NotAllowed and
    NothingToDismiss.
    """
    _check(run, user, rights)
    now, name = db_threads.now(), user.get_username()
    with transaction.atomic():
        ChangeCounter.reserve(0)  # writers take turns: what is read from here on is so
        shown = Run.objects.without_detail().get(pk=run.pk)
        if shown.dismissals.open().exists():
            return
        if not can_be_dismissed(shown):
            raise NothingToDismiss
        Dismissal.objects.create(run=shown, user=user, username=name, at=now)
        touch([run.pk], in_flight=False, next_read_at=None)
        Looking.objects.all().over([run.pk], now)
    log.info("run.dismissed", run=run.run_id, by=name)


def undo(run: Run, user: User, rights: Rights | None = None) -> None:
    """Put a run that was dismissed back, and have it asked for; raises NotAllowed."""
    _check(run, user, rights)
    now, name = db_threads.now(), user.get_username()
    with transaction.atomic():
        ChangeCounter.reserve(0)
        if not run.dismissals.open().update(undone_at=now, undone_by=name):
            return
        touch([run.pk], in_flight=True, next_read_at=now)
    log.info("run.dismissal_undone", run=run.run_id, by=name)


def _check(run: Run, user: User, rights: Rights | None) -> None:
    verdict = (rights or permissions.rights(user)).may_abort(run.stage)
    if not verdict.allowed:
        log.warning("run.dismissal_not_allowed", run=run.run_id, by=user.get_username())
        raise NotAllowed(verdict.why_not)
