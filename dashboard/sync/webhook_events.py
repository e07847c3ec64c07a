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

from dashboard.models import CatalogSync, Project, Run, Stage, WebhookEvent, WebhookStats
from dashboard.models.catalog import StageName
from dashboard.sync import catalog, schedule
from dashboard.sync.event_ids import EventIds, extract_event_ids
from dashboard.upstream import budget_store

EVENT_PREFIX = "trigger:"  # how the API spells an event, but for the bodies it sends
RELEASE_EVENT_PREFIX = "release-flow-template-run:"
DEDUPLICATION_PERIOD = timedelta(days=1)  # how long an event is known by its id
PURGE_LIMIT = 100  # a new event makes room for as many old ones

# Events may ask for this share of the even rate at which reading may spend, and, after a quiet
# time, for so many readings in a row. Whatever comes, the hour's requests last until it ends.
RATE_SHARE = 0.5
MAX_BURST = 20
MAX_SPACING = timedelta(seconds=300)  # between two readings that events ask for, with nothing left
# A project's idle stages, where a start does not say which one it means, are read at once as long
# as half of those turns is left; else each fourth turn, the last active first, as far as that goes
# and where they were not read as lately. The others are left to their own time.
IDLE_SPREAD = timedelta(seconds=120)
IDLE_SPACING_FACTOR = 4
MIN_CATALOGUE_INTERVAL = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Event:
    """An authentic event, as it was decoded."""

    name: str
    data: object
    id: str = ""

    @property
    def is_release_event(self) -> bool:
        return self.name.removeprefix(EVENT_PREFIX).startswith(RELEASE_EVENT_PREFIX)

    @property
    def action(self) -> str:
        """What has happened: `start`, `update`, `success`, `failure` or `aborted` so far."""
        return self.name.rpartition(":")[2]


def handle_event(event: Event, now: datetime) -> None:
    """Count an event and, unless it is known already, have what it may concern read soon."""
    WebhookStats.objects.get_or_create(pk=1)
    with transaction.atomic():
        # Locks the row first: events take turns, so that none deadlocks with another.
        status = WebhookStats.objects.filter(pk=1)
        status.update(event_count=F("event_count") + 1, last_event_at=now)
        if event.id and not _is_first_delivery(event.id, now):
            status.update(duplicate_count=F("duplicate_count") + 1)
        elif not event.is_release_event:
            status.update(unrelated_count=F("unrelated_count") + 1)
        else:
            status.update(last_release_event_at=now)
            _schedule_reads(extract_event_ids(event.data), event.action, now)


def record_rejection(now: datetime) -> bool:
    """Note that a webhook came with a wrong token, and say whether it is worth a line of log.

    Anybody can send those: they cost one indexed query, and one write in ten seconds.
    """
    cutoff = now - timedelta(seconds=10)
    if WebhookStats.objects.filter(last_rejected_at__gt=cutoff).exists():
        return False
    WebhookStats.objects.update_or_create(pk=1, defaults={"last_rejected_at": now})
    return True


def _is_first_delivery(event_id: str, now: datetime) -> bool:
    # Its digest: an id is somebody else's text, of any length.
    digest = blake2b(event_id.encode(errors="replace"), digest_size=16).hexdigest()
    _, created = WebhookEvent.objects.get_or_create(digest=digest, defaults={"received_at": now})
    if created:
        expired = WebhookEvent.objects.filter(
            received_at__lt=now - DEDUPLICATION_PERIOD
        ).values_list("pk", flat=True)
        if keys := list(expired[:PURGE_LIMIT]):
            WebhookEvent.objects.filter(pk__in=keys).delete()
    return created


def _schedule_reads(event_ids: EventIds, action: str, now: datetime) -> None:
    throttle = _ReadThrottle(now)
    likely, possible = _find_stages(event_ids, now)
    # Most events are updates, which come again: where one may mean several stages, it leaves half
    # of the turns to those that tell of a start or an end.
    is_minor = action == "update" and len(likely) > 1
    due: list[tuple[Stage, datetime]] = []
    for stage in likely:
        if not is_minor or throttle.free_slots > MAX_BURST // 2:
            due += throttle.take_slot(stage)
    slot = now
    for stage in possible:
        if (
            action == "start" and throttle.free_slots > MAX_BURST // 2
        ):  # other events are of runs in flight
            due += throttle.take_slot(stage)
        elif stage.synced_at is None or stage.synced_at < now - IDLE_SPREAD:
            slot += throttle.spacing * IDLE_SPACING_FACTOR
            if slot > now + IDLE_SPREAD:
                break
            if _needs_read(stage, slot, now):
                due.append((stage, slot))
    throttle.save()
    # By their keys, as all do who write several stages in one transaction: two that each wait for
    # the other's would be a deadlock.
    for stage, due_at in sorted(due, key=lambda entry: entry[0].pk):
        _make_due(stage, due_at, now)


