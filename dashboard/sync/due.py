"""Find the stages and runs that are due, and schedule the next read of one that was read.

The schedule is in the rows: a web process makes one due by an earlier time. Only the leader reads
(lead.py), and it knows what it is reading. Times are the database's (db/threads.py).
"""

import random
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django.db.models import (
    BigIntegerField,
    BooleanField,
    Case,
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    Model,
    OuterRef,
    Q,
    Subquery,
    When,
)
from django.db.models.functions import Coalesce, Greatest

from dashboard.db import expressions
from dashboard.db.prepared import (
    NOW,
    Parameter,
    PreparedModels,
    PreparedQuery,
    PreparedUpdate,
    parameters,
    update_row,
)
from dashboard.models import Abort, CatalogSync, RateBudget, ReadRequest, Run, Stage, Work
from dashboard.runs.overdue import NOT_STARTED_STATUSES
from dashboard.sync import plan as rules
from dashboard.sync import read_plan, schedule
from dashboard.sync.read_plan import ReadPlan

MAX_READS = 32  # that are found at a time: more than can be in progress
_KEY = Parameter("key", BigIntegerField())
_SCHEDULED_AT = Parameter("scheduled_at", DateTimeField())  # as of when the row was selected


def has_due_reads(now: datetime) -> bool:
    """Return whether a run, what it left running, a stage, a list of the catalog, the probe after
    a 429, or what a link or a search asks for may be due.

    One statement, for the many ticks at which nothing is.
    """
    return bool(_due_reads_query().fetch(now=now))


@cache
def _due_reads_query() -> PreparedQuery:
    due_rows = (
        Run.objects.due(NOW),
        Work.objects.due(NOW),
        CatalogSync.objects.due(NOW),
        ReadRequest.objects.pending(NOW),
        RateBudget.objects.filter(refusals__gt=0),
    )
    unordered = (rows.order_by().values_list("pk") for rows in due_rows)
    stages = Stage.objects.due(NOW).order_by().values_list("pk")
    return PreparedQuery(stages.union(*unordered, all=True)[:1])


def _fetch[M: Model](
    query: PreparedModels[M], now: datetime, limit: int, being_read: Collection[int]
) -> list[M]:
    """Return up to `limit` rows, without those of these keys."""
    rows = query.fetch(now=now) if limit > 0 else ()
    return [row for row in rows if row.pk not in being_read][: max(limit, 0)]


def find_stages(
    now: datetime, limit: int, being_read: Collection[int] = (), *, urgent_only: bool = False
) -> list[Stage]:
    """Return up to `limit` due stages: those that somebody watches, then those due for longest.

    `being_read` are keys of stages to leave out. `urgent_only`: only watched ones.
    """
    return _fetch(_due_query(urgent_only=urgent_only), now, limit, being_read)


@cache
def _due_query(*, urgent_only: bool) -> PreparedModels[Stage]:
    # A backlog after an outage must not delay urgent stages.
    is_watched = Q(last_viewed_at__gt=NOW - schedule.WATCHED_FOR)
    is_urgent = ExpressionWrapper(is_watched, BooleanField())
    due = Stage.objects.due(NOW).annotate(urgent=Coalesce(is_urgent, False))
    due = due.order_by("-urgent", "next_sync_at", "pk")
    if urgent_only:
        due = due.filter(urgent=True)
    return PreparedModels(due.select_related("pipeline__project")[:MAX_READS])


def find_first_reads(now: datetime, limit: int, being_read: Collection[int] = ()) -> list[Stage]:
    """Return up to `limit` due stages that have a gap: those never read, Production first."""
    due = _fetch(_first_reads_query(), now, MAX_READS if limit > 0 else 0, being_read)
    return [stage for stage in due if schedule.has_gap(stage, now)][: max(limit, 0)]


@cache
def _first_reads_query() -> PreparedModels[Stage]:
    is_read = Case(When(synced_at=None, then=0), default=1)
    rank = Case(*(When(name=name, then=n) for n, name in enumerate(rules.WEIGHTS)), default=9)
    due = Stage.objects.not_fresh(NOW).due(NOW)
    due = due.order_by(is_read, "in_flight_incomplete", rank, "synced_at", "pk")
    return PreparedModels(due.select_related("pipeline__project")[:MAX_READS])


