"""How long an abort may take before people should wonder, and before they should act. Pure.

Northflank says nothing of how long aborting lasts, and has no way to force it.
"""

from datetime import datetime, timedelta
from enum import IntEnum

from django.conf import settings


class Severity(IntEnum):
    """How far an abort is overdue."""

    OK = 0
    WARNING = 1  # longer than usual
    CRITICAL = 2  # something has to be done: there are next steps


def threshold(severity: Severity) -> timedelta:
    """Return for how long an abort has been asked for when it reaches a level."""
    seconds = {
        Severity.OK: 0,
        Severity.WARNING: settings.ABORT_WARN_AFTER,
        Severity.CRITICAL: settings.ABORT_CRITICAL_AFTER,
    }
    return timedelta(seconds=seconds[severity])


def classify(started_at: datetime, now: datetime) -> Severity:
    """Return how far an abort that was asked for at `since` is overdue."""
    return max(
        severity
        for severity in Severity
        if now - started_at >= threshold(severity) or severity is Severity.OK
    )
