"""Delete sessions that have expired, and record their end in the access log."""

from datetime import datetime
from time import monotonic

from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction

from dashboard.accounts import access_log
from dashboard.db import threads as db_threads
from dashboard.models.access import AccessKind

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
    """Delete up to BATCH_SIZE sessions that had expired by `at`; record those of an account."""
    for session in Session.objects.filter(expire_date__lt=at).order_by("expire_date")[:BATCH_SIZE]:
        with transaction.atomic():
            deleted, _ = Session.objects.filter(pk=session.pk, expire_date__lt=at).delete()
            user_pk = session.get_decoded().get(SESSION_KEY)
            if not deleted or user_pk is None:
                continue  # another process was faster, or nobody was signed in
            access_log.record(
                AccessKind.SESSION_ENDED,
                at,
                user=User.objects.filter(pk=user_pk).first(),
                detail="Expired.",
            )
