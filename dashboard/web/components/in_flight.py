"""The Now page's runs, their counts and totals, and the page's data age.

Only runs that the user may see are returned or counted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, Count, Exists, F, OuterRef, Q, When
from django.db.models.functions import Coalesce, Greatest

from dashboard.accounts.permissions import Permissions
from dashboard.models import Abort, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.runs import alerts
from dashboard.runs.overdue import OverdueReason
from dashboard.web.components.data_age import DataAge, page_data_age

# A run that was aborted here stays on the page this long, so that the user sees the outcome.
ABORTED_WINDOW = timedelta(hours=1)
# Runs in flight that are overdue or have an overdue abort.
OVERDUE = Q(overdue_severity__gt=0) | Q(abort_severity__gt=0)
IN_QUEUE = Q(overdue_reason=OverdueReason.QUEUE, abort_severity=0)


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of runs in each section of the page.

    The counts are part of the page's structure hash: if one changes, runs may have moved to
    another section.
    """

    in_flight: int
    overdue: int  # part of `in_flight`
    critical: int  # part of `overdue`
    stage_count: int  # stages with runs in flight
    aborted: int
    failed: int
    recently_failed: int  # part of `failed`

    @property
    def needs_attention(self) -> int:
        """The number of runs that need attention."""
        return self.overdue + self.recently_failed

    @property
    def on_time(self) -> int:
        """The number of runs in flight that are not overdue."""
        return self.in_flight - self.overdue

    @property
    def failed_earlier(self) -> int:
        """The number of failed runs that no longer need attention."""
        return self.failed - self.recently_failed


@dataclass(frozen=True, slots=True)
class InFlightTotals:
    """Totals of some runs in flight: their statuses, counts and worst severities."""

    statuses: frozenset[str] = frozenset()
    overdue_severity: int = 0  # of the worst run: a models.severity.Severity
    abort_severity: int = 0  # of the worst abort: a models.severity.Severity
    count: int = 0
    overdue_count: int = 0  # runs that are overdue or have an overdue abort
    critical_count: int = 0  # part of `overdue_count`


def in_flight(permissions: Permissions) -> RunQuerySet:
    """Return the visible runs in flight, the most overdue first, then the newest.

    At the same severity, runs that are overdue in the queue come last: they wait for others.
    """
    severity = Greatest(F("overdue_severity"), F("abort_severity"))
    is_in_queue = Case(When(overdue_reason=OverdueReason.QUEUE, then=1), default=0)
    return (
        _visible_runs(permissions)
        .in_flight()
        .order_by(severity.desc(), is_in_queue, "-created_at", "-pk")
    )


def overdue(permissions: Permissions) -> RunQuerySet:
    """Return the runs in flight that need attention, the worst first.

    Runs that are only overdue in the queue are left out (see `overdue_in_queue`).
    """
    return in_flight(permissions).filter(OVERDUE).exclude(IN_QUEUE)


def overdue_in_queue(permissions: Permissions) -> RunQuerySet:
    """Return the runs that are overdue in the queue; one stuck run can delay many."""
    return in_flight(permissions).filter(OVERDUE, IN_QUEUE)


def on_time(permissions: Permissions) -> RunQuerySet:
    """Return the runs in flight that are not overdue: waiting for approval first, then newest."""
    approval_first = Case(When(status="approval_wait", then=0), default=1)
    return in_flight(permissions).exclude(OVERDUE).order_by(approval_first, "-created_at", "-pk")


def recently_failed(permissions: Permissions, now: datetime) -> RunQuerySet:
    """Return the runs whose failure needs attention, latest first."""
    return failed(permissions, now, alerts.NEW_FAILURE_AGE)


def failed_earlier(permissions: Permissions, now: datetime) -> RunQuerySet:
    """Return the runs that failed in the last day and no longer need attention, latest first."""
    return failed(permissions, now, except_within=alerts.NEW_FAILURE_AGE)


def failed(
    permissions: Permissions,
    now: datetime,
    window: timedelta = alerts.MAX_FAILURE_AGE,
    *,
    except_within: timedelta | None = None,
) -> RunQuerySet:
    """Return the runs that failed within `window`, latest first, except runs aborted here.

    With `except_within`, failures within that shorter time are left out, too.
    """
    # The API may omit concludedAt.
    ended_at = Coalesce("concluded_at", "updated_at", "created_at")
    failures = (
        _visible_runs(permissions).filter(status="failure", concluded=True).annotate(ended=ended_at)
    )
    recent_failures = failures.filter(ended__gt=now - window).exclude(_aborted_here())
    if except_within is not None:
        recent_failures = recent_failures.filter(ended__lte=now - except_within)
    return recent_failures.order_by("-ended", "-pk")


