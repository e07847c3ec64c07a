"""What Now is about: which runs it shows, how many there are, and how old that is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models.functions import Coalesce

from dashboard.models import Abort, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.web import live
from dashboard.web.live import AsOf

RECENTLY = timedelta(days=1)
# A run that was aborted here stays in sight, so that whoever did it sees what came of it.
JUST_NOW = timedelta(hours=1)
# A run that failed this lately is news in the tab's title.
NEWS = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many runs each part of the page is about."""

    in_flight: int
    stages: int
    aborted: int
    failed: int


def in_flight() -> RunQuerySet:
    """Return the runs in flight, the newest first."""
    return Run.objects.in_flight().order_by("-created_at", "-pk")


def failed(now: datetime, within: timedelta = RECENTLY) -> RunQuerySet:
    """Return the runs that failed lately, the latest first."""
    ended = Coalesce("concluded_at", "updated_at", "created_at")  # the API may leave out the first
    failures = Run.objects.filter(status="failure", concluded=True).annotate(ended=ended)
    return failures.filter(ended__gt=now - within).order_by("-ended", "-pk")


def aborted(now: datetime) -> RunQuerySet:
    """Return the runs that were aborted from here lately and have ended, but did not fail."""
    lately = Abort.objects.filter(requested_at__gt=now - JUST_NOW).values("run")
    ended = Run.objects.filter(pk__in=lately, in_flight=False)
    others = ended.exclude(pk__in=failed(now).order_by().values("pk"))
    return others.order_by("-concluded_at", "-pk")


def flying() -> dict[int, set[str]]:
    """Return the statuses of the runs in flight, by the keys of their stages."""
    found: dict[int, set[str]] = {}
    for stage, status in in_flight().order_by().values_list("stage", "status").distinct():
        found.setdefault(stage, set()).add(status)
    return found


def counts(now: datetime, flying: Collection[int]) -> Counts:
    """Count the runs of each part."""
    return Counts(in_flight().count(), len(flying), aborted(now).count(), failed(now).count())


def news(now: datetime, flying: Mapping[int, set[str]]) -> set[str]:
    """Return the statuses that decide the tab's title: of what is in flight or has just failed."""
    just_failed = {"failure"} if failed(now, NEWS).exists() else set()
    return just_failed.union(*flying.values())


def as_of(stages: Sequence[Stage], flying: Collection[int], counts: Counts) -> AsOf:
    """Say how old the page is: as the stages with runs in flight or, where none flies, as all."""
    shown = [stage for stage in stages if stage.pk in flying]
    return live.as_of_all(stages, counts, shown=shown)
