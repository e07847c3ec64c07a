"""Keyset pagination of a stage's runs: no page costs more than the first.

A page starts after a cursor instead of having a number, so that paging neither repeats nor misses
runs while runs are created and end.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import starmap
from typing import NamedTuple

from django.db.models import BigIntegerField, Q
from django.utils.translation import ngettext

from dashboard.db.prepared import Parameter, PreparedQuery
from dashboard.models import Run
from dashboard.models.runs import RunQuerySet
from dashboard.web.components.lists.filters import Cursor, RunFilter

PER_PAGE = 100


class ListedRun(NamedTuple):
    """A run of a page; sorts by its position."""

    in_flight: bool
    created_at: datetime
    pk: int
    version: int
    run_id: str


@dataclass(frozen=True, slots=True)
class PageOfRuns:
    """One page of runs, with links to the first and the next."""

    runs: list[ListedRun]  # in the order of the list
    newest_url: str = ""
    older_url: str = ""

    @property
    def text(self) -> str:
        """The number of runs on the page."""
        count = len(self.runs)
        return ngettext("%(shown)d run", "%(shown)d runs", count) % {"shown": count}


def page(runs: RunQuerySet, run_filter: RunFilter, *, per_page: int = PER_PAGE) -> PageOfRuns:
    """Return one page of a stage's runs."""
    return _build_page(_next_runs(runs, run_filter, per_page + 1), run_filter, per_page)


def first_page(stage_key: int, run_filter: RunFilter) -> PageOfRuns:
    """Return the first page of all runs of a stage, like `page` with a filter that selects all."""
    listed_runs = [
        ListedRun(*values)
        for in_flight in (True, False)
        for values in _first_runs_query(in_flight).fetch(stage=stage_key)
    ]
    return _build_page(listed_runs, run_filter, PER_PAGE)


def _build_page(listed_runs: list[ListedRun], run_filter: RunFilter, per_page: int) -> PageOfRuns:
    has_more = len(listed_runs) > per_page
    runs = listed_runs[:per_page]
    return PageOfRuns(
        runs=runs,
        newest_url=run_filter.url if run_filter.cursor else "",
        older_url=run_filter.page_url(Cursor(*runs[-1][:3])) if has_more else "",
    )


def _next_runs(runs: RunQuerySet, run_filter: RunFilter, limit: int) -> list[ListedRun]:
    """Return the first `limit` matching runs after the filter's cursor."""
    listed_runs: list[ListedRun] = []
    cursor = run_filter.cursor
    for in_flight in (True, False):
        part = _ordered(run_filter.select(runs, in_flight=in_flight))
        if cursor is not None and in_flight > cursor.in_flight:
            continue
        if cursor is not None and in_flight == cursor.in_flight:
            part = part.filter(_after_cursor(cursor))
        rows = part.values_list(*ListedRun._fields)[: limit - len(listed_runs)]
        listed_runs += starmap(ListedRun, rows)
        if len(listed_runs) >= limit:
            break
    return listed_runs


def _ordered(runs: RunQuerySet) -> RunQuerySet:
    return runs.order_by("-created_at", "-pk")


def _after_cursor(cursor: Cursor) -> Q:
    """Return a condition: after the cursor, for runs with the cursor's `in_flight` value."""
    # The bound on created_at allows an index lookup; the other one orders runs created at the
    # same time.
    earlier = Q(created_at__lt=cursor.created_at) | Q(pk__lt=cursor.pk)
    return Q(created_at__lte=cursor.created_at) & earlier


@cache
def _first_runs_query(in_flight: bool) -> PreparedQuery:
    runs = _ordered(Run.objects.with_in_flight(in_flight).filter(stage=_STAGE))
    return PreparedQuery(runs.values_list(*ListedRun._fields)[: PER_PAGE + 1])


_STAGE = Parameter("stage", BigIntegerField())
