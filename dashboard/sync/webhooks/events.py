"""Handle webhook events: schedule reads of the stages an event may concern.

An event is only a hint; its content is never mirrored. It is handled within its HTTP request, in
one transaction of a few indexed statements, which takes milliseconds. There is no queue that a
crash could lose: either everything is stored, or Northflank gets no 2xx and sends the event again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet

from dashboard.db import notify as db_notify
from dashboard.models import CatalogSync, Project, Run, Stage, WebhookStats
from dashboard.models.catalog import StageName
from dashboard.sync import schedule
from dashboard.sync.webhooks.event_ids import EventIds, extract_event_ids
from dashboard.upstream import budget_store

EVENT_PREFIX = "trigger:"  # prefix of event names in the API, absent in webhook bodies
RELEASE_EVENT_PREFIX = "release-flow-template-run:"

# Events may cause reads up to this share of the even rate and, after a quiet time, a burst of
# MAX_BURST. However many events come, the hour's requests last until its end.
RATE_SHARE = 0.5
MAX_BURST = 20
MAX_SPACING = timedelta(seconds=300)  # between two reads caused by events, when the budget is spent
# An event that may concern several stages leaves half of the burst to others, unless it is about
# the start or end of a run in one of them.
RESERVED_BURST = MAX_BURST // 2
MIN_CATALOG_INTERVAL = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded event with a valid token."""

    name: str
    data: object
    id: str = ""

    @property
    def is_release_event(self) -> bool:
        return self.name.removeprefix(EVENT_PREFIX).startswith(RELEASE_EVENT_PREFIX)

    @property
    def action(self) -> str:
        """Last part of the name; so far `start`, `update`, `success`, `failure` or `aborted`."""
        return self.name.rpartition(":")[2]


def handle_event(event: Event, now: datetime) -> None:
    """Count an event and schedule reads of the stages it may concern."""
    WebhookStats.objects.get_or_create(pk=1)
    with transaction.atomic():
        # Locks the row first: events take turns, so they cannot deadlock with each other.
        status = WebhookStats.objects.filter(pk=1)
        status.update(event_count=F("event_count") + 1)
        # Northflank's own have an id; one that somebody sends by hand proves nothing.
        if event.id:
            status.update(last_event_at=now)
        if event.is_release_event:
            if event.id:
                status.update(last_release_event_at=now)
            _schedule_reads(extract_event_ids(event.data), event.action, now)


def record_rejection(now: datetime) -> bool:
    """Record a webhook request with a wrong token; return whether to log it.

    Anyone can send these, so each costs one indexed query, and at most one write in 10 seconds.
    """
    cutoff = now - timedelta(seconds=10)
    if WebhookStats.objects.filter(last_rejected_at__gt=cutoff).exists():
        return False
    WebhookStats.objects.update_or_create(pk=1, defaults={"last_rejected_at": now})
    return True


def _schedule_reads(event_ids: EventIds, action: str, now: datetime) -> None:
    throttle = _ReadThrottle(now)
    likely, possible = _find_stages(event_ids, now)
    due: list[tuple[Stage, datetime]] = []
    # Most events are updates, and more will follow.
    is_minor = action == "update" and len(likely) > 1
    for stage in likely:
        if not is_minor or throttle.free_slots > RESERVED_BURST:
            due += throttle.take_slot(stage)
    # The last active first; the others keep their schedule. Other events concern runs in flight, so
    # rarely a stage without any.
    for stage in possible if action == "start" else ():
        if throttle.free_slots > RESERVED_BURST:
            due += throttle.take_slot(stage)
    throttle.save()
    # In order of key, as in every transaction that writes several stages: avoids deadlocks.
    for stage, due_at in sorted(due, key=lambda entry: entry[0].pk):
        _make_due(stage, due_at, now)
    if due:
        db_notify.send(db_notify.Topic.READS)


