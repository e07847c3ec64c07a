"""How long an abort may take before it is a warning, and before someone has to act. Pure.

Northflank does not document how long aborting lasts, and has no way to force it.
"""

from datetime import datetime, timedelta

from django.conf import settings

from dashboard.models.severity import Severity


def threshold(severity: Severity) -> timedelta:
    """Return how long after its start an abort reaches a severity."""
    seconds = {
        Severity.OK: 0,
        Severity.WARNING: settings.ABORT_WARN_AFTER,
        Severity.CRITICAL: settings.ABORT_CRITICAL_AFTER,
    }
    return timedelta(seconds=seconds[severity])


def classify(started_at: datetime, now: datetime) -> Severity:
    """Return the severity of an abort that started at `started_at`."""
    return max(
        severity
        for severity in Severity
        if now - started_at >= threshold(severity) or severity is Severity.OK
    )
