"""Keyset pagination of a stage's runs: no page costs more than the first.

A page starts after a cursor instead of having a number, so that paging neither repeats nor misses
runs while runs are created and end.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from heapq import merge
from itertools import islice, starmap
from typing import NamedTuple

from django.db.models import BigIntegerField, Q
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.db.prepared import Parameter, PreparedCount, PreparedQuery
from dashboard.models import Run
from dashboard.models.runs import RunQuerySet
from dashboard.web.components.lists.cursor import Cursor
from dashboard.web.components.lists.filters import RunFilter

PER_PAGE = 100
MAX_COUNTED = 1_000  # matching runs are counted up to here
MAX_SCANNED = 10_000  # ended runs that a text search scans per page


class ListedRun(NamedTuple):
    """A run of a page; sorts by its position."""

    in_flight: bool
    created_at: datetime
    pk: int
    version: int
    run_id: str

    @property
    def cursor(self) -> Cursor:
        """The run's position in the list."""
        return Cursor(self.in_flight, self.created_at, self.pk)


@dataclass(frozen=True, slots=True)
class PageOfRuns:
    """One page of runs, with links to the first and the next."""

    runs: list[ListedRun]  # in the order of the list
    total: int | None = None  # matching runs, at most MAX_COUNTED + 1; None: not counted
    newest_url: str = ""
    older_url: str = ""
    scanned: int = 0  # runs scanned for a text, if the scan limit ended the page; else 0

    @property
    def has_pager(self) -> bool:
        """Whether a line below the list shows how much was found."""
        return bool(self.runs or self.scanned)

    @property
    def text(self) -> str:
        """The number of runs on the page, and of how many."""
        run_count = len(self.runs)
        if self.scanned:
            text = _("%(shown)d found in %(looked_at)s runs searched")
            return text % {"shown": run_count, "looked_at": f"{self.scanned:,}"}
        if self.total is None:
            return ngettext("%(shown)d run", "%(shown)d runs", run_count) % {"shown": run_count}
        if self.total > MAX_COUNTED:
            text = _("%(shown)d of more than %(counted)s runs")
            return text % {"shown": run_count, "counted": f"{MAX_COUNTED:,}"}
        text = ngettext("%(shown)d of %(of)d run", "%(shown)d of %(of)d runs", self.total)
        return text % {"shown": run_count, "of": self.total}


def page(
    runs: RunQuerySet,
    run_filter: RunFilter,
    *,
    per_page: int = PER_PAGE,
    max_scanned: int = MAX_SCANNED,
) -> PageOfRuns:
    """Return one page of a stage's runs; a text search scans at most `max_scanned` ended runs."""
    listed_runs, scan_end = _next_runs(runs, run_filter, per_page + 1, max_scanned)
    return _build_page(
        listed_runs,
        scan_end,
        run_filter,
        lambda: _count(runs, run_filter),
        per_page=per_page,
        max_scanned=max_scanned,
    )


def first_page(stage_key: int, run_filter: RunFilter) -> PageOfRuns:
    """Return the first page of all runs of a stage, like `page` with a filter that selects all."""
    listed_runs = [
        ListedRun(*values)
        for in_flight in (True, False)
        for values in _first_runs_query(in_flight).fetch(stage=stage_key)
    ]
    return _build_page(
        listed_runs[: PER_PAGE + 1],
        None,
        run_filter,
        lambda: _count_all(stage_key),
        per_page=PER_PAGE,
    )


def _build_page(
    listed_runs: list[ListedRun],
    scan_end: Cursor | None,
    run_filter: RunFilter,
    count: Callable[[], int],
    *,
    per_page: int,
    max_scanned: int = 0,
) -> PageOfRuns:
    has_more = len(listed_runs) > per_page
    runs = listed_runs[:per_page]
    # The next page starts after the last run shown or, without another match, the last one scanned.
    next_cursor = runs[-1].cursor if has_more else scan_end
    total = None
    if not run_filter.q:
        total = len(runs) if not run_filter.cursor and not has_more else count()
    return PageOfRuns(
        runs=runs,
        total=total,
        newest_url=run_filter.url if run_filter.cursor else "",
        older_url=run_filter.page_url(next_cursor) if next_cursor else "",
        scanned=max_scanned if scan_end and not has_more else 0,
    )


