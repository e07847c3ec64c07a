"""Which runs need somebody to look at them. Pure."""

from datetime import datetime, timedelta

from dashboard.models import Run

# So long a failure is news: it stands among what needs attention.
NEW_FAILURE_AGE = timedelta(minutes=15)
# So long it is worth looking at.
MAX_FAILURE_AGE = timedelta(days=1)


def needs_attention(run: Run, now: datetime) -> bool:
    """Say whether somebody should look at a run: it is overdue, or its abort is, or it failed."""
    if run.in_flight:
        return bool(run.overdue_severity or run.abort_severity)
    return _failed_recently(run, now)


def is_open(run: Run, now: datetime) -> bool:
    """Say whether there still is something to look at; a failure is, and for a while."""
    return run.in_flight or _failed_recently(run, now)


def is_resolved(run: Run) -> bool:
    """Say whether a run has ended in a way that leaves nothing to look at."""
    return not run.in_flight and run.status != "failure"


def ended_at(run: Run) -> datetime:
    """Return when a run ended; Northflank may leave it out."""
    return run.concluded_at or run.updated_at or run.created_at


def _failed_recently(run: Run, now: datetime) -> bool:
    has_failed = run.concluded and run.status == "failure"
    return has_failed and now - ended_at(run) < MAX_FAILURE_AGE
