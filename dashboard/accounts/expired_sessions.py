"""Delete sessions that have expired, and record their end in the access log."""

from datetime import datetime
from time import monotonic

from django.db import transaction

from dashboard.accounts import access_log
from dashboard.db import threads as db_threads
from dashboard.models import Session
from dashboard.models.accounts.access import AccessKind

INTERVAL = 600.0  # seconds
BATCH_SIZE = 100


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
    """Delete sessions that had expired by `at`; record those of accounts, up to BATCH_SIZE."""
    expired = Session.objects.filter(expire_date__lt=at)
    # Strangers can begin any number: of attempts to sign in, or to read a message.
    expired.filter(user=None).delete()
    of_accounts = expired.exclude(user=None).select_related("user")
    for session in of_accounts.order_by("expire_date")[:BATCH_SIZE]:
        with transaction.atomic():
            deleted, _ = Session.objects.filter(pk=session.pk, expire_date__lt=at).delete()
            if not deleted or session.user is None:
                continue  # another process was faster
            is_idle = session.expire_date < session.ends_at
            access_log.record(
                AccessKind.SESSION_ENDED,
                at,
                user=session.user,
                detail="Expired: not used." if is_idle else "Expired: maximum age.",
            )