def has_event(stage: Stage) -> bool:
    """Return whether a webhook event concerns a stage since its last read."""
    event_at, read_at = stage.last_release_event_at, stage.synced_at
    return event_at is not None and (read_at is None or event_at > read_at)


def decides_by_flow(stage: Stage, now: datetime) -> bool:
    """Return whether a stage's release flow matters now.

    Its concurrency policy says which of its queued runs wait, and pages show it.
    """
    viewed = (stage.last_viewed_at, stage.pipeline.last_viewed_at)
    if any(schedule.is_watched(viewed_at, now) for viewed_at in viewed):
        return True
    watched = Q(last_viewed_at__gt=now - schedule.WATCHED_FOR)
    queued = Q(status__in=NOT_STARTED_STATUSES)
    return Run.objects.tracked().filter(watched | queued, stage=stage.pk).exists()


def find_runs(
    now: datetime, limit: int, being_read: Collection[int] = (), *, aborting_only: bool = False
) -> list[Run]:
    """Return up to `limit` runs whose detail is due; `aborting_only`: with an open abort."""
    return _fetch(_due_runs_query(aborting_only=aborting_only), now, limit, being_read)


@cache
def _due_runs_query(*, aborting_only: bool) -> PreparedModels[Run]:
    due = Run.objects.due(NOW)
    if aborting_only:
        due = due.filter(aborts__in=Abort.objects.open())
    return PreparedModels(due.with_stage().without_detail()[:MAX_READS])


def find_works(
    now: datetime, limit: int, being_read: Collection[int] = (), *, aborting_only: bool = False
) -> list[Work]:
    """Return up to `limit` job runs and builds that are due; `aborting_only`: of an open abort."""
    return _fetch(_due_works_query(aborting_only=aborting_only), now, limit, being_read)


@cache
def _due_works_query(*, aborting_only: bool) -> PreparedModels[Work]:
    due = Work.objects.due(NOW)
    if aborting_only:
        due = due.filter(Exists(Abort.every.open().filter(work=OuterRef("pk"))))
    return PreparedModels(due.select_related("run__stage__pipeline__project")[:MAX_READS])


def find_lists(
    now: datetime, limit: int, being_read: Collection[int] = (), *, never_synced: bool = False
) -> list[CatalogSync]:
    """Return up to `limit` due lists of the catalog; `never_synced`: that were never read."""
    return _fetch(_due_lists_query(never_synced=never_synced), now, limit, being_read)


@cache
def _due_lists_query(*, never_synced: bool) -> PreparedModels[CatalogSync]:
    due = CatalogSync.objects.due(NOW).select_related("project")
    return PreparedModels((due.never_synced() if never_synced else due)[:MAX_READS])


def record_stage(
    stage: Stage,
    now: datetime,
    plan: ReadPlan,
    *,
    started_at: datetime,
    is_first: bool = False,
    **read_fields: Any,
) -> None:
    """Store what a read of a stage has found, and schedule its next read.

    `started_at`: when it was begun; an event that came later asks for another read. `is_first`: a
    first read, one of many at a time. Their next reads are spread.
    """
    [(stored, runs)] = read_plan.load_stages(now, stage.pk)
    facts = stored._replace(
        **{name: value for name, value in read_fields.items() if name in stored._fields}
    )
    interval = plan.stage_interval(facts, runs, now)
    if facts.failures:
        next_sync_at = now + schedule.failure_backoff(facts.failures, facts.error)
        update_row(Stage, stage.pk, next_sync_at=next_sync_at, **read_fields)
        return
    # A first read omits older runs in flight: they are due at once.
    is_incomplete = facts.in_flight_incomplete and facts.has_flow
    next_sync_at = now + interval * (random.uniform(0.2, 1) if is_first else 1)  # noqa: S311
    _stage_update(tuple(read_fields)).execute(
        key=stage.pk,
        scheduled_at=stage.next_sync_at,
        started_at=started_at,
        now=now,
        next_sync_at=now if is_incomplete else next_sync_at,
        fresh_until=now + interval,
        **read_fields,
    )
    if any(run.is_started for run in runs):
        _schedule_steps(stage.pk, now + plan.steps_interval(facts, runs))


