"""Runs in flight, those that need attention or failed, and their totals by stage.

Only runs that the user may see are returned.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from django.db.models import Case, QuerySet, When

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import NOW, PreparedModels, PreparedQuery, Time
from dashboard.models import Abort, Run
from dashboard.models.runs import RunQuerySet
from dashboard.runs import acknowledgements, attention
from dashboard.runs.attention import AttentionRun
from dashboard.runs.overdue import OverdueReason

# A run that was aborted here stays on the page this long, so that the user sees the outcome.
ABORTED_WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class InFlightTotals:
    """Totals of some runs in flight: their statuses, counts and worst severities."""

    statuses: frozenset[str] = frozenset()
    overdue_severity: int = 0  # of the worst run that needs attention: models.severity.Severity
    abort_severity: int = 0  # of the worst abort: models.severity.Severity
    count: int = 0
    attention_count: int = 0  # runs that need attention
    has_recent_failure: bool = False  # beside them, a run failed that needs attention


def load_attention(permissions: Permissions, now: datetime) -> list[AttentionRun]:
    """Return the visible runs that need attention, in the order of runs/attention.py."""
    in_flight, failures = (
        _prepare(values, permissions).fetch(now=now)
        for values in (attention.in_flight_values, attention.failure_values)
    )
    return attention.sort(in_flight, failures)


@lru_cache(maxsize=200)
def _prepare(
    compose: Callable[[RunQuerySet, Time], QuerySet[Any, Any]], permissions: Permissions
) -> PreparedQuery:
    """Return the query that `compose` makes of the visible runs."""
    plan_once = compose in {attention.in_flight_values, _in_flight_values}
    return PreparedQuery(compose(visible_runs(permissions), NOW), plan_once=plan_once)


def load_blocked(permissions: Permissions) -> list[Run]:
    """Return the visible runs that wait behind one that needs attention, oldest first.

    With their stages, without their steps.
    """
    return _prepare_blocked(permissions).fetch()


@lru_cache(maxsize=100)
def _prepare_blocked(permissions: Permissions) -> PreparedModels[Run]:
    blocked = attention.blocked_runs(visible_runs(permissions))
    return PreparedModels(blocked.with_stage().without_detail())


def others_in_flight(visible: RunQuerySet, now: Time) -> RunQuerySet:
    """Return the runs in flight that need no attention: waiting for approval first, then newest.

    Those that wait behind a run that needs attention come last.
    """
    runs = visible.in_flight().annotate(attention=attention.severity(now))
    is_blocked = When(overdue_reason=OverdueReason.BLOCKED, then=2)
    rank = Case(is_blocked, When(status="approval_wait", then=0), default=1)
    return runs.filter(attention=0).order_by(rank, "-created_at", "-pk")


def failed_earlier(visible: RunQuerySet, now: Time) -> RunQuerySet:
    """Return the runs that failed in the last day and no longer need attention, latest first."""
    since, until = now - acknowledgements.MAX_FAILURE_AGE, now - attention.FAILURE_WINDOW
    return attention.failed_runs(visible, since, until)


def failed_runs(visible: RunQuerySet, now: Time) -> RunQuerySet:
    """Return the runs that failed in the last day, latest first, except runs aborted here."""
    return attention.failed_runs(visible, now - acknowledgements.MAX_FAILURE_AGE)


def recently_aborted(visible: RunQuerySet, now: Time) -> RunQuerySet:
    """Return the runs not in flight with an abort requested here in the last hour, latest first.

    It was accepted, or the run was aborted although it is unknown whether the abort arrived. Failed
    runs (`failed_runs`) are left out: their abort came after their end.
    """
    recent = Abort.objects.filter(requested_at__gt=now - ABORTED_WINDOW).accepted_or_aborted()
    not_in_flight = visible.filter(pk__in=recent.values("run"), in_flight=False)
    not_failed = not_in_flight.exclude(pk__in=failed_runs(visible, now).order_by().values("pk"))
    return not_failed.order_by("-ended_at", "-pk")


def in_flight_by_stage(permissions: Permissions, now: datetime) -> dict[int, InFlightTotals]:
    """Return the totals of the visible runs in flight, by stage key."""
    groups = Counter(_prepare(_in_flight_values, permissions).fetch(now=now))
    totals: dict[int, list[InFlightTotals]] = {}
    for (stage, status, overdue, aborting, severity), count in groups.items():
        group_totals = InFlightTotals(
            statuses=frozenset([status]),
            overdue_severity=overdue if severity else 0,
            abort_severity=aborting,
            count=count,
            attention_count=count if severity else 0,
        )
        totals.setdefault(stage, []).append(group_totals)
    return {
        stage: combine(stage_totals) if len(stage_totals) > 1 else stage_totals[0]
        for stage, stage_totals in totals.items()
    }


def _in_flight_values(visible: RunQuerySet, now: Time) -> QuerySet[Any, Any]:
    fields = "stage", "status", "overdue_severity", "abort_severity", "attention"
    runs = visible.in_flight().annotate(attention=attention.severity(now))
    # In this order, for which there is an index of the runs in flight alone: to group them, SQLite
    # would read all runs of their stages.
    return runs.order_by("-created_at", "-pk").values_list(*fields)


def combine(
    totals: Iterable[InFlightTotals], *, has_recent_failure: bool = False
) -> InFlightTotals:
    """Return the sum of several totals, with the worst severities.

    `has_recent_failure`: a run failed that needs attention.
    """
    totals_list = list(totals)
    return InFlightTotals(
        frozenset().union(*(stage_totals.statuses for stage_totals in totals_list)),
        max((stage_totals.overdue_severity for stage_totals in totals_list), default=0),
        max((stage_totals.abort_severity for stage_totals in totals_list), default=0),
        count=sum(stage_totals.count for stage_totals in totals_list),
        attention_count=sum(stage_totals.attention_count for stage_totals in totals_list),
        has_recent_failure=has_recent_failure,
    )


def visible_runs(permissions: Permissions) -> RunQuerySet:
    """Return the runs that the user may see."""
    return Run.objects.filter(permissions.stage_filter("stage"))
