"""Delete what is older than the settings allow: runs, their steps, access events; and old notices.

What pages still need is kept, whatever its age: the latest runs of each stage, the successes of its
baseline, and runs with an abort request, with all that belongs to them. Each batch is a transaction
of its own, so a pass can be interrupted anywhere; the next one continues. A stage records until
when its runs were deleted (`Stage.pruned_until`), and the mirror does not add them again.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q

from dashboard.db import threads as db_threads
from dashboard.models import (
    Abort,
    AccessEvent,
    Acknowledgement,
    BulkAbortItem,
    ChangeCounter,
    Dismissal,
    EndRequest,
    Notice,
    NoticeMessage,
    Pruning,
    Run,
    SearchText,
    Stage,
    StageTiming,
    typical_duration,
)
from dashboard.models.runs import RunQuerySet
from dashboard.sync import baselines

log = structlog.get_logger(__name__)

BATCH_SIZE = 100  # rows a transaction: an abort's write waits for it on SQLite
MESSAGES_KEPT, NOTICES_KEPT = timedelta(days=30), timedelta(days=7)  # once sent, or over
LATEST_RUNS = 30  # kept in each stage: a history chart shows as many
INTERVAL = timedelta(days=1)
FIRST_CHECK, CHECK_INTERVAL = 60.0, 600.0  # seconds after the start, and between two checks
# Seconds of pause for each second that a batch took: a busy database gets longer pauses.
PAUSE_FACTOR, MIN_PAUSE = 9.0, 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What was before these times may be deleted."""

    runs: datetime
    steps: datetime
    access_events: datetime


def limits(now: datetime) -> Limits:
    """Return the limits of the settings."""
    return Limits(
        runs=run_limit(now),
        steps=now - timedelta(days=settings.STEPS_RETENTION_DAYS),
        access_events=now - timedelta(days=settings.ACCESS_LOG_DAYS),
    )


def run_limit(now: datetime) -> datetime:
    """Return the time before which runs have to have ended to be deleted."""
    return now - timedelta(days=settings.RETENTION_DAYS)


class Pruner:
    """A chore of the sync worker: prunes once a day.

    It looks `first_check` seconds after the start whether that is due: a start has other work.
    """

    def __init__(self, first_check: float = FIRST_CHECK) -> None:
        self._next_check = monotonic() + first_check

    async def __call__(self, _: object) -> None:
        if monotonic() < self._next_check:
            return
        self._next_check = monotonic() + CHECK_INTERVAL
        if not await db_threads.run_in_db_thread(is_due, db_threads.now()):
            return
        batches = prune(db_threads.now())
        while True:
            pause = await db_threads.run_in_db_thread(next, batches, None)
            if pause is None:
                return
            await asyncio.sleep(pause)


def is_due(now: datetime) -> bool:
    """Return whether the last pass is a day old."""
    return not Pruning.objects.filter(finished_at__gt=now - INTERVAL).exists()


def prune(now: datetime) -> Iterator[float]:
    """Delete batch after batch; yield the seconds to pause after each.

    Records and logs the result at the end. Two passes may run beside each other: each deletes what
    the other has left.
    """
    Pruning.objects.get_or_create(pk=1)
    deleted = Pruning(pk=1)
    started_at = began_at = monotonic()
    for _ in _batches(now, deleted):
        yield max((monotonic() - began_at) * PAUSE_FACTOR, MIN_PAUSE)
        began_at = monotonic()
    _record(deleted, db_threads.now())
    log.info(
        "pruning.finished",
        runs=deleted.deleted_runs,
        steps=deleted.deleted_steps,
        access_events=deleted.deleted_access_events,
        seconds=round(monotonic() - started_at, 1),
    )


def count_prunable(now: datetime) -> Pruning:
    """Return what `prune` would delete at most: all of that age, with what stages still need."""
    old = limits(now)
    events = AccessEvent.objects.filter(occurred_at__lt=old.access_events)
    return Pruning(
        deleted_runs=_old_runs(Run.objects.all(), old.runs).count(),
        deleted_steps=_old_runs(_with_steps(), old.steps).count(),
        deleted_access_events=events.count(),
    )


def _with_steps() -> RunQuerySet:
    return Run.objects.filter(steps__isnull=False)


def _batches(now: datetime, deleted: Pruning) -> Iterator[None]:
    kept_runs, old = _KeptRuns(), limits(now)
    for runs in _in_batches(_old_runs(Run.objects.all(), old.runs)):
        keys = {key: stage for key, stage in runs if key not in kept_runs.of_stage(stage)}
        delete_runs(keys, old.runs)
        deleted.deleted_runs += len(keys)
        yield
    for runs in _in_batches(_old_runs(_with_steps(), old.steps)):
        pks = [key for key, stage in runs if key not in kept_runs.successes_of_stage(stage)]
        Run.objects.filter(pk__in=pks).update(steps=None, steps_removed_at=db_threads.now())
        deleted.deleted_steps += len(pks)
        yield
    while events := list(_oldest_access_events(old.access_events)):
        _delete_access_events(events, old.access_events)
        deleted.deleted_access_events += len(events)
        yield
    messages = NoticeMessage.objects.filter(next_try_at=None, created_at__lt=now - MESSAGES_KEPT)
    for old_rows in (messages, Notice.objects.filter(over_at__lt=now - NOTICES_KEPT)):
        while old_keys := list(old_rows.values_list("pk", flat=True)[:BATCH_SIZE]):
            old_rows.filter(pk__in=old_keys).delete()
            yield


