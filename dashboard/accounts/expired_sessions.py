"""Delete sessions that have expired."""

from datetime import datetime

from django.db import DEFAULT_DB_ALIAS

from dashboard.models import Session

INTERVAL = 600.0  # seconds between two looks for expired sessions
BATCH_SIZE = 500


def delete_expired_sessions(at: datetime) -> None:
    """Delete the sessions that had expired by `at`; strangers can begin any number."""
    expired = Session.objects.filter(expire_date__lt=at).values_list("pk", flat=True)
    while keys := list(expired[:BATCH_SIZE]):
        # Without loading the rows and notifying of each, as `delete` would.
        Session.objects.filter(pk__in=keys)._raw_delete(DEFAULT_DB_ALIAS)
