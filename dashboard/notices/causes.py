"""What there is to tell now: of each run and each queue, and of the dashboard itself.

It depends only on what is stored, not on what was seen before, so that a killed process loses
nothing. What has been told of it is compared in round.py.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Exists, OuterRef, Q, QuerySet

from dashboard.aborts import categories
from dashboard.models import Abort, EndRequest, Run, Stage
from dashboard.models.notices import NoticeEvent
from dashboard.models.runs import RunQuerySet
from dashboard.models.severity import Severity
from dashboard.runs import abort_clock, attention
from dashboard.runs.overdue import APPROVAL_PATIENCE, OverdueReason
from dashboard.sync import schedule
from dashboard.sync.reports.sync_state import SyncState
from dashboard.sync.webhooks import status as webhook_status

# Ends are told if they were seen within this time, of runs that ended within the other: more during
# an outage of Northflank, or of the dashboard.
SEEN_WITHIN, ENDED_WITHIN = attention.FAILURE_WINDOW, timedelta(days=1)
# How long a failure waits for its cause to be read.
CAUSE_PATIENCE = timedelta(minutes=1)
RUN_PREFIX, QUEUE_PREFIX = "run-", "queue-"  # of keys: of a run, and of the queue of a stage
_AS_ASKED = {"under_way", "aborted", "ended", "aborted_again"}  # categories of aborts
_ABORT_EVENTS = {
    NoticeEvent.ABORT_REQUESTED,
    NoticeEvent.ABORT_OVERDUE,
    NoticeEvent.ABORT_OTHERWISE,
}
_OVERDUE = {
    NoticeEvent.OVERDUE: Severity.WARNING,
    NoticeEvent.FAR_OVERDUE: Severity.CRITICAL,
}

type Events = dict[NoticeEvent, datetime | None]  # with the time of an abort


class Cause(NamedTuple):
    """Something that a channel may be told of, until it is over."""

    key: str  # `Notice.cause`
    run: Run | None
    events: Events
    goes_on: bool  # else it is over, and `events` are of its end

    @property
    def ended_at(self) -> datetime | None:
        """When its run ended or was removed; None: it goes on."""
        return None if self.run is None else self.run.ended_at or self.run.removed_at


def load_runs(now: datetime) -> list[Run]:
    """Return the runs with something to tell, or the end of which a user asked for."""
    tracked = Run.objects.tracked()
    aborted = Abort.objects.filter(requested_at__gt=now - ENDED_WITHIN)
    aborted = aborted.filter(settled_at__gt=now - SEEN_WITHIN)
    asked = EndRequest.objects.filter(Q(run__in_flight=False) | Q(run__removed_at__isnull=False))
    sources: list[tuple[QuerySet[Any], str]] = [
        (tracked.annotate(attention=attention.severity(now)).filter(attention__gt=0), "pk"),
        (tracked.filter(Q(status="aborting") | Q(overdue_reason=OverdueReason.BLOCKED)), "pk"),
        (tracked.filter(Exists(Abort.objects.filter(run=OuterRef("pk")))), "pk"),
        (_failures(now), "pk"),
        (aborted, "run"),
        (asked, "run"),
    ]
    keys = [source.order_by().values_list(key) for source, key in sources]
    runs = Run.objects.filter(pk__in=keys[0].union(*keys[1:])).with_stage().without_detail()
    return list(runs.order_by("created_at", "pk"))


def of_runs(runs: Collection[Run], sync: SyncState) -> list[Cause]:
    """Return the causes of these runs, which include all of `load_runs`, and of their queues.

    A run that has ended goes on until its abort has settled and its failure has been read. What has
    not been read as planned may have ended: of that only what was done here is certain.
    """
    if not runs:
        return []
    now = sync.now
    aborts = Abort.objects.latest_by_run(run.pk for run in runs)
    has_failures = any(run.has_failed for run in runs)
    failed = set(_failures(now).values_list("pk", flat=True)) if has_failures else set()
    causes = list(_queues(runs, sync))
    for run in runs:
        abort = aborts.get(run.pk)
        if run.is_tracked:
            events = _events_in_flight(run, abort, now)
            if not events:
                continue
            if _may_have_ended(run, sync):
                events = {event: at for event, at in events.items() if event in _ABORT_EVENTS}
        else:
            events = _events_at_end(run, abort, now)
            if run.pk in failed:
                events[NoticeEvent.FAILED] = None
        is_unclear = not run.is_tracked and _is_end_unclear(run, abort, now)
        key, goes_on = f"{RUN_PREFIX}{run.pk}", run.is_tracked or is_unclear
        causes.append(Cause(key, run, {} if is_unclear else events, goes_on))
    return causes


def _failures(now: datetime) -> RunQuerySet:
    """Return the runs that failed and were seen to a short time ago.

    Not those of the history of a stage that was first read later than they ended.
    """
    stage_runs = Run.objects.filter(stage=OuterRef("stage"))
    was_known = Exists(stage_runs.filter(first_synced_at__lt=OuterRef("ended_at")))
    is_recent = Q(ended_at__gt=now - SEEN_WITHIN)
    failures = attention.failed_runs(Run.objects.all(), now - ENDED_WITHIN)
    return failures.filter(is_recent | was_known, status_since__gt=now - SEEN_WITHIN)


def _queues(runs: Iterable[Run], sync: SyncState) -> Iterator[Cause]:
    """Yield the queues that take too long: one cause each, however many runs wait.

    It is over when none waits. It is told only if nothing runs in the stage: else it moves, however
    long its last run has waited, or the run in front is told itself.
    """
    queues: dict[int, list[Run]] = {}
    for run in runs:
        if run.is_tracked and run.overdue_reason in {OverdueReason.QUEUE, OverdueReason.BLOCKED}:
            queues.setdefault(run.stage_id, []).append(run)
    running = Run.objects.tracked().filter(stage__in=queues, started_at__isnull=False)
    moving = set(running.order_by().values_list("stage", flat=True)) if queues else set()
    for stage, waiting in queues.items():
        overdue = [run for run in waiting if run.overdue_severity]
        worst = Severity(max((run.overdue_severity for run in overdue), default=0))
        first = min(overdue or waiting, key=lambda run: (run.created_at, run.pk))
        is_told = stage not in moving and not _may_have_ended(first, sync)
        events = _overdue_events(worst) if is_told else {}
        yield Cause(f"{QUEUE_PREFIX}{stage}", first, events, goes_on=True)


def _may_have_ended(run: Run, sync: SyncState) -> bool:
    """Return whether a run in flight was not read as planned."""
    return bool(sync.upstream_error) or schedule.is_stale(run.stage.fresh_until, sync.now)


def _overdue_events(severity: Severity) -> Events:
    return {event: None for event, least in _OVERDUE.items() if severity >= least}


def _events_in_flight(run: Run, abort: Abort | None, now: datetime) -> Events:
    events: Events = {}
    if run.overdue_reason != OverdueReason.QUEUE:
        events |= _overdue_events(Severity(run.overdue_severity))
    waits_since = run.approval_since
    if waits_since is not None and now - waits_since >= APPROVAL_PATIENCE:
        events[NoticeEvent.APPROVAL] = None
    if start := abort_clock.start(run, abort):
        events[NoticeEvent.ABORT_REQUESTED] = start.at
    if run.abort_severity:
        events[NoticeEvent.ABORT_OVERDUE] = None
    if abort is not None and _is_otherwise(abort, run):
        events[NoticeEvent.ABORT_OTHERWISE] = abort.settled_at
    return events


def _events_at_end(run: Run, abort: Abort | None, now: datetime) -> Events:
    if abort is None or abort.settled_at is None or abort.settled_at <= now - SEEN_WITHIN:
        return {}
    events: Events = {NoticeEvent.ABORT_REQUESTED: abort.requested_at}
    if _is_otherwise(abort, run):
        events[NoticeEvent.ABORT_OTHERWISE] = abort.settled_at
    return events


def _is_otherwise(abort: Abort, run: Run) -> bool:
    return categories.category(abort, run) not in _AS_ASKED


def _is_end_unclear(run: Run, abort: Abort | None, now: datetime) -> bool:
    """Return whether more of a run's end is known soon: of its abort, or why it failed."""
    if abort is not None and abort.settled_at is None:
        return True
    is_unread = run.has_failed and run.failed_step is None and run.removed_at is None
    return is_unread and now - run.status_since < CAUSE_PATIENCE


def of_dashboard(sync: SyncState, wanted: Collection[str]) -> dict[NoticeEvent, datetime | None]:
    """Return those of the `wanted` DASHBOARD_EVENTS that hold, each with its start if known."""
    events: dict[NoticeEvent, datetime | None] = {}
    late = Stage.objects.listed().exclude(has_flow=False)
    if sync.upstream_error:
        events[NoticeEvent.SYNC_DOWN] = sync.upstream_error_since
    if NoticeEvent.BEHIND_PLAN in wanted and (
        sync.upstream_error or late.filter(fresh_until__lt=sync.now - schedule.GRACE).exists()
    ):
        # During an outage that is no cause of its own: it counts from its end.
        events[NoticeEvent.BEHIND_PLAN] = sync.now if sync.upstream_error else None
    if NoticeEvent.WEBHOOKS_DOWN in wanted and webhook_status.load(sync.now).missed_event_at:
        events[NoticeEvent.WEBHOOKS_DOWN] = None
    return events
