"""Total up the reads of stages and of the catalog's lists: how many are stale, failing or partial.

The database counts the stages; only those whose last read is not fresh are loaded.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Count, Min, Q, QuerySet

from dashboard.db.prepared import NOW, PreparedModels, PreparedQuery, count_if
from dashboard.models import CatalogSync, Stage
from dashboard.models.catalog import StageQuerySet
from dashboard.sync import schedule
from dashboard.sync.reports import coverage, freshness
from dashboard.sync.reports.coverage import Coverage

_HAS_FLOW = ~Q(has_flow=False)  # or may have one: it has not been read
_IS_READ = Q(synced_at__isnull=False)


@dataclass(frozen=True, slots=True)
class ReadTotals:
    """Numbers of stages and of catalog lists by the state of their last read.

    All but the first three leave out stages without a release flow.
    """

    stages: int
    read: int
    without_flow: int
    with_flow: int  # or not known yet
    with_flow_read: int
    stale: int  # out of date, but not for so long that they count as unread
    has_old_reads: bool  # some are out of date, for however long
    failing: int
    partial: int  # entries of their lists could not be mirrored
    oldest_sync_at: datetime | None  # of the stages with a flow or, if none has one, of all
    failing_lists: int
    partial_lists: int
    coverage: Coverage
    next_gap_at: datetime | None  # when the next stale stage counts as unread; None: none will


class ReadTotalsQuery:
    """The composed queries for the totals of some stages and catalog lists."""

    def __init__(self, stages: StageQuerySet, lists: QuerySet[CatalogSync]) -> None:
        """Pass those that the user may see, without removed ones."""
        columns = ("name", "error", "has_flow", "synced_at", "fresh_until", "in_flight_incomplete")
        self._not_fresh = PreparedModels(stages.not_fresh(NOW).order_by().only(*columns))
        self._by_name = PreparedQuery(_count_by_name(stages))
        self._lists = PreparedQuery(_count_lists(lists))

    def load(self, now: datetime) -> ReadTotals:
        """Return the totals."""
        by_name = {name: _StageTotals(*counts) for name, *counts in self._by_name.fetch()}
        not_fresh = self._not_fresh.fetch(now=now)
        list_totals = _ListTotals(*(count or 0 for count in self._lists.fetch()[0]))
        return _total(by_name, not_fresh, list_totals, now)


def load(stages: StageQuerySet, lists: QuerySet[CatalogSync], now: datetime) -> ReadTotals:
    """Return the totals of `stages` and catalog `lists`; see `ReadTotalsQuery`."""
    return ReadTotalsQuery(stages, lists).load(now)


class _StageTotals(NamedTuple):
    stages: int
    read: int
    with_flow: int
    with_flow_read: int
    failing: int
    partial: int
    oldest: datetime | None
    oldest_with_flow: datetime | None


class _ListTotals(NamedTuple):
    failing: int
    partial: int
    unread: int
    of_projects: int
    of_projects_unread: int


def _total(
    by_name: Mapping[str, _StageTotals],
    not_fresh: Sequence[Stage],
    list_totals: _ListTotals,
    now: datetime,
) -> ReadTotals:
    def total(field: str) -> int:
        return sum(getattr(totals, field) for totals in by_name.values())

    old = [stage for stage in not_fresh if freshness.is_stale(stage.fresh_until, now)]
    old_with_flow = [stage for stage in old if stage.has_flow is not False]
    # Neither stages nor lists: nothing has been read yet, which is not an empty account.
    has_started = bool(by_name) or list_totals.of_projects or Stage.objects.exists()
    measured = coverage.measure(
        coverage.measure_stages(
            not_fresh, now, {name: totals.stages for name, totals in by_name.items()}
        ),
        unlisted=list_totals.unread,
        has_project_list=bool(has_started) and not list_totals.of_projects_unread,
        now=now,
    )
    has_flows = total("with_flow") > 0
    sync_times = (
        totals.oldest_with_flow if has_flows else totals.oldest for totals in by_name.values()
    )
    return ReadTotals(
        stages=total("stages"),
        read=total("read"),
        without_flow=total("stages") - total("with_flow"),
        with_flow=total("with_flow"),
        with_flow_read=total("with_flow_read"),
        stale=sum(schedule.find_gap(stage, now) is None for stage in old_with_flow),
        has_old_reads=bool(old_with_flow if has_flows else old),
        failing=total("failing"),
        partial=total("partial"),
        oldest_sync_at=min(filter(None, sync_times), default=None),
        failing_lists=list_totals.failing,
        partial_lists=list_totals.partial,
        coverage=measured,
        next_gap_at=min(_gap_times(old_with_flow, now), default=None),
    )


def _gap_times(stages: Iterable[Stage], now: datetime) -> Iterator[datetime]:
    for stage in stages:
        opens_at = schedule.gap_opens_at(stage)
        if opens_at is not None and opens_at >= now:
            yield opens_at


def _count_by_name(stages: StageQuerySet) -> QuerySet[Any, Any]:
    is_partial = ~Q(omitted_by_page={})
    by_name = stages.order_by().values_list("name")
    return by_name.annotate(
        stages=Count("pk"),
        read=Count("pk", filter=_IS_READ),
        with_flow=Count("pk", filter=_HAS_FLOW),
        with_flow_read=Count("pk", filter=_HAS_FLOW & _IS_READ),
        failing=Count("pk", filter=_HAS_FLOW & ~Q(error="")),
        partial=Count("pk", filter=_HAS_FLOW & is_partial),
        oldest=Min("synced_at"),
        oldest_with_flow=Min("synced_at", filter=_HAS_FLOW),
    )


def _count_lists(lists: QuerySet[CatalogSync]) -> QuerySet[Any, Any]:
    of_projects, is_unread = Q(project=None), Q(synced_at=None)
    return lists.order_by().values_list(
        count_if(~Q(error="")),
        count_if(Q(error="") & ~Q(omitted_by_page={})),
        count_if(is_unread),
        count_if(of_projects),
        count_if(of_projects & is_unread),
    )
