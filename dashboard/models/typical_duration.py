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

MOST = 20  # the latest successes that are looked at
LEAST = 5  # fewer say nothing


class Overdue(IntEnum):
    """How far something takes longer than usual."""

    NO = 0
    YES = 1  # longer than it should
    VERY = 2  # so long that something is wrong


@dataclass(frozen=True, slots=True)
class Usual:
    """How long something usually takes."""

    median: timedelta
    p95: timedelta

    @property
    def late_after(self) -> timedelta:
        """How long it may take before it is overdue."""
        factor: float = settings.OVERDUE_FACTOR
        # Nobody is told of less than this, however short the usual is.
        floor = timedelta(seconds=settings.OVERDUE_FLOOR)
        return max(self.p95, factor * self.median, self.median + floor)

    @property
    def very_late_after(self) -> timedelta:
        """How long it may take before it is overdue again."""
        factor: float = settings.OVERDUE_AGAIN_FACTOR
        again = factor * self.median
        if again > self.late_after:
            return again
        # The first is far above the usual already: the second keeps the same distance from it.
        once: float = settings.OVERDUE_FACTOR
        return max(factor / once, 1.0) * self.late_after

    def judge(self, took: timedelta) -> Overdue:
        """Say how far something that has taken so long is overdue."""
        if took > self.very_late_after:
            return Overdue.VERY
        return Overdue.YES if took > self.late_after else Overdue.NO

    def since(self, began: datetime) -> tuple[datetime, datetime]:
        """Return when something that began then becomes overdue, and when again."""
        return began + self.late_after, began + self.very_late_after


def usual(took: Iterable[timedelta]) -> Usual | None:
    """Return what is usual of the latest durations (newest first); None where there are too few."""
    known = sorted([one.total_seconds() for one in took if one >= timedelta()][:MOST])
    if len(known) < LEAST:
        return None
    p95 = known[ceil(0.95 * len(known)) - 1]
    return Usual(timedelta(seconds=median(known)), timedelta(seconds=p95))
