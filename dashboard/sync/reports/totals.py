"""Count stages by the state of their last read: in the database or, if they are loaded, here.

The database counts all; only those whose last read is not fresh are loaded. A stage counts as
unread while its runs in flight are not known (`schedule.has_gap`): it was never read, or not since
a long outage.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.db.models import Count, Max, Min, Q, QuerySet

from dashboard.db.expressions import Days
from dashboard.db.prepared import NOW, PreparedModels, PreparedQuery
from dashboard.models.catalog import StageQuerySet
from dashboard.sync import plan, schedule
from dashboard.texts import durations


class ReadStage(schedule.ReadState, Protocol):
    """The fields of a stage that a report needs."""

    @property
    def name(self) -> str: ...
    @property
    def error(self) -> str: ...


@dataclass(slots=True)
class NameTotals:
    """Numbers of the stages of one name by their last read.

    `failing` and `stale` leave out stages without a release flow.
    """

    name: str
    stages: int = 0
    read: int = 0
    with_flow: int = 0  # or not known yet
    with_flow_read: int = 0
    failing: int = 0
    oldest: datetime | None = None  # the first of their last reads
    oldest_with_flow: datetime | None = None
    longest_interval: float | None = None  # planned seconds between two reads of one with a flow
    # Of those whose last read is not fresh:
    stale: int = 0  # out of date, but not for so long that they count as unread
    old: int = 0  # out of date, for however long, with or without a flow
    old_with_flow: int = 0
    unread: int = 0
    unread_failing: int = 0  # unread ones that can't be read

    @property
    def interval_text(self) -> str:
        """The longest interval, as text."""
        if self.longest_interval is None:
            return ""
        return durations.format_rounded(timedelta(seconds=self.longest_interval))


class TotalsQuery:
    """The composed queries for the totals of some stages, by name."""

    def __init__(self, stages: StageQuerySet) -> None:
        columns = ("name", "error", "has_flow", "synced_at", "fresh_until", "in_flight_incomplete")
        self._not_fresh = PreparedModels(stages.not_fresh(NOW).order_by().only(*columns))
        self._by_name = PreparedQuery(_count_by_name(stages))

    def load(self, now: datetime) -> list[NameTotals]:
        """Return the totals, Production first."""
        by_name = [NameTotals(*row) for row in self._by_name.fetch()]
        return _add_reads(by_name, self._not_fresh.fetch(now=now), now)


def count(stages: Iterable[ReadStage], now: datetime) -> list[NameTotals]:
    """Return the totals of these loaded stages, Production first."""
    by_name: dict[str, list[ReadStage]] = {}
    for stage in stages:
        by_name.setdefault(stage.name, []).append(stage)
    totals = [_count(name, named) for name, named in by_name.items()]
    return _add_reads(totals, [stage for named in by_name.values() for stage in named], now)


def _count(name: str, stages: Sequence[ReadStage]) -> NameTotals:
    with_flow = [stage for stage in stages if stage.has_flow is not False]
    reads = [stage.synced_at for stage in stages if stage.synced_at]
    reads_with_flow = [stage.synced_at for stage in with_flow if stage.synced_at]
    intervals = [
        (stage.fresh_until - stage.synced_at).total_seconds()
        for stage in with_flow
        if stage.fresh_until and stage.synced_at
    ]
    return NameTotals(
        name,
        len(stages),
        len(reads),
        len(with_flow),
        len(reads_with_flow),
        oldest=min(reads, default=None),
        oldest_with_flow=min(reads_with_flow, default=None),
        longest_interval=max(intervals, default=None),
    )


def _add_reads(
    names: Iterable[NameTotals], not_fresh: Iterable[ReadStage], now: datetime
) -> list[NameTotals]:
    """Return the totals in order, with those of the stages whose last read may not be fresh."""
    order = {name: position for position, name in enumerate(plan.WEIGHTS)}
    by_name = {totals.name: totals for totals in names}
    for stage in not_fresh:
        totals = by_name.get(stage.name)
        if totals is None:
            continue  # it was added between the two queries
        has_gap = schedule.has_gap(stage, now)
        if has_gap:
            totals.unread += 1
            totals.unread_failing += bool(stage.error)
        if not schedule.is_stale(stage.fresh_until, now):
            continue
        totals.old += 1
        if stage.has_flow is False:
            continue
        totals.old_with_flow += 1
        totals.stale += not has_gap
    return sorted(by_name.values(), key=lambda totals: order.get(totals.name, len(order)))


# Seconds between two reads of a stage, as planned.
INTERVAL = 86_400 * (Days("fresh_until") - Days("synced_at"))


def _count_by_name(stages: StageQuerySet) -> QuerySet[Any, Any]:
    has_flow = ~Q(has_flow=False)  # or may have one: it has not been read
    is_read = Q(synced_at__isnull=False)
    # In the order of `NameTotals`.
    return stages.order_by().values_list("name").annotate(
        stages=Count("pk"),
        read=Count("pk", filter=is_read),
        with_flow=Count("pk", filter=has_flow),
        with_flow_read=Count("pk", filter=has_flow & is_read),
        failing=Count("pk", filter=has_flow & ~Q(error="")),
        oldest=Min("synced_at"),
        oldest_with_flow=Min("synced_at", filter=has_flow),
        longest_interval=Max(INTERVAL, filter=has_flow),
    )  # fmt: skip
