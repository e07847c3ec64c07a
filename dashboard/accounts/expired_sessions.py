"""Delete sessions that have expired, and record their end in the access log."""

from collections.abc import Iterable
from datetime import datetime
from time import monotonic

from django.db import DEFAULT_DB_ALIAS, transaction

from dashboard.accounts import access_log, sessions
from dashboard.db import threads as db_threads
from dashboard.models import Session
from dashboard.models.accounts.access import AccessKind

INTERVAL = 600.0  # seconds
BATCH_SIZE = 100
ANONYMOUS_BATCH_SIZE = 500


class ExpiredSessions:
    """A chore of the sync worker: ends expired sessions every INTERVAL seconds."""

    def __init__(self) -> None:
        self._next_run = 0.0

    async def __call__(self, _: object) -> None:
        if monotonic() < self._next_run:
            return
        self._next_run = monotonic() + INTERVAL
        await db_threads.run_in_db_thread(end_expired_sessions, db_threads.now())


def end_expired_sessions(at: datetime) -> None:
    """Delete the sessions that had expired by `at`; record those of accounts."""
    expired = Session.objects.filter(expire_date__lt=at).order_by("expire_date")
    # Strangers can begin any number: of attempts to sign in, or to read a message.
    anonymous = expired.filter(user=None).values_list("pk", flat=True)
    while keys := list(anonymous[:ANONYMOUS_BATCH_SIZE]):
        # Without loading the rows and notifying of each, as `delete` would.
        Session.objects.filter(pk__in=keys)._raw_delete(DEFAULT_DB_ALIAS)
    while batch := list(expired.exclude(user=None).select_related("user")[:BATCH_SIZE]):
        _end(batch, at)


def _end(batch: Iterable[Session], at: datetime) -> None:
    for session in batch:
        with transaction.atomic():
            deleted, _ = Session.objects.filter(pk=session.pk, expire_date__lt=at).delete()
            if not deleted or session.user is None:
                continue  # another process was faster
            if not sessions.is_of_password(session, session.user):
                continue  # it ended when the password changed, which is recorded
            is_idle = session.expire_date < session.ends_at
            access_log.record(
                AccessKind.SESSION_ENDED,
                at,
                user=session.user,
                detail="Expired: not used." if is_idle else "Expired: maximum age.",
            )
