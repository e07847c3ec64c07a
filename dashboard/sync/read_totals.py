"""Total up the reads of stages and of the catalog's lists: how many are stale, failing or partial.

The database counts the stages; only those whose last read is not fresh are loaded.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Min, Q, QuerySet

from dashboard.models import CatalogSync, Stage
from dashboard.models.catalog import StageQuerySet
from dashboard.sync import coverage, freshness, schedule
from dashboard.sync.coverage import Coverage

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


def load(stages: StageQuerySet, lists: QuerySet[CatalogSync], now: datetime) -> ReadTotals:
    """Return the totals of `stages` and catalog `lists`.

    Pass those that the user may see, without removed ones.
    """
    by_name = {totals.pop("name"): totals for totals in _count_by_name(stages)}

    def total(field: str) -> int:
        return sum(totals[field] for totals in by_name.values())

    columns = ("name", "error", "has_flow", "synced_at", "fresh_until", "in_flight_incomplete")
    not_fresh = list(stages.not_fresh(now).order_by().only(*columns))
    old = [stage for stage in not_fresh if freshness.is_stale(stage.fresh_until, now)]
    old_with_flow = [stage for stage in old if stage.has_flow is not False]
    list_totals = _count_lists(lists)
    # Neither stages nor lists: nothing has been read yet, which is not an empty account.
    has_started = bool(by_name) or list_totals["of_projects"] or Stage.objects.exists()
    measured = coverage.measure(
        coverage.measure_stages(
            not_fresh, now, {name: totals["stages"] for name, totals in by_name.items()}
        ),
        unlisted=list_totals["unread"],
        has_project_list=bool(has_started) and not list_totals["of_projects_unread"],
        now=now,
    )
    oldest = "oldest_with_flow" if total("with_flow") else "oldest"
    return ReadTotals(
        stages=total("stages"),
        read=total("read"),
        without_flow=total("stages") - total("with_flow"),
        with_flow=total("with_flow"),
        with_flow_read=total("with_flow_read"),
        stale=sum(schedule.find_gap(stage, now) is None for stage in old_with_flow),
        has_old_reads=bool(old_with_flow if total("with_flow") else old),
        failing=total("failing"),
        partial=total("partial"),
        oldest_sync_at=min(
            (totals[oldest] for totals in by_name.values() if totals[oldest]), default=None
        ),
        failing_lists=list_totals["failing"],
        partial_lists=list_totals["partial"],
        coverage=measured,
        next_gap_at=min(_gap_times(old_with_flow, now), default=None),
    )


def _gap_times(stages: Iterable[Stage], now: datetime) -> Iterator[datetime]:
    for stage in stages:
        opens_at = schedule.gap_opens_at(stage)
        if opens_at is not None and opens_at >= now:
            yield opens_at


def _count_by_name(stages: StageQuerySet) -> list[dict[str, Any]]:
    is_partial = ~Q(omitted_by_page={})
    by_name = stages.order_by().values("name")
    totals = by_name.annotate(
        stages=Count("pk"),
        read=Count("pk", filter=_IS_READ),
        with_flow=Count("pk", filter=_HAS_FLOW),
        with_flow_read=Count("pk", filter=_HAS_FLOW & _IS_READ),
        failing=Count("pk", filter=_HAS_FLOW & ~Q(error="")),
        partial=Count("pk", filter=_HAS_FLOW & is_partial),
        oldest=Min("synced_at"),
        oldest_with_flow=Min("synced_at", filter=_HAS_FLOW),
    )
    return [{**counts} for counts in totals]


def _count_lists(lists: QuerySet[CatalogSync]) -> Mapping[str, int]:
    of_projects, is_unread = Q(project=None), Q(synced_at=None)
    return lists.aggregate(
        failing=Count("pk", filter=~Q(error="")),
        partial=Count("pk", filter=Q(error="") & ~Q(omitted_by_page={})),
        unread=Count("pk", filter=is_unread),
        of_projects=Count("pk", filter=of_projects),
        of_projects_unread=Count("pk", filter=of_projects & is_unread),
    )