def _find_stages(event_ids: EventIds, now: datetime) -> tuple[Sequence[Stage], Sequence[Stage]]:
    """Return the stages that an event probably concerns, and others that it possibly concerns.

    An id narrows the result only if its key shows its kind and it is in the database; otherwise the
    whole project, or the whole account, counts. An event of an unknown project concerns none,
    unless it names a known run or pipeline: the id may be of another kind than ours.
    """
    stages = Stage.objects.listed()
    # Run ids are unique: a match is certain, whatever its key, and whatever else the event names.
    runs = Run.objects.filter(run_id__in=event_ids.candidates)
    if run_stages := list(stages.filter(pk__in=runs.values("stage"))):
        return run_stages, []
    has_pipeline = is_unknown_project = False
    if event_ids.projects:
        projects = Project.objects.filter(removed_at=None).filter(
            Q(slug__in=event_ids.projects) | Q(name__in=event_ids.projects)
        )
        is_unknown_project = not projects.exists()
        if is_unknown_project:
            _refresh_catalog(CatalogSync.objects.filter(project=None), event_ids.projects, now)
        else:
            stages = stages.filter(pipeline__project__in=projects)
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
    if is_unknown_project and not has_pipeline:
        return [], []
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
        sorted(
            likely,
            key=lambda stage: (
                not schedule.is_watched(stage.last_viewed_at, now),
                stage.synced_at or _NEVER,
            ),
        ),
        [stage for stage in candidates if stage.pk not in in_flight],
    )


_NEVER = datetime.min.replace(tzinfo=UTC)


class _ReadThrottle:
    """Assign time slots to the reads caused by events; call `save` after the last one."""

    def __init__(self, now: datetime) -> None:
        budget = budget_store.load(now)
        rate = budget.requests_per_second * RATE_SHARE
        self.now = now
        # No slot is later: the next window has requests of its own.
        self._window_end = now + timedelta(seconds=budget.seconds)
        self.spacing = min(timedelta(seconds=1 / max(rate, 1e-6)), MAX_SPACING)
        stored_slot = WebhookStats.objects.values_list("reads_booked_until", flat=True).get(pk=1)
        earliest_slot = now - self.spacing * MAX_BURST
        last_slot = max(stored_slot, earliest_slot) if stored_slot else earliest_slot
        self._last_slot = min(last_slot, self._window_end)

    @property
    def free_slots(self) -> int:
        """How many slots can be taken for reads due now."""
        return (self.now - self._last_slot) // self.spacing

    def take_slot(self, stage: Stage) -> Iterator[tuple[Stage, datetime]]:
        """Yield the stage and its due time in the next slot, unless it is read by then anyway.

        If the window has no more slots, it is due at the window's end and takes none: the leader
        spreads what is due at one time (`ReadBudget.may_read`).
        """
        if _is_waiting(stage, self.now):
            yield stage, self.now
            return
        slot = self._last_slot + self.spacing
        due_at = max(min(slot, self._window_end), self.now)
        if _needs_read(stage, due_at, self.now):
            if slot <= self._window_end:
                self._last_slot = slot
            yield stage, due_at

    def save(self) -> None:
        WebhookStats.objects.filter(pk=1).update(reads_booked_until=self._last_slot)


def _needs_read(stage: Stage, due_at: datetime, now: datetime) -> bool:
    """Return whether a stage must be rescheduled to be read at `due_at`."""
    # One that is due gets priority by an event. Failing stages stay backed off.
    return not stage.failures and (stage.next_sync_at > due_at or stage.next_sync_at <= now)


def _is_waiting(stage: Stage, now: datetime) -> bool:
    """Return whether a stage waits for its read after an earlier event, or is being read."""
    event_at, read_at = stage.last_release_event_at, stage.synced_at
    has_event = event_at is not None and (read_at is None or event_at > read_at)
    return has_event and not stage.failures and stage.next_sync_at <= now


def _make_due(stage: Stage, due_at: datetime, now: datetime) -> None:
    # The conditions are repeated in the updates: the leader may have changed the row meanwhile.
    row = Stage.objects.filter(pk=stage.pk, failures=0)
    changes: dict[str, Any] = {"last_release_event_at": due_at}
    if stage.has_flow is False:
        changes["flow_synced_at"] = None  # it may have a release flow by now: check that first
    if not row.filter(next_sync_at__gt=due_at).update(next_sync_at=due_at, **changes):
        # It keeps its place; a read that has begun is followed by another (due.py).
        row.filter(next_sync_at__lte=now).update(**changes)


def _refresh_catalog(
    catalog_syncs: QuerySet[CatalogSync], project_ids: Iterable[str], now: datetime
) -> None:
    """Make due the catalog lists that may contain an unknown project or pipeline of an event."""
    configured = set(settings.NORTHFLANK_PROJECTS)
    if configured and configured.isdisjoint(project_ids):
        return  # about a project outside the settings
    scheduled_later = catalog_syncs.filter(failures=0, next_sync_at__gt=now)
    scheduled_later.filter(Q(synced_at=None) | Q(synced_at__lt=now - MIN_CATALOG_INTERVAL)).update(
        next_sync_at=now
    )
