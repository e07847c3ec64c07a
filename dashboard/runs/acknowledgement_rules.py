"""How long a run is open: to be acknowledged, or under an acknowledgement. Pure."""

from datetime import datetime, timedelta

from dashboard.models import Run

# How long a failed run may be acknowledged at all.
MAX_FAILURE_AGE = timedelta(days=1)


def can_be_acknowledged(run: Run, now: datetime) -> bool:
    """Return whether a run is overdue or waits for approval, or failed within MAX_FAILURE_AGE."""
    if run.in_flight:
        return bool(run.overdue_severity or run.abort_severity or run.approval_since)
    return _failed_recently(run, now)


def is_open(run: Run, now: datetime) -> bool:
    """Return whether a run is in flight, or failed within MAX_FAILURE_AGE."""
    return run.in_flight or _failed_recently(run, now)


def expires_at(run: Run) -> datetime | None:
    """Return when a failed run's acknowledgements end by time alone; None for other runs."""
    return run.ended_at + MAX_FAILURE_AGE if run.has_failed else None


def is_resolved(run: Run) -> bool:
    """Return whether a run has ended, and not in failure."""
    return not run.in_flight and run.status != "failure"


def _failed_recently(run: Run, now: datetime) -> bool:
    expiry = expires_at(run)
    return expiry is not None and now < expiry