def _next_runs(
    runs: RunQuerySet, run_filter: RunFilter, limit: int, max_scanned: int
) -> tuple[list[ListedRun], Cursor | None]:
    """Return the first `limit` matching runs after the filter's cursor, and the end of the scan.

    The end of the scan is the last run scanned for a text; None if the limit was not reached.
    """
    listed_runs: list[ListedRun] = []
    scan_end = None
    for in_flight in (True, False):
        part = _ordered(run_filter.filter_by_date_and_key(runs.with_in_flight(in_flight)))
        if run_filter.cursor is not None:
            if in_flight > run_filter.cursor.in_flight:
                continue
            if in_flight == run_filter.cursor.in_flight:
                part = part.filter(_after_cursor(run_filter.cursor))
        if in_flight:
            parts = [run_filter.filter_in_flight(part)]
        else:
            if run_filter.q and run_filter.filter_ended(part):
                scan_end = _nth_cursor(part, max_scanned)
                if scan_end is not None:
                    part = part.filter(_up_to_cursor(scan_end))
            parts = run_filter.filter_ended(part)
        remaining = limit - len(listed_runs)
        listed_runs += islice(_merge(parts, remaining), remaining)
        if len(listed_runs) >= limit or scan_end is not None:
            break
    return listed_runs, scan_end


def _ordered(runs: RunQuerySet) -> RunQuerySet:
    return runs.order_by("-created_at", "-pk")


def _after_cursor(cursor: Cursor) -> Q:
    """Return a condition: after the cursor, for runs with the cursor's `in_flight` value."""
    # The bound on created_at allows an index lookup; the other one orders runs created at the
    # same time.
    earlier = Q(created_at__lt=cursor.created_at) | Q(pk__lt=cursor.pk)
    return Q(created_at__lte=cursor.created_at) & earlier


def _up_to_cursor(cursor: Cursor) -> Q:
    """Return the opposite condition: up to and including the cursor's run."""
    later = Q(created_at__gt=cursor.created_at) | Q(pk__gte=cursor.pk)
    return Q(created_at__gte=cursor.created_at) & later


def _merge(parts: Iterable[RunQuerySet], limit: int) -> Iterable[ListedRun]:
    lists = [starmap(ListedRun, part.values_list(*ListedRun._fields)[:limit]) for part in parts]
    return merge(*lists, reverse=True)


def _nth_cursor(runs: RunQuerySet, count: int) -> Cursor | None:
    """Return the cursor of the run at position `count`, or None if no run follows it."""
    cursors = list(runs.values_list(*_CURSOR_FIELDS)[count - 1 : count + 1])
    return Cursor(*cursors[0]) if len(cursors) > 1 else None


def _count(runs: RunQuerySet, run_filter: RunFilter) -> int:
    """Return the number of matching runs, at most MAX_COUNTED + 1."""
    # Ordered, so that the database reads an index and stops at the limit, whatever its estimates.
    in_flight, ended_runs = (
        _ordered(run_filter.filter_by_date_and_key(runs.with_in_flight(is_in_flight)))
        for is_in_flight in (True, False)
    )
    total = 0
    for part in (run_filter.filter_in_flight(in_flight), *run_filter.filter_ended(ended_runs)):
        total += part[: MAX_COUNTED + 1 - total].count()
        if total > MAX_COUNTED:
            break
    return total


def _count_all(stage_key: int) -> int:
    total = 0
    for in_flight in (True, False):
        total += _count_query(in_flight).fetch(stage=stage_key)
    return min(total, MAX_COUNTED + 1)


@cache
def _first_runs_query(in_flight: bool) -> PreparedQuery:
    runs = _ordered(_all_of_stage(in_flight))
    return PreparedQuery(runs.values_list(*ListedRun._fields)[: PER_PAGE + 1])


@cache
def _count_query(in_flight: bool) -> PreparedCount:
    runs = _ordered(_all_of_stage(in_flight))
    return PreparedCount(runs.values_list("pk")[: MAX_COUNTED + 1])


def _all_of_stage(in_flight: bool) -> RunQuerySet:
    return Run.objects.with_in_flight(in_flight).filter(stage=_STAGE)


_STAGE = Parameter("stage", BigIntegerField())
_CURSOR_FIELDS = "in_flight", "created_at", "pk"