def _schedule_steps(stage_key: int, at: datetime) -> None:
    """Schedule the detail of the started run of a stage whose steps are the oldest.

    Unless one is scheduled: there is at most one detail to one read of the stage, of each run in
    turn.
    """
    for key, read_at in _oldest_steps_query().fetch(stage=stage_key):
        due_at = at if read_at is None else max(at, read_at + rules.MIN_STEPS_AGE)
        _steps_update().execute(key=key, next_detail_sync_at=due_at)


@cache
def _oldest_steps_query() -> PreparedQuery:
    started = Run.objects.tracked().filter(started_at__isnull=False, failures=0)
    in_stage = started.filter(stage=Parameter("stage", BigIntegerField()))
    is_planned = in_stage.filter(next_detail_sync_at__isnull=False)
    oldest = in_stage.exclude(Exists(is_planned)).order_by(
        F("detail_synced_at").asc(nulls_first=True), "pk"
    )
    return PreparedQuery(oldest.values_list("pk", "detail_synced_at")[:1])


@cache
def _steps_update() -> PreparedUpdate:
    unplanned = Run.objects.filter(pk=_KEY, next_detail_sync_at=None)
    return PreparedUpdate(unplanned, **parameters(Run, ["next_detail_sync_at"]))


@cache
def _stage_update(read_fields: tuple[str, ...]) -> PreparedUpdate:
    # What was changed meanwhile, and an event, request a read newer than ours; many events in a row
    # do not cause one read after the other.
    has_event = Q(last_release_event_at__gt=Parameter("started_at", DateTimeField()))
    soon = NOW + timedelta(seconds=rules.SHORTEST_INTERVAL)
    new_values = parameters(Stage, (*read_fields, "fresh_until", "next_sync_at"))
    next_sync_at = Case(
        When(has_event, then=Greatest(F("last_release_event_at"), soon)),
        When(~Q(next_sync_at=_SCHEDULED_AT), then=F("next_sync_at")),
        default=new_values.pop("next_sync_at"),
    )
    rows = Stage.objects.filter(pk=_KEY)
    return PreparedUpdate(rows, next_sync_at=next_sync_at, **new_values)


def record_run(read_run: Run, now: datetime, plan: ReadPlan) -> None:
    """Schedule the next read of a run that was read, if it needs one."""
    [state] = _run_query().fetch(key=read_run.pk, now=now)
    in_flight, last_viewed_at, watched_since, abort_requested_at, *counts = state
    recent_aborts, open_aborts = counts
    interval = None
    if in_flight and abort_requested_at is not None:
        elapsed = now - abort_requested_at
        is_recent = elapsed < schedule.STUCK_ABORT_AGE
        interval = schedule.aborting_interval(
            elapsed, recent_aborts if is_recent else open_aborts - recent_aborts
        )
    elif in_flight and schedule.is_watched(last_viewed_at, now):
        interval = plan.watched_run_interval(watched_since, now)
    _run_update().execute(
        key=read_run.pk,
        scheduled_at=read_run.next_detail_sync_at,
        next_detail_sync_at=now + interval if interval is not None else None,
    )


@cache
def _run_query() -> PreparedQuery:
    open_aborts = Abort.objects.open().order_by()
    requested_at = Subquery(open_aborts.filter(run=OuterRef("pk")).values("requested_at"))  # one
    recent_aborts = open_aborts.filter(requested_at__gt=NOW - schedule.STUCK_ABORT_AGE)
    counts = [  # of all runs
        Subquery(aborts.values_list(expressions.Count())) for aborts in (recent_aborts, open_aborts)
    ]
    return PreparedQuery(
        Run.objects.filter(pk=_KEY).values_list(
            "in_flight", "last_viewed_at", "watched_since", requested_at, *counts
        )
    )


@cache
def _run_update() -> PreparedUpdate:
    # A time changed meanwhile requests a read newer than ours: keep it.
    unchanged = Run.objects.filter(pk=_KEY, next_detail_sync_at=_SCHEDULED_AT)
    return PreparedUpdate(unchanged, **parameters(Run, ["next_detail_sync_at"]))
