"""Delete sessions that have expired."""

from datetime import datetime
from time import monotonic

from django.db import DEFAULT_DB_ALIAS

from dashboard.db import threads as db_threads
from dashboard.models import Session

INTERVAL = 600.0  # seconds
BATCH_SIZE = 500


class ExpiredSessions:
    """A chore of the sync worker: deletes expired sessions every INTERVAL seconds."""

    def __init__(self) -> None:
        self._next_run = 0.0

    async def __call__(self, _: object) -> None:
        if monotonic() < self._next_run:
            return
        self._next_run = monotonic() + INTERVAL
        await db_threads.run_in_db_thread(delete_expired_sessions, db_threads.now())


def delete_expired_sessions(at: datetime) -> None:
    """Delete the sessions that had expired by `at`; strangers can begin any number."""
    expired = Session.objects.filter(expire_date__lt=at).values_list("pk", flat=True)
    while keys := list(expired[:BATCH_SIZE]):
        # Without loading the rows and notifying of each, as `delete` would.
        Session.objects.filter(pk__in=keys)._raw_delete(DEFAULT_DB_ALIAS)
