"""Typical durations of runs, steps and waits, and when something is overdue. No I/O.

Only successes count: failed or aborted runs do not show how long the work takes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from statistics import median

from django.conf import settings

from dashboard.models.severity import Severity

MAX_SAMPLES = 20  # only the latest successes are used
MIN_SAMPLES = 5  # fewer give no estimate
# A smaller excess over the median is not overdue, however short the median is.
MIN_EXCESS = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class TypicalDuration:
    """Median and 95th percentile of how long something takes."""

    median: timedelta
    p95: timedelta

    @property
    def warning_after(self) -> timedelta:
        """Elapsed time after which something is overdue."""
        factor: float = settings.OVERDUE_FACTOR
        return max(self.p95, factor * self.median, self.median + MIN_EXCESS)

    @property
    def critical_after(self) -> timedelta:
        """Elapsed time after which something is critical."""
        critical_factor: float = settings.OVERDUE_CRITICAL_FACTOR
        critical = critical_factor * self.median
        if critical > self.warning_after:
            return critical
        # warning_after is beyond that already: keep the ratio of the two factors instead.
        warning_factor: float = settings.OVERDUE_FACTOR
        return max(critical_factor / warning_factor, 1.0) * self.warning_after

    def classify(self, elapsed: timedelta) -> Severity:
        """Return the severity of an elapsed time."""
        if elapsed > self.critical_after:
            return Severity.CRITICAL
        return Severity.WARNING if elapsed > self.warning_after else Severity.OK

    def deadlines(self, started_at: datetime) -> tuple[datetime, datetime]:
        """Return when something started at `started_at` becomes a warning, and when critical."""
        return started_at + self.warning_after, started_at + self.critical_after


def estimate(durations: Iterable[timedelta]) -> TypicalDuration | None:
    """Return the typical duration of the latest `durations` (newest first); None if too few.

    Negative durations are ignored.
    """
    samples = sorted(
        [duration.total_seconds() for duration in durations if duration >= timedelta()][
            :MAX_SAMPLES
        ]
    )
    if len(samples) < MIN_SAMPLES:
        return None
    middle = median(samples)
    # One that was stuck for long before it succeeded does not show what is usual.
    limit = max(settings.OVERDUE_CRITICAL_FACTOR * middle, middle + MIN_EXCESS.total_seconds())
    usual = [sample for sample in samples if sample <= limit]
    p95 = max(usual[ceil(0.95 * len(usual)) - 1], middle)
    return TypicalDuration(timedelta(seconds=middle), timedelta(seconds=p95))