def _find_stages(event_ids: EventIds, now: datetime) -> tuple[Sequence[Stage], Sequence[Stage]]:
    """Return the stages that an event is likely to be about, and others that it may be about.

    What narrows must be told by its key and be known to us; else the event is taken to be about
    all of the project, or of the account.
    """
    stages = Stage.objects.listed()
    if event_ids.projects:
        projects = Project.objects.filter(removed_at=None).filter(
            Q(slug__in=event_ids.projects) | Q(name__in=event_ids.projects)
        )
        stages = stages.filter(pipeline__project__in=projects)
        if not projects.exists():
            _refresh_catalog(CatalogSync.objects.filter(project=None), event_ids.projects, now)
            return [], []
    # A run's id is its own: wherever it stands, it can mean nothing else.
    runs = Run.objects.filter(run_id__in=event_ids.candidates)
    if run_stages := list(stages.filter(pk__in=runs.values("stage"))):
        return run_stages, []
    has_pipeline = False
    if event_ids.pipelines:
        pipeline_stages = stages.filter(
            Q(pipeline__slug__in=event_ids.pipelines) | Q(pipeline__name__in=event_ids.pipelines)
        )
        has_pipeline = pipeline_stages.exists()
        if has_pipeline:
            stages = pipeline_stages
        elif event_ids.projects:
            _refresh_catalog(
                CatalogSync.objects.filter(project__in=projects), event_ids.projects, now
            )
    if stage_names := event_ids.stages & set(StageName.values):
        stages = stages.filter(name__in=stage_names)
    if not (has_pipeline and stage_names):
        stages = stages.exclude(has_flow=False)
    if has_pipeline:
        return list(stages), []
    in_flight = set(Run.objects.tracked().order_by().values_list("stage", flat=True).distinct())
    candidates = list(stages.order_by(F("last_run_change_at").desc(nulls_last=True), "pk"))
    likely = [stage for stage in candidates if stage.pk in in_flight]
    return (
        sorted(likely, key=lambda stage: (not _is_watched(stage, now), stage.synced_at or _NEVER)),
        [stage for stage in candidates if stage.pk not in in_flight],
    )


_NEVER = datetime.min.replace(tzinfo=UTC)


def _is_watched(stage: Stage, now: datetime) -> bool:
    return stage.last_viewed_at is not None and now - stage.last_viewed_at < schedule.WATCHED_FOR


class _ReadThrottle:
    """Takes turns for the readings that events ask for; call `keep` when all have been taken."""

    def __init__(self, now: datetime) -> None:
        rate = budget_store.load(now).requests_per_second * RATE_SHARE
        self.now = now
        self.spacing = min(timedelta(seconds=1 / max(rate, 1e-6)), MAX_SPACING)
        stored_slot = WebhookStats.objects.values_list("reads_booked_until", flat=True).get(pk=1)
        earliest_slot = now - self.spacing * MAX_BURST
        self._last_slot = max(stored_slot, earliest_slot) if stored_slot else earliest_slot

    @property
    def free_slots(self) -> int:
        """How many turns can be taken at once."""
        return (self.now - self._last_slot) // self.spacing

    def take_slot(self, stage: Stage) -> Iterator[tuple[Stage, datetime]]:
        """Take the next turn for a stage, unless it is read by then anyway: yield it, and when."""
        slot = self._last_slot + self.spacing
        due_at = max(slot, self.now)
        if _needs_read(stage, due_at, self.now):
            self._last_slot = slot
            yield stage, due_at

    def save(self) -> None:
        WebhookStats.objects.filter(pk=1).update(reads_booked_until=self._last_slot)


def _needs_read(stage: Stage, due_at: datetime, now: datetime) -> bool:
    """Say whether a stage has to be made due for a reading at `at`."""
    # Somebody is reading it: the answer may be older than the event, so it is read again.
    is_leased = stage.leased_until is not None and stage.leased_until > now
    # It waits among all that are due; an event puts it first.
    is_waiting = stage.next_sync_at <= now and due_at <= now and not _has_pending_event(stage)
    # What fails keeps its rest.
    return not stage.failures and (stage.next_sync_at > due_at or is_leased or is_waiting)


def _has_pending_event(stage: Stage) -> bool:
    return bool(
        stage.last_release_event_at
        and stage.synced_at
        and stage.last_release_event_at > stage.synced_at
    )


def _make_due(stage: Stage, due_at: datetime, now: datetime) -> None:
    # Said once more in the statements: a worker may have been here meanwhile.
    row = Stage.objects.filter(pk=stage.pk, failures=0)
    changes: dict[str, Any] = {"next_sync_at": due_at, "last_release_event_at": due_at}
    if stage.has_flow is False:
        changes["flow_synced_at"] = (
            None  # it seems to have a release flow by now: ask for that first
        )
    if row.filter(Q(next_sync_at__gt=due_at) | Q(leased_until__gt=now)).update(**changes):
        return
    no_pending_event = Q(last_release_event_at=None) | Q(last_release_event_at__lte=F("synced_at"))
    row.filter(no_pending_event, next_sync_at__lte=now).update(last_release_event_at=due_at)


def _refresh_catalog(
    catalog_syncs: QuerySet[CatalogSync], project_ids: Iterable[str], now: datetime
) -> None:
    """Have a part of the catalog listed soon in which something unknown was named."""
    configured = set(settings.NORTHFLANK_PROJECTS)
    if configured and configured.isdisjoint(project_ids):
        return  # it is about a project that is not shown
    # One that is under way, or nearly due, is booked within its lease.
    scheduled_later = catalog_syncs.filter(failures=0, next_sync_at__gt=now + catalog.LEASE)
    scheduled_later.filter(
        Q(synced_at=None) | Q(synced_at__lt=now - MIN_CATALOGUE_INTERVAL)
    ).update(next_sync_at=now)
