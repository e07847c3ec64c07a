"""What is usual: how long runs, their steps and their waits take, and what is overdue. Pure.

Only successes count: what failed or was aborted says nothing of how long the work takes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from math import ceil
from statistics import median

from django.conf import settings

MAX_SAMPLES = 20  # the latest successes that are looked at
MIN_SAMPLES = 5  # fewer say nothing


class Severity(IntEnum):
    """How far something takes longer than usual."""

    OK = 0
    WARNING = 1  # longer than it should
    CRITICAL = 2  # so long that something is wrong


@dataclass(frozen=True, slots=True)
class TypicalDuration:
    """How long something usually takes."""

    median: timedelta
    p95: timedelta

    @property
    def warning_after(self) -> timedelta:
        """How long it may take before it is overdue."""
        factor: float = settings.OVERDUE_FACTOR
        # Nobody is told of less than this, however short the usual is.
        floor = timedelta(seconds=settings.OVERDUE_MIN_SECONDS)
        return max(self.p95, factor * self.median, self.median + floor)

    @property
    def critical_after(self) -> timedelta:
        """How long it may take before it is overdue again."""
        critical_factor: float = settings.OVERDUE_CRITICAL_FACTOR
        critical = critical_factor * self.median
        if critical > self.warning_after:
            return critical
        # The first is far above the usual already: the second keeps the same distance from it.
        warning_factor: float = settings.OVERDUE_FACTOR
        return max(critical_factor / warning_factor, 1.0) * self.warning_after

    def classify(self, elapsed: timedelta) -> Severity:
        """Say how far something that has taken so long is overdue."""
        if elapsed > self.critical_after:
            return Severity.CRITICAL
        return Severity.WARNING if elapsed > self.warning_after else Severity.OK

    def deadlines(self, started_at: datetime) -> tuple[datetime, datetime]:
        """Return when something that began then becomes overdue, and when again."""
        return started_at + self.warning_after, started_at + self.critical_after


def estimate(durations: Iterable[timedelta]) -> TypicalDuration | None:
    """Return what is usual of the latest durations (newest first); None where there are too few."""
    samples = sorted(
        [duration.total_seconds() for duration in durations if duration >= timedelta()][
            :MAX_SAMPLES
        ]
    )
    if len(samples) < MIN_SAMPLES:
        return None
    p95 = samples[ceil(0.95 * len(samples)) - 1]
    return TypicalDuration(timedelta(seconds=median(samples)), timedelta(seconds=p95))
