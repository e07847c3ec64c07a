"""What Now is about: which runs it shows, how many there are, and how old that is.

All of it as far as the person's rights go: what is hidden is not counted either.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, Count, Exists, F, OuterRef, Q, When
from django.db.models.functions import Coalesce, Greatest

from dashboard.accounts.permissions import Rights
from dashboard.models import Abort, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.runs import alerts
from dashboard.runs.overdue import Why
from dashboard.web.live import region as live_region
from dashboard.web.live.region import AsOf

# A run that was aborted here stays in sight, so that whoever did it sees what came of it.
JUST_NOW = timedelta(hours=1)
# A run in flight that takes too long, or whose abort does.
LATE = Q(overdue__gt=0) | Q(aborting_level__gt=0)
WAITS = Q(overdue_why=Why.QUEUE, aborting_level=0)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many runs each part of the page is about.

    All of it decides the page's shape: where a count changes, runs may belong elsewhere.
    """

    in_flight: int
    late: int  # of them
    far: int  # of those: by far
    stages: int
    aborted: int
    failed: int
    just_failed: int  # of them

    @property
    def attention(self) -> int:
        """How many need attention."""
        return self.late + self.just_failed

    @property
    def calm(self) -> int:
        """How many others are in flight."""
        return self.in_flight - self.late

    @property
    def failed_before(self) -> int:
        """How many others failed lately."""
        return self.failed - self.just_failed


@dataclass(frozen=True, slots=True)
class Flights:
    """Some runs in flight, and what makes them urgent: statuses, and how far the worst is late."""

    statuses: frozenset[str] = frozenset()
    overdue: int = 0  # of timing.Overdue
    aborting: int = 0  # how far the worst abort is: of escalation.Level
    count: int = 0
    late: int = 0  # how many of them are overdue, or their aborts
    far: int = 0  # how many of those by far


def in_flight(rights: Rights) -> RunQuerySet:
    """Return the runs in flight: the furthest overdue first, and then the newest.

    Of two that are as bad, the one that holds up comes before the one that waits.
    """
    badness = Greatest(F("overdue"), F("aborting_level"))
    waits = Case(When(overdue_why=Why.QUEUE, then=1), default=0)
    return _seen(rights).in_flight().order_by(badness.desc(), waits, "-created_at", "-pk")


def late(rights: Rights) -> RunQuerySet:
    """Return the runs in flight that need attention, the worst first; not those that only wait."""
    return in_flight(rights).filter(LATE).exclude(WAITS)


def waiting_late(rights: Rights) -> RunQuerySet:
    """Return the runs that wait too long for their turn: where one is stuck there are many."""
    return in_flight(rights).filter(LATE, WAITS)


def calm(rights: Rights) -> RunQuerySet:
    """Return the other runs in flight: those that wait for people first, and then the newest."""
    others = Case(When(status="approval_wait", then=0), default=1)
    return in_flight(rights).exclude(LATE).order_by(others, "-created_at", "-pk")


def just_failed(rights: Rights, now: datetime) -> RunQuerySet:
    """Return the runs whose failure needs attention, the latest first."""
    return failed(rights, now, alerts.JUST_NOW)


def failed_before(rights: Rights, now: datetime) -> RunQuerySet:
    """Return the other runs that failed lately, the latest first."""
    return failed(rights, now, but_within=alerts.JUST_NOW)


def failed(
    rights: Rights,
    now: datetime,
    within: timedelta = alerts.LATELY,
    *,
    but_within: timedelta | None = None,
) -> RunQuerySet:
    """Return the runs that failed lately, the latest first; not those that we had aborted.

    Nor those that failed more lately still, if `but_within` says within which time.
    """
    ended = Coalesce("concluded_at", "updated_at", "created_at")  # the API may leave out the first
    failures = _seen(rights).filter(status="failure", concluded=True).annotate(ended=ended)
    lately = failures.filter(ended__gt=now - within).exclude(_stopped_by_us())
    if but_within is not None:
        lately = lately.filter(ended__lte=now - but_within)
    return lately.order_by("-ended", "-pk")


