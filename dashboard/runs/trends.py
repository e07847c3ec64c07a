"""Trends: how runs ended week by week, and how long they took, from sums of days. Pure.

A run counts in the day of its end as some words: its outcome, a bucket for each of its durations
(“d34”), and why it was aborted (“by-stuck”). A day's sums are the number of each word. So durations
are known to about 5 %, and survive their runs.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property

from dashboard.models import Run
from dashboard.runs import abort_reasons, steps

OUTCOMES = ("success", "failure", "aborted", "skipped", "other")
REASON = "by-"
_GROWTH = 1.1  # a bucket is by so much longer than the one before


class Measure(StrEnum):
    """A duration of a run; the value begins its word."""

    DURATION = "d"  # of a success, waits for approval included
    QUEUEING = "q"  # from its creation to its start
    RECOVERY = "r"  # of a success: since the first failure after the success before
    APPROVAL = "p"  # waiting for people; known only if its steps were read after its end


@dataclass(frozen=True, slots=True)
class Typical:
    """Median and 95th percentile of `n` durations, each to about 5 %."""

    n: int
    median: timedelta
    p95: timedelta


@dataclass(frozen=True)
class Period:
    """The sums of the days from `first` to `last`, both included."""

    first: date
    last: date
    counts: Counter[str]

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """The number of runs by how they ended, in the order of OUTCOMES."""
        return {outcome: self.counts[outcome] for outcome in OUTCOMES}

    @property
    def runs(self) -> int:
        """How many runs ended."""
        return sum(self.outcomes.values())

    @property
    def failure_rate(self) -> float | None:
        """The share of failures among successes and failures; None without any."""
        decided = self.counts["success"] + self.counts["failure"]
        return self.counts["failure"] / decided if decided else None

    @property
    def abort_reasons(self) -> dict[str, int]:
        """The number of aborted runs by reason, a key of abort_reasons.LABELS."""
        reasons = {key: self.counts[REASON + key] for key in abort_reasons.LABELS}
        return {key: n for key, n in reasons.items() if n}

    def typical(self, measure: Measure) -> Typical | None:
        """Return what was typical; None if nothing was measured."""
        return self._typical.get(measure)

    @cached_property
    def _typical(self) -> dict[str, Typical]:
        buckets: dict[str, list[tuple[int, int]]] = {measure: [] for measure in Measure}
        for word, n in self.counts.items():
            if word[0] in buckets and word[1:].isdigit() and n > 0:
                buckets[word[0]].append((int(word[1:]), n))
        return {measure: _typical(sorted(found)) for measure, found in buckets.items() if found}


def by_week(
    days: Iterable[tuple[date, Mapping[str, int]]], first: date, last: date
) -> list[Period]:
    """Return the weeks, from Monday on, from `first` to `last`; those at both ends may be shorter.

    `days` are sums; a day may have several.
    """
    weeks = []
    monday = first - timedelta(days=first.weekday())
    while monday <= last:
        sunday = monday + timedelta(days=6)
        weeks.append(Period(max(monday, first), min(sunday, last), Counter()))
        monday += timedelta(days=7)
    for day, counts in days:
        week = (day - first + timedelta(days=first.weekday())).days // 7
        weeks[week].counts.update(counts)
    return weeks


def total(weeks: Collection[Period]) -> Period:
    """Return all weeks as one period."""
    counts: Counter[str] = Counter()
    for week in weeks:
        counts.update(week.counts)
    return Period(min(week.first for week in weeks), max(week.last for week in weeks), counts)


def words(run: Run, counted: Collection[str], reason: str) -> list[str]:
    """Return what a run counts as, the day first; nothing unless it has concluded.

    `counted` is what it was counted as: what this run does not tell remains. `reason` is that of
    its abort, a key of abort_reasons.LABELS.
    """
    if not run.concluded:
        return []
    kept = {word[0]: word for word in counted if word[0] in {Measure.APPROVAL, Measure.RECOVERY}}
    ended_at = run.concluded_at or run.updated_at or run.created_at  # as Run.ended_at
    found = [str(ended_at.astimezone(UTC).date())]
    found.append(run.status if run.status in OUTCOMES else "other")
    started_at = run.started_at
    if run.status == "success" and run.concluded_at:
        found.append(word(Measure.DURATION, run.concluded_at - (started_at or run.created_at)))
    if started_at:
        found.append(word(Measure.QUEUEING, started_at - run.created_at))
    if run.status == "aborted":
        found.append(REASON + reason)
    if run.has_final_detail and (root := steps.decode(run.steps)) is not None:
        found.append(word(Measure.APPROVAL, steps.approval_time(root, ended_at)))
    else:
        found.append(kept.get(Measure.APPROVAL, ""))
    if run.status == "success":  # the last, as in `recovered`
        found.append(kept.get(Measure.RECOVERY, ""))
    return [*filter(None, found)]


def recovered(
    counted: Collection[str], failed_at: datetime | None, ended_at: datetime
) -> list[str]:
    """Return what a success counts as, given when the failure that it ends had ended, if any."""
    others = [word for word in counted if word[0] != Measure.RECOVERY]
    if failed_at is None or failed_at > ended_at:
        return others
    return [*others, word(Measure.RECOVERY, ended_at - failed_at)]


def word(measure: Measure, span: timedelta) -> str:
    """Return the word for a duration."""
    seconds = span.total_seconds()
    bucket = 1 + round(math.log(seconds, _GROWTH)) if seconds >= 1 else 0
    return f"{measure}{bucket}"


def _typical(buckets: Sequence[tuple[int, int]]) -> Typical:
    n = sum(count for _bucket, count in buckets)
    return Typical(n, _quantile(buckets, n * 0.5), _quantile(buckets, n * 0.95))


def _quantile(buckets: Iterable[tuple[int, int]], rank: float) -> timedelta:
    """Return the duration of this rank; `buckets` are sorted."""
    bucket = 0
    for bucket, count in buckets:  # noqa: B007
        rank -= count
        if rank <= 0:
            break
    return timedelta(seconds=_GROWTH ** (bucket - 1)) if bucket else timedelta()
