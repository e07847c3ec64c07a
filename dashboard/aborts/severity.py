"""How long an abort may take before it is a warning, and before someone has to act. Pure.

Northflank does not document how long aborting lasts, and has no way to force it.
"""

from datetime import datetime, timedelta

from dashboard.models.severity import Severity

_THRESHOLDS = {
    Severity.OK: timedelta(),
    Severity.WARNING: timedelta(minutes=3),
    Severity.CRITICAL: timedelta(minutes=10),
}


def threshold(severity: Severity) -> timedelta:
    """Return how long after its start an abort reaches a severity."""
    return _THRESHOLDS[severity]


def classify(started_at: datetime, now: datetime) -> Severity:
    """Return the severity of an abort that started at `started_at`."""
    return max(
        severity
        for severity in Severity
        if now - started_at >= threshold(severity) or severity is Severity.OK
    )