class _KeptRuns:
    """The runs of each stage that are kept whatever their age, by the run's key."""

    def __init__(self) -> None:
        self._latest: dict[int, frozenset[int]] = {}
        self._successes: dict[int, frozenset[int]] = {}

    def of_stage(self, stage: int) -> frozenset[int]:
        if stage not in self._latest:
            concluded = Run.objects.filter(stage=stage, in_flight__in=[False], concluded=True)
            latest = concluded.newest_first().values_list("pk", flat=True)[:LATEST_RUNS]
            self._latest[stage] = frozenset(latest) | self.successes_of_stage(stage)
        return self._latest[stage]

    def successes_of_stage(self, stage: int) -> frozenset[int]:
        """Return the runs of the stage's baseline, whose steps are kept too."""
        if stage not in self._successes:
            successes = baselines.unaborted_successes(stage).values_list("pk", flat=True)
            self._successes[stage] = frozenset(successes[: typical_duration.MAX_SAMPLES])
        return self._successes[stage]


def _old_runs(runs: RunQuerySet, limit: datetime) -> RunQuerySet:
    """Return those that ended before `limit`, the oldest first, without any with an abort."""
    return runs.filter(
        ~Exists(Abort.every.filter(run=OuterRef("pk"))),
        ~Exists(BulkAbortItem.objects.filter(run=OuterRef("pk"))),
        ended_at__lt=limit,
    ).order_by("ended_at", "pk")


def _in_batches(runs: RunQuerySet) -> Iterator[list[tuple[int, int]]]:
    """Yield the keys of runs, in order of their end, each with its stage."""
    last_ended_at, last_key = None, 0
    while True:
        following = runs
        if last_ended_at is not None:
            is_later = Q(ended_at__gt=last_ended_at) | Q(pk__gt=last_key)
            following = runs.filter(is_later, ended_at__gte=last_ended_at)
        rows = list(following.values_list("ended_at", "pk", "stage")[:BATCH_SIZE])
        if not rows:
            return
        last_ended_at, last_key, _ = rows[-1]
        yield [(key, stage) for _, key, stage in rows]


def delete_runs(stages_by_key: dict[int, int], limit: datetime) -> None:
    """Delete those of these runs that ended before `limit`.

    They are given by their keys, each with the key of its stage.
    """
    if not stages_by_key:
        return
    keys = list(stages_by_key)
    with transaction.atomic():
        ChangeCounter.lock()  # no list comes between
        for stage in sorted(set(stages_by_key.values())):
            older = Q(pruned_until=None) | Q(pruned_until__lt=limit)
            Stage.objects.filter(older, pk=stage).update(pruned_until=limit)
        Acknowledgement.objects.filter(run__in=keys).delete()
        Dismissal.objects.filter(run__in=keys).delete()
        EndRequest.objects.filter(run__in=keys).delete()
        Notice.objects.filter(run__in=keys).delete()
        NoticeMessage.objects.filter(run__in=keys).delete()
        # Kept for its baseline, unless its status has changed since that was measured.
        StageTiming.objects.filter(last_success__in=keys).update(last_success=None)
        # Without loading the rows, as `delete` would; the database itself refuses to delete a run
        # that other rows need. A run that was restored meanwhile is in flight again: not deleted.
        old_runs = Run.objects.filter(pk__in=keys, ended_at__lt=limit)
        SearchText.objects.filter(run__in=old_runs.values("pk")).delete()
        old_runs._raw_delete(connection.alias)


def _oldest_access_events(limit: datetime) -> Iterator[int]:
    """Yield the keys of the first events before `limit`; keys follow time, or nearly so."""
    first = AccessEvent.objects.order_by("pk")
    for key, occurred_at in first.values_list("pk", "occurred_at")[:BATCH_SIZE]:
        if occurred_at < limit:
            yield key


def _delete_access_events(keys: list[int], limit: datetime) -> None:
    pruning = Pruning.objects.filter(pk=1)
    with transaction.atomic():
        pruning.update(access_log_limit=limit)
        AccessEvent.objects.filter(pk__in=keys)._raw_delete(connection.alias)
        pruning.update(access_log_limit=None)


def _record(deleted: Pruning, now: datetime) -> None:
    oldest = Run.objects.filter(ended_at__isnull=False).order_by("ended_at")
    deleted.finished_at, deleted.run_count = now, Run.objects.count()
    deleted.oldest_run_at = oldest.values_list("ended_at", flat=True).first()
    deleted.database_bytes = _measure_size()
    deleted.save(force_update=True)


def _measure_size() -> int:
    """Return the size of the database in bytes."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database())")
        else:
            cursor.execute(
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            )
        size: int = cursor.fetchone()[0]
    return size
