"""What Now is about: which runs it shows, how many there are, and how old that is.

All of it as far as the person's rights go: what is hidden is not counted either.
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
from dashboard.web.live import region
from dashboard.web.live.region import DataAge

# A run that was aborted here stays in sight, so that whoever did it sees what came of it.
ABORTED_WINDOW = timedelta(hours=1)
# A run in flight that takes too long, or whose abort does.
OVERDUE = Q(overdue_severity__gt=0) | Q(abort_severity__gt=0)
IN_QUEUE = Q(overdue_reason=OverdueReason.QUEUE, abort_severity=0)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many runs each part of the page is about.

    All of it decides the page's shape: where a count changes, runs may belong elsewhere.
    """

    in_flight: int
    overdue: int  # of them
    critical: int  # of those: by far
    stage_count: int
    aborted: int
    failed: int
    recently_failed: int  # of them

    @property
    def needs_attention(self) -> int:
        """How many need attention."""
        return self.overdue + self.recently_failed

    @property
    def on_time(self) -> int:
        """How many others are in flight."""
        return self.in_flight - self.overdue

    @property
    def failed_earlier(self) -> int:
        """How many others failed lately."""
        return self.failed - self.recently_failed


@dataclass(frozen=True, slots=True)
class InFlightTotals:
    """Some runs in flight, and what makes them urgent: statuses, and how far the worst is late."""

    statuses: frozenset[str] = frozenset()
    overdue_severity: int = 0  # of timing.Overdue
    abort_severity: int = 0  # how far the worst abort is: of escalation.Level
    count: int = 0
    overdue_count: int = 0  # how many of them are overdue, or their aborts
    critical_count: int = 0  # how many of those by far


def in_flight(permissions: Permissions) -> RunQuerySet:
    """Return the runs in flight: the furthest overdue first, and then the newest.

    Of two that are as bad, the one that holds up comes before the one that waits.
    """
    severity = Greatest(F("overdue_severity"), F("abort_severity"))
    is_in_queue = Case(When(overdue_reason=OverdueReason.QUEUE, then=1), default=0)
    return (
        _visible_runs(permissions)
        .in_flight()
        .order_by(severity.desc(), is_in_queue, "-created_at", "-pk")
    )


def overdue(permissions: Permissions) -> RunQuerySet:
    """Return the runs in flight that need attention, the worst first; not those that only wait."""
    return in_flight(permissions).filter(OVERDUE).exclude(IN_QUEUE)


def overdue_in_queue(permissions: Permissions) -> RunQuerySet:
    """Return the runs that wait too long for their turn: where one is stuck there are many."""
    return in_flight(permissions).filter(OVERDUE, IN_QUEUE)


def on_time(permissions: Permissions) -> RunQuerySet:
    """Return the other runs in flight: those that wait for people first, and then the newest."""
    approval_first = Case(When(status="approval_wait", then=0), default=1)
    return in_flight(permissions).exclude(OVERDUE).order_by(approval_first, "-created_at", "-pk")


def recently_failed(permissions: Permissions, now: datetime) -> RunQuerySet:
    """Return the runs whose failure needs attention, the latest first."""
    return failed(permissions, now, alerts.NEW_FAILURE_AGE)


def failed_earlier(permissions: Permissions, now: datetime) -> RunQuerySet:
    """Return the other runs that failed lately, the latest first."""
    return failed(permissions, now, except_within=alerts.NEW_FAILURE_AGE)


def failed(
    permissions: Permissions,
    now: datetime,
    window: timedelta = alerts.MAX_FAILURE_AGE,
    *,
    except_within: timedelta | None = None,
) -> RunQuerySet:
    """Return the runs that failed lately, the latest first; not those that we had aborted.

    Nor those that failed more lately still, if `but_within` says within which time.
    """
    ended_at = Coalesce(
        "concluded_at", "updated_at", "created_at"
    )  # the API may leave out the first
    failures = (
        _visible_runs(permissions).filter(status="failure", concluded=True).annotate(ended=ended_at)
    )
    recent_failures = failures.filter(ended__gt=now - window).exclude(_aborted_here())
    if except_within is not None:
        recent_failures = recent_failures.filter(ended__lte=now - except_within)
    return recent_failures.order_by("-ended", "-pk")


def recently_aborted(permissions: Permissions, now: datetime) -> RunQuerySet:
    """Return the runs that were aborted from here lately and have ended, however they did.

    Not those that failed without us: their abort was refused, say, or came too late.
    """
    recently_requested = Abort.objects.filter(requested_at__gt=now - ABORTED_WINDOW).values("run")
    not_in_flight = _visible_runs(permissions).filter(pk__in=recently_requested, in_flight=False)
    not_failed = not_in_flight.exclude(pk__in=failed(permissions, now).order_by().values("pk"))
    return not_failed.order_by("-concluded_at", "-pk")


def in_flight_by_stage(permissions: Permissions) -> dict[int, InFlightTotals]:
    """Return what is in flight, by the keys of the stages."""
    return totals_by_stage(in_flight(permissions))


def totals_by_stage(runs: RunQuerySet) -> dict[int, InFlightTotals]:
    """Return what `runs` are, by the keys of their stages."""
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
    """Return what several are taken together."""
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
    """Say whether an abort is under way."""
    return Abort.objects.open().filter(permissions.stage_filter("run__stage")).exists()


def load_counts(
    permissions: Permissions, now: datetime, in_flight_by_stage: Mapping[int, InFlightTotals]
) -> Counts:
    """Count the runs of each part."""
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
    """Return what decides the tab's title: what is in flight or has just failed."""
    return title_totals(
        in_flight_by_stage, has_recent_failure=recently_failed(permissions, now).exists()
    )


def title_totals(
    in_flight_by_stage: Mapping[int, InFlightTotals], *, has_recent_failure: bool
) -> InFlightTotals:
    """Return the same where it is known already whether something has just failed."""
    statuses = {"failure"} if has_recent_failure else ()
    return combine([InFlightTotals(frozenset(statuses)), *in_flight_by_stage.values()])


def data_age(
    permissions: Permissions,
    stages: Sequence[Stage],
    in_flight_stages: Collection[int],
    counts: Counts,
) -> DataAge:
    """Say how old the page is: as the stages with runs in flight or, where none flies, as all."""
    shown_stages = [stage for stage in stages if stage.pk in in_flight_stages]
    return region.page_data_age(permissions, stages, counts, shown_stages=shown_stages)


def _visible_runs(permissions: Permissions) -> RunQuerySet:
    return Run.objects.filter(permissions.stage_filter("stage"))


def _aborted_here() -> Exists:
    """Whether an abort from here went through to a run before it ended: that is no failure."""
    accepted = Abort.objects.accepted().filter(run=OuterRef("pk"))
    ended_at = Coalesce(OuterRef("concluded_at"), OuterRef("status_since"))
    return Exists(accepted.filter(requested_at__lt=ended_at))
