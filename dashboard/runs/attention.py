"""Which runs need attention, in what order: one definition for pages, titles, API and commands.

A run needs attention if it or its abort is overdue, if it has waited long for an approval, or if it
failed a short time ago.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django.db.models import Case, Exists, IntegerField, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce, Greatest

from dashboard.db.prepared import Time
from dashboard.models import Abort, Run
from dashboard.models.catalog import StageName
from dashboard.models.runs import RunQuerySet
from dashboard.models.severity import Severity
from dashboard.runs.overdue import APPROVAL_PATIENCE, OverdueReason

# How long a failed run needs attention.
FAILURE_WINDOW = timedelta(minutes=15)

_STAGE_RANKS = {name: rank for rank, name in enumerate(reversed(StageName.values))}
_IS_OVERDUE = Q(overdue_severity__gt=0) | Q(abort_severity__gt=0)


@dataclass(frozen=True, slots=True, order=True)
class AttentionRun:
    """A run that needs attention. Sorts by stage (Production first), severity, and age."""

    stage_rank: int
    inverse_severity: int
    since: datetime  # its creation or, if it failed, its end
    pk: int
    stage: int = field(compare=False)  # key
    is_in_flight: bool = field(compare=False)


def load(runs: RunQuerySet, now: datetime) -> list[AttentionRun]:
    """Return those of `runs` that need attention: Production first, then severity, then age.

    A failure is critical.
    """
    return sort(in_flight_values(runs, now), failure_values(runs, now))


def in_flight_values(runs: RunQuerySet, now: Time) -> QuerySet[Any, Any]:
    """Return a query for what `sort` needs of those of `runs` in flight that need attention."""
    in_flight = runs.in_flight().annotate(attention=severity(now)).filter(attention__gt=0)
    return in_flight.values_list("pk", "stage", "stage__name", "attention", "created_at")


def failure_values(runs: RunQuerySet, now: Time) -> QuerySet[Any, Any]:
    """Return a query for what `sort` needs of those of `runs` that failed a short time ago."""
    failures = failed_runs(runs, now - FAILURE_WINDOW).order_by()
    return failures.values_list("pk", "stage", "stage__name", "ended_at")


def sort(
    in_flight: Iterable[tuple[Any, ...]], failures: Iterable[tuple[Any, ...]]
) -> list[AttentionRun]:
    """Return the runs of the rows of both queries in their order."""
    in_flight_entries = [
        AttentionRun(_stage_rank(name), -run_severity, created_at, pk, stage, is_in_flight=True)
        for pk, stage, name, run_severity, created_at in in_flight
    ]
    failure_entries = [
        AttentionRun(_stage_rank(name), -Severity.CRITICAL, ended_at, pk, stage, is_in_flight=False)
        for pk, stage, name, ended_at in failures
    ]
    return sorted([*in_flight_entries, *failure_entries])


def failed_runs(runs: RunQuerySet, since: Time, until: Time | None = None) -> RunQuerySet:
    """Return those of `runs` that failed after `since`, latest first, except runs aborted here.

    With `until`, those that failed later are left out, too.
    """
    failures = runs.filter(status="failure", concluded=True, ended_at__gt=since)
    if until is not None:
        failures = failures.filter(ended_at__lte=until)
    return failures.exclude(_aborted_here()).order_by("-ended_at", "-pk")


def blocked_runs(runs: RunQuerySet) -> RunQuerySet:
    """Return those of `runs` that wait in the queue behind one that needs attention, oldest first.

    Only of those that have waited for so long that they would be overdue themselves.
    """
    blocked = runs.in_flight().filter(overdue_reason=OverdueReason.BLOCKED)
    return blocked.order_by("created_at", "pk")


def severity(now: Time) -> Case:
    """Return an expression on runs in flight: the severity at which they need attention."""
    return Case(
        When(_IS_OVERDUE, then=Greatest("overdue_severity", "abort_severity")),
        When(_is_approval_due(now), then=Value(int(Severity.WARNING))),
        default=Value(int(Severity.OK)),
        output_field=IntegerField(),
    )


def severities(runs: Iterable[Run], now: datetime) -> dict[int, Severity]:
    """Return the severity of each of these runs that needs attention, by the run's key."""
    query = Run.objects.filter(pk__in=[run.pk for run in runs])
    return {run.pk: Severity(-run.inverse_severity) for run in load(query, now)}


def _stage_rank(name: str) -> int:
    return _STAGE_RANKS.get(name, len(_STAGE_RANKS))


def _is_approval_due(now: Time) -> Q:
    return Q(removed_at=None, approval_since__lte=now - APPROVAL_PATIENCE)


@cache
def _aborted_here() -> Exists:
    """Return a condition: an abort requested here before the run ended was accepted."""
    accepted = Abort.objects.accepted().filter(run=OuterRef("pk"))
    ended_at = Coalesce(OuterRef("concluded_at"), OuterRef("status_since"))
    return Exists(accepted.filter(requested_at__lt=ended_at))
