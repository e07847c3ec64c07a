"""What an event does: the stages it may concern are read soon. It is a hint, never a source.

An event is heeded within the request that brings it: a handful of indexed statements in one
transaction, which takes milliseconds. There is no queue that a crash could lose: either all of it
is kept, or Northflank is not answered 2xx and sends it again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet

from dashboard.models import CatalogueSweep, Project, Push, PushEvent, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.sync import catalogue, schedule
from dashboard.sync.event_ids import Mentions, mentioned
from dashboard.upstream import budget_store

PREFIX = "trigger:"  # how the API spells an event, but for the bodies it sends
CONCERNS_US = "release-flow-template-run:"
REMEMBERED = timedelta(days=1)  # how long an event is known by its id
FORGOTTEN_AT_ONCE = 100  # a new event makes room for as many old ones

# Events may ask for this share of the even rate at which reading may spend, and, after a quiet
# time, for so many readings in a row. Whatever comes, the hour's requests last until it ends.
SHARE = 0.5
IN_A_ROW = 20
SLOWEST = timedelta(seconds=300)  # between two readings that events ask for, with nothing left
# A project's idle stages, where a start does not say which one it means, are read at once as long
# as half of those turns is left; else each fourth turn, the last active first, as far as that goes
# and where they were not read as lately. The others are left to their own time.
SPREAD = timedelta(seconds=120)
IDLE_TURN = 4
SWEEP_AGAIN = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Event:
    """An authentic event, as it was decoded."""

    name: str
    data: object
    id: str = ""

    @property
    def concerns_us(self) -> bool:
        return self.name.removeprefix(PREFIX).startswith(CONCERNS_US)

    @property
    def word(self) -> str:
        """What has happened: `start`, `update`, `success`, `failure` or `aborted` so far."""
        return self.name.rpartition(":")[2]


def heed(event: Event, now: datetime) -> None:
    """Count an event and, unless it is known already, have what it may concern read soon."""
    Push.objects.get_or_create(pk=1)
    with transaction.atomic():
        # Locks the row first: events take turns, so that none deadlocks with another.
        row = Push.objects.filter(pk=1)
        row.update(events=F("events") + 1, heard_at=now)
        if event.id and not _is_new(event.id, now):
            row.update(duplicates=F("duplicates") + 1)
        elif not event.concerns_us:
            row.update(others=F("others") + 1)
        else:
            row.update(rung_at=now)
            _ring(mentioned(event.data), event.word, now)


def note_refusal(now: datetime) -> bool:
    """Note that a webhook came with a wrong token, and say whether it is worth a line of log.

    Anybody can send those: they cost one indexed query, and one write in ten seconds.
    """
    latest = now - timedelta(seconds=10)
    if Push.objects.filter(refused_at__gt=latest).exists():
        return False
    Push.objects.update_or_create(pk=1, defaults={"refused_at": now})
    return True


def _is_new(event_id: str, now: datetime) -> bool:
    # Its digest: an id is somebody else's text, of any length.
    digest = blake2b(event_id.encode(errors="replace"), digest_size=16).hexdigest()
    _, new = PushEvent.objects.get_or_create(digest=digest, defaults={"heard_at": now})
    if new:
        old = PushEvent.objects.filter(heard_at__lt=now - REMEMBERED).values_list("pk", flat=True)
        if keys := list(old[:FORGOTTEN_AT_ONCE]):
            PushEvent.objects.filter(pk__in=keys).delete()
    return new


def _ring(said: Mentions, word: str, now: datetime) -> None:
    pace = _Pace(now)
    likely, possible = _concerned(said, now)
    # Most events are updates, which come again: where one may mean several stages, it leaves half
    # of the turns to those that tell of a start or an end.
    minor = word == "update" and len(likely) > 1
    due: list[tuple[Stage, datetime]] = []
    for stage in likely:
        if not minor or pace.spare > IN_A_ROW // 2:
            due += pace.turn(stage)
    later = now
    for stage in possible:
        if word == "start" and pace.spare > IN_A_ROW // 2:  # other events are of runs in flight
            due += pace.turn(stage)
        elif stage.synced_at is None or stage.synced_at < now - SPREAD:
            later += pace.gap * IDLE_TURN
            if later > now + SPREAD:
                break
            if _wanting(stage, later, now):
                due.append((stage, later))
    pace.keep()
    # By their keys, as all do who write several stages in one transaction: two that each wait for
    # the other's would be a deadlock.
    for stage, at in sorted(due, key=lambda each: each[0].pk):
        _make_due(stage, at, now)


def _concerned(said: Mentions, now: datetime) -> tuple[Sequence[Stage], Sequence[Stage]]:
    """Return the stages that an event is likely to be about, and others that it may be about.

    What narrows must be told by its key and be known to us; else the event is taken to be about
    all of the project, or of the account.
    """
    stages = Stage.objects.present()
    if said.projects:
        projects = Project.objects.filter(gone_at=None).filter(
            Q(slug__in=said.projects) | Q(name__in=said.projects)
        )
        stages = stages.filter(pipeline__project__in=projects)
        if not projects.exists():
            _sweep_soon(CatalogueSweep.objects.filter(project=None), said.projects, now)
            return [], []
    # A run's id is its own: wherever it stands, it can mean nothing else.
    runs = Run.objects.filter(run_id__in=said.anything)
    if of_runs := list(stages.filter(pk__in=runs.values("stage"))):
        return of_runs, []
    narrow = False
    if said.pipelines:
        of_pipelines = stages.filter(
            Q(pipeline__slug__in=said.pipelines) | Q(pipeline__name__in=said.pipelines)
        )
        narrow = of_pipelines.exists()
        if narrow:
            stages = of_pipelines
        elif said.projects:
            _sweep_soon(CatalogueSweep.objects.filter(project__in=projects), said.projects, now)
    if named := said.stages & set(StageName.values):
        stages = stages.filter(name__in=named)
    if not (narrow and named):
        stages = stages.exclude(has_flow=False)
    if narrow:
        return list(stages), []
    flying = set(Run.objects.followed().order_by().values_list("stage", flat=True).distinct())
    found = list(stages.order_by(F("active_at").desc(nulls_last=True), "pk"))
    likely = [stage for stage in found if stage.pk in flying]
    return (
        sorted(likely, key=lambda stage: (not _is_watched(stage, now), stage.synced_at or _NEVER)),
        [stage for stage in found if stage.pk not in flying],
    )


_NEVER = datetime.min.replace(tzinfo=UTC)


def _is_watched(stage: Stage, now: datetime) -> bool:
    return stage.watched_at is not None and now - stage.watched_at < schedule.WATCHED_FOR


class _Pace:
    """Takes turns for the readings that events ask for; call `keep` when all have been taken."""

    def __init__(self, now: datetime) -> None:
        rate = budget_store.allowance(now).per_second * SHARE
        self.now = now
        self.gap = min(timedelta(seconds=1 / max(rate, 1e-6)), SLOWEST)
        kept = Push.objects.values_list("paced_until", flat=True).get(pk=1)
        saved = now - self.gap * IN_A_ROW
        self._used = max(kept, saved) if kept else saved

    @property
    def spare(self) -> int:
        """How many turns can be taken at once."""
        return (self.now - self._used) // self.gap

    def turn(self, stage: Stage) -> Iterator[tuple[Stage, datetime]]:
        """Take the next turn for a stage, unless it is read by then anyway: yield it, and when."""
        turn = self._used + self.gap
        at = max(turn, self.now)
        if _wanting(stage, at, self.now):
            self._used = turn
            yield stage, at

    def keep(self) -> None:
        Push.objects.filter(pk=1).update(paced_until=self._used)


def _wanting(stage: Stage, at: datetime, now: datetime) -> bool:
    """Say whether a stage has to be made due for a reading at `at`."""
    # Somebody is reading it: the answer may be older than the event, so it is read again.
    being_read = stage.claimed_until is not None and stage.claimed_until > now
    # It waits among all that are due; an event puts it first.
    waits = stage.next_sync_at <= now and at <= now and not _is_rung(stage)
    # What fails keeps its rest.
    return not stage.failures and (stage.next_sync_at > at or being_read or waits)


def _is_rung(stage: Stage) -> bool:
    return bool(stage.rung_at and stage.synced_at and stage.rung_at > stage.synced_at)


def _make_due(stage: Stage, at: datetime, now: datetime) -> None:
    # Said once more in the statements: a worker may have been here meanwhile.
    this = Stage.objects.filter(pk=stage.pk, failures=0)
    changes: dict[str, Any] = {"next_sync_at": at, "rung_at": at}
    if stage.has_flow is False:
        changes["flow_seen_at"] = None  # it seems to have a release flow by now: ask for that first
    if this.filter(Q(next_sync_at__gt=at) | Q(claimed_until__gt=now)).update(**changes):
        return
    not_rung = Q(rung_at=None) | Q(rung_at__lte=F("synced_at"))
    this.filter(not_rung, next_sync_at__lte=now).update(rung_at=at)


def _sweep_soon(sweeps: QuerySet[CatalogueSweep], named: Iterable[str], now: datetime) -> None:
    """Have a part of the catalogue listed soon in which something unknown was named."""
    wanted = set(settings.NORTHFLANK_PROJECTS)
    if wanted and wanted.isdisjoint(named):
        return  # it is about a project that is not shown
    # One that is under way, or nearly due, is booked within its lease.
    late = sweeps.filter(failures=0, next_at__gt=now + catalogue.LEASE)
    late.filter(Q(swept_at=None) | Q(swept_at__lt=now - SWEEP_AGAIN)).update(next_at=now)