def recently_aborted(permissions: Permissions, now: datetime) -> RunQuerySet:
    """Return the runs that had an abort requested here in the last hour and are not in flight.

    Runs in `failed` are left out: their abort was refused, for example, or came too late.
    """
    recently_requested = Abort.objects.filter(requested_at__gt=now - ABORTED_WINDOW).values("run")
    not_in_flight = _visible_runs(permissions).filter(pk__in=recently_requested, in_flight=False)
    not_failed = not_in_flight.exclude(pk__in=failed(permissions, now).order_by().values("pk"))
    return not_failed.order_by("-concluded_at", "-pk")


def in_flight_by_stage(permissions: Permissions) -> dict[int, InFlightTotals]:
    """Return the totals of the visible runs in flight, by stage key."""
    return totals_by_stage(in_flight(permissions))


def totals_by_stage(runs: RunQuerySet) -> dict[int, InFlightTotals]:
    """Return the totals of `runs`, by stage key."""
    totals: dict[int, list[InFlightTotals]] = {}
    grouped = runs.order_by().values_list("stage", "status", "overdue_severity", "abort_severity")
    for stage, status, overdue, aborting, count in grouped.annotate(count=Count("pk")):
        severity = max(overdue, aborting)
        overdue_count, critical_count = count if severity else 0, count if severity > 1 else 0
        group_totals = InFlightTotals(
            frozenset([status]), overdue, aborting, count, overdue_count, critical_count
        )
        totals.setdefault(stage, []).append(group_totals)
    return {stage: combine(stage_totals) for stage, stage_totals in totals.items()}


def combine(totals: Iterable[InFlightTotals]) -> InFlightTotals:
    """Return the sum of several totals, with the worst severities."""
    totals_list = list(totals)
    return InFlightTotals(
        frozenset[str]().union(*(one.statuses for one in totals_list)),
        max((totals_item.overdue_severity for totals_item in totals_list), default=0),
        max((one.abort_severity for one in totals_list), default=0),
        count=sum(one.count for one in totals_list),
        overdue_count=sum(one.overdue_count for one in totals_list),
        critical_count=sum(one.critical_count for one in totals_list),
    )


def has_open_aborts(permissions: Permissions) -> bool:
    """Return whether an abort of a visible run is under way."""
    return Abort.objects.open().filter(permissions.stage_filter("run__stage")).exists()


def load_counts(
    permissions: Permissions, now: datetime, in_flight_by_stage: Mapping[int, InFlightTotals]
) -> Counts:
    """Return the number of visible runs in each section of the page."""
    all_totals = combine(in_flight_by_stage.values())
    is_recent = Q(ended__gt=now - alerts.NEW_FAILURE_AGE)
    failed_counts = (
        failed(permissions, now)
        .order_by()
        .aggregate(failed=Count("pk"), recently_failed=Count("pk", filter=is_recent))
    )
    return Counts(
        in_flight=all_totals.count,
        overdue=all_totals.overdue_count,
        critical=all_totals.critical_count,
        stage_count=len(in_flight_by_stage),
        aborted=recently_aborted(permissions, now).count(),
        **failed_counts,
    )


def load_title_totals(
    permissions: Permissions, now: datetime, in_flight_by_stage: Mapping[int, InFlightTotals]
) -> InFlightTotals:
    """Return the totals for the tab title: the runs in flight, and whether a run just failed."""
    return title_totals(
        in_flight_by_stage, has_recent_failure=recently_failed(permissions, now).exists()
    )


def title_totals(
    in_flight_by_stage: Mapping[int, InFlightTotals], *, has_recent_failure: bool
) -> InFlightTotals:
    """Return the totals for the tab title, given whether a run just failed."""
    statuses = {"failure"} if has_recent_failure else ()
    return combine([InFlightTotals(frozenset(statuses)), *in_flight_by_stage.values()])


def data_age(
    permissions: Permissions,
    stages: Sequence[Stage],
    in_flight_stages: Collection[int],
    counts: Counts,
) -> DataAge:
    """Return the page's data age: that of the stages with runs in flight, or of all stages."""
    shown_stages = [stage for stage in stages if stage.pk in in_flight_stages]
    return page_data_age(permissions, stages, counts, shown_stages=shown_stages)


def _visible_runs(permissions: Permissions) -> RunQuerySet:
    return Run.objects.filter(permissions.stage_filter("stage"))


def _aborted_here() -> Exists:
    """Return a condition: an abort requested here before the run ended was accepted."""
    accepted = Abort.objects.accepted().filter(run=OuterRef("pk"))
    ended_at = Coalesce(OuterRef("concluded_at"), OuterRef("status_since"))
    return Exists(accepted.filter(requested_at__lt=ended_at))
