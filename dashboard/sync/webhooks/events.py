"""Handle webhook events: schedule reads of the stages an event may concern.

An event is only a hint; its content is never mirrored. It is handled within its HTTP request, in
one transaction of a few indexed statements, which takes milliseconds. There is no queue that a
crash could lose: either everything is stored, or Northflank gets no 2xx and sends the event again.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Least

from dashboard.db import notify as db_notify
from dashboard.models import CatalogSync, Project, Run, Stage, WebhookStats
from dashboard.models.catalog import StageName
from dashboard.models.counters import CounterName, increment, store

EVENT_PREFIX = "trigger:"  # prefix of event names in the API, absent in webhook bodies
RELEASE_EVENT_PREFIX = "release-flow-template-run:"

# Stages without a run in flight that a start is looked for in, if the event does not name one.
MAX_POSSIBLE = 10
MIN_CATALOG_INTERVAL = timedelta(seconds=120)
REPEAT_TIME = timedelta(seconds=15)  # in which repeats of an event cost one read of its stage
MAX_NODES = 500  # nodes of an event that are visited
MAX_ID_LENGTH = 255  # characters of an id

# Keys without a kind of their own: the key above them gives it.
_GENERIC_KEYS = {"id", "name", "slug", "uid"}


# When events were handled by this process, by what a repeat of them has, too.
handled: dict[tuple[str, str], datetime] = {}


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
    keys = set[tuple[str, str]]()
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
            event_ids = extract_event_ids(event.data)
            keys = _repeat_keys(event, event_ids)
            _schedule_reads(event_ids, event.action, now, _first_seen_at(keys, now))
    # Not before it is stored: after an error Northflank sends the event again.
    for key in keys:
        handled.setdefault(key, now)


def _repeat_keys(event: Event, event_ids: "EventIds") -> set[tuple[str, str]]:
    """Return what a repeat of an event has, too: its id, or its type and a known run."""
    runs = Run.objects.filter(run_id__in=event_ids.candidates)
    keys = {(event.name, run_id) for run_id in runs.values_list("run_id", flat=True)}
    return keys | ({("", event.id)} if event.id else set())


def _first_seen_at(keys: Iterable[tuple[str, str]], now: datetime) -> datetime | None:
    """Return when an event was first handled in the last REPEAT_TIME, if this is a repeat of it."""
    for key, seen_at in list(handled.items()):
        if not now - REPEAT_TIME < seen_at <= now:
            handled.pop(key, None)  # another thread may have been faster
    return max(filter(None, map(handled.get, keys)), default=None)


def record_rejection(now: datetime) -> bool:
    """Record a webhook request with a wrong token; return whether to log it.

    Anyone can send these, so each costs one indexed query, and at most one write in 10 seconds.
    """
    cutoff = now - timedelta(seconds=10)
    if WebhookStats.objects.filter(last_rejected_at__gt=cutoff).exists():
        return False
    with transaction.atomic():
        WebhookStats.objects.update_or_create(pk=1, defaults={"last_rejected_at": now})
        store([increment(CounterName.SYSTEM_ERRORS, "push", "refused")])
    return True


def _schedule_reads(
    event_ids: "EventIds", action: str, now: datetime, first_seen_at: datetime | None
) -> None:
    """Make the stages due that an event may concern; the leader reads within the rate budget.

    A repeat of an event first seen at that time makes them due REPEAT_TIME later.
    """
    likely, possible = _find_stages(event_ids, now)
    if action == "update" and len(likely) > 1:
        return  # most events are updates, and more will follow
    # Other events concern runs in flight, so rarely a stage without any.
    stages = [*likely, *(possible[:MAX_POSSIBLE] if action == "start" else ())]
    # In order of key, as in every transaction that writes several stages: avoids deadlocks.
    for stage in sorted(stages, key=lambda stage: stage.pk):
        if first_seen_at is None:
            _make_due(stage, now)
        else:
            next_sync_at = Least("next_sync_at", Value(first_seen_at + REPEAT_TIME))
            Stage.objects.filter(pk=stage.pk, failures=0).update(next_sync_at=next_sync_at)
    if stages:
        db_notify.send(db_notify.Topic.READS)


def _find_stages(event_ids: "EventIds", now: datetime) -> tuple[Sequence[Stage], Sequence[Stage]]:
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
    return (
        [stage for stage in candidates if stage.pk in in_flight],
        [stage for stage in candidates if stage.pk not in in_flight],
    )


def _make_due(stage: Stage, now: datetime) -> None:
    """Make a stage due; a failing one stays backed off."""
    changes: dict[str, Any] = {"last_release_event_at": now}  # a read that has begun is repeated
    if stage.has_flow is False:
        changes["flow_synced_at"] = None  # it may have a release flow by now: check that first
    next_sync_at = Least("next_sync_at", Value(now))
    Stage.objects.filter(pk=stage.pk, failures=0).update(next_sync_at=next_sync_at, **changes)


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


# The body of release flow events is not documented, so no shape is assumed. The key of a text
# (`project.id`, `pipelineId`, `releaseFlow.stage`) shows what kind of id it may be.
@dataclass(frozen=True, slots=True)
class EventIds:
    """Texts that may be ids, grouped by their keys; `candidates` holds all of them."""

    projects: frozenset[str]
    pipelines: frozenset[str]
    stages: frozenset[str]
    candidates: frozenset[str]


def extract_event_ids(data: object) -> EventIds:
    """Return all texts in the decoded `data` of an event that may be ids, whatever its shape."""
    texts = list(_texts(data))

    def with_key(key_part: str) -> frozenset[str]:
        return frozenset(text for key, text in texts if key_part in key)

    return EventIds(
        with_key("project"),
        with_key("pipeline"),
        frozenset(text.capitalize() for text in with_key("stage")),
        frozenset(text for _, text in texts),
    )


def _texts(data: object) -> Iterator[tuple[str, str]]:
    """Yield each text with the nearest key that is not generic, in lower case."""
    queue: deque[tuple[str, object]] = deque([("", data)])  # breadth first
    for _ in range(MAX_NODES):
        if not queue:
            return
        parent_key, node = queue.popleft()
        if isinstance(node, dict):
            for key, value in list(node.items())[:MAX_NODES]:
                key_name = str(key).lower()
                queue.append((parent_key if key_name in _GENERIC_KEYS else key_name, value))
        elif isinstance(node, list):
            queue.extend((parent_key, value) for value in node[:MAX_NODES])
        # Excludes NUL, which PostgreSQL rejects, and lone surrogates, which every database rejects.
        elif isinstance(node, str) and 0 < len(node) <= MAX_ID_LENGTH and node.isprintable():
            yield parent_key, node
