"""Which runs need attention, in what order: one definition for pages, titles, API and commands.

A run needs attention if it or its abort is overdue, if it has waited long for an approval, or if it
failed a short time ago. A run that is only overdue in the queue behind another that needs attention
is not counted itself: it waits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from django.db.models import Case, Exists, IntegerField, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce, Greatest

from dashboard.db.prepared import Time
from dashboard.models import Abort, Run
from dashboard.models.catalog import StageName
from dashboard.models.runs import RunQuerySet
from dashboard.models.severity import Severity
from dashboard.runs import concurrency_policy
from dashboard.runs.overdue import OverdueReason

# How long a failed run needs attention.
FAILURE_WINDOW = timedelta(minutes=15)
# How long an approval may wait before its run needs attention, overdue or not.
APPROVAL_PATIENCE = timedelta(minutes=30)

_STAGE_RANKS = {name: rank for rank, name in enumerate(reversed(StageName.values))}
_IS_OVERDUE = Q(overdue_severity__gt=0) | Q(abort_severity__gt=0)
_IS_OVERDUE_IN_QUEUE = Q(
    overdue_severity__gt=0, overdue_reason=OverdueReason.QUEUE, abort_severity=0
)


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


def waiting_runs(runs: RunQuerySet, now: Time) -> RunQuerySet:
    """Return those of `runs` that are overdue in the queue behind one that needs attention."""
    return runs.in_flight().filter(_is_waiting_behind(now)).order_by("created_at", "pk")


def severity(now: Time) -> Case:
    """Return an expression on runs in flight: the severity at which they need attention.

    OK: the run needs no attention, or only waits behind one that does.
    """
    return Case(
        When(_is_waiting_behind(now), then=Value(int(Severity.OK))),
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


def _is_waiting_behind(now: Time) -> Q:
    """Return a condition: overdue in the queue only, behind a run that needs attention itself."""
    return _is_overdue_behind(_is_approval_due(now))


# The conditions below are kept: composing one takes longer than its query. Queries copy them.
@lru_cache(maxsize=16)  # a page asks several times with the same `now`
def _is_overdue_behind(is_approval_due: Q) -> Q:
    stuck = (_IS_OVERDUE & ~_IS_OVERDUE_IN_QUEUE) | is_approval_due
    ahead = Run.objects.tracked().filter(
        stuck, stage=OuterRef("stage"), created_at__lte=OuterRef("created_at")
    )
    # A run that Northflank never queues waits for no other: see concurrency_policy.py.
    never_queued = Q(stage__concurrency_policy=concurrency_policy.PARALLEL) | (
        Q(stage__concurrency_policy__in=concurrency_policy.NEVER_QUEUING) & ~Q(status="queued")
    )
    return Q(_IS_OVERDUE_IN_QUEUE, ~never_queued, Exists(ahead))


@cache
def _aborted_here() -> Exists:
    """Return a condition: an abort requested here before the run ended was accepted."""
    accepted = Abort.objects.accepted().filter(run=OuterRef("pk"))
    ended_at = Coalesce(OuterRef("concluded_at"), OuterRef("status_since"))
    return Exists(accepted.filter(requested_at__lt=ended_at))