def aborted(rights: Rights, now: datetime) -> RunQuerySet:
    """Return the runs that were aborted from here lately and have ended, however they did.

    Not those that failed without us: their abort was refused, say, or came too late.
    """
    lately = Abort.objects.filter(requested_at__gt=now - JUST_NOW).values("run")
    ended = _seen(rights).filter(pk__in=lately, in_flight=False)
    others = ended.exclude(pk__in=failed(rights, now).order_by().values("pk"))
    return others.order_by("-concluded_at", "-pk")


def flying(rights: Rights) -> dict[int, Flights]:
    """Return what is in flight, by the keys of the stages."""
    return flights(in_flight(rights))


def flights(runs: RunQuerySet) -> dict[int, Flights]:
    """Return what `runs` are, by the keys of their stages."""
    found: dict[int, list[Flights]] = {}
    alike = runs.order_by().values_list("stage", "status", "overdue", "aborting_level")
    for stage, status, overdue, aborting, count in alike.annotate(count=Count("pk")):
        level = max(overdue, aborting)
        late, far = count if level else 0, count if level > 1 else 0
        of = Flights(frozenset([status]), overdue, aborting, count, late, far)
        found.setdefault(stage, []).append(of)
    return {stage: together(each) for stage, each in found.items()}


def together(flights: Iterable[Flights]) -> Flights:
    """Return what several are taken together."""
    each = list(flights)
    return Flights(
        frozenset[str]().union(*(one.statuses for one in each)),
        max((one.overdue for one in each), default=0),
        max((one.aborting for one in each), default=0),
        count=sum(one.count for one in each),
        late=sum(one.late for one in each),
        far=sum(one.far for one in each),
    )


def aborting(rights: Rights) -> bool:
    """Say whether an abort is under way."""
    return Abort.objects.open().filter(rights.places("run__stage")).exists()


def counts(rights: Rights, now: datetime, flying: Mapping[int, Flights]) -> Counts:
    """Count the runs of each part."""
    in_all = together(flying.values())
    just_now = Q(ended__gt=now - alerts.JUST_NOW)
    of_failed = (
        failed(rights, now)
        .order_by()
        .aggregate(failed=Count("pk"), just_failed=Count("pk", filter=just_now))
    )
    return Counts(
        in_flight=in_all.count,
        late=in_all.late,
        far=in_all.far,
        stages=len(flying),
        aborted=aborted(rights, now).count(),
        **of_failed,
    )


def news(rights: Rights, now: datetime, flying: Mapping[int, Flights]) -> Flights:
    """Return what decides the tab's title: what is in flight or has just failed."""
    return worst(flying, failed=just_failed(rights, now).exists())


def worst(flying: Mapping[int, Flights], *, failed: bool) -> Flights:
    """Return the same where it is known already whether something has just failed."""
    statuses = {"failure"} if failed else ()
    return together([Flights(frozenset(statuses)), *flying.values()])


def as_of(rights: Rights, stages: Sequence[Stage], flying: Collection[int], counts: Counts) -> AsOf:
    """Say how old the page is: as the stages with runs in flight or, where none flies, as all."""
    shown = [stage for stage in stages if stage.pk in flying]
    return live_region.as_of_all(rights, stages, counts, shown=shown)


def _seen(rights: Rights) -> RunQuerySet:
    return Run.objects.filter(rights.places("stage"))


def _stopped_by_us() -> Exists:
    """Whether an abort from here went through to a run before it ended: that is no failure."""
    ours = Abort.objects.went_through().filter(run=OuterRef("pk"))
    over = Coalesce(OuterRef("concluded_at"), OuterRef("status_since"))
    return Exists(ours.filter(requested_at__lt=over))
