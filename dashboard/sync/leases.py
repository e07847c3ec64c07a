"""Lease due stages and runs to workers, and schedule their next read on release.

A lease is a conditional update of the row itself, so any number of workers may share a database. A
worker renews its leases with each heartbeat; those of a killed worker expire soon. Times are the
database's (db/threads.py).
"""

import random
from collections.abc import Collection, Iterable, Sequence
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
    OuterRef,
    Q,
    Subquery,
    When,
)
from django.db.models.functions import Coalesce

from dashboard.db import prepared
from dashboard.db.prepared import (
    NOW,
    Keys,
    Parameter,
    PreparedModels,
    PreparedQuery,
    PreparedUpdate,
    parameters,
    update_row,
)
from dashboard.models import Abort, CatalogSync, RateBudget, Run, Stage
from dashboard.sync import read_plan, schedule
from dashboard.sync.plan import MIN_STEPS_AGE
from dashboard.sync.read_plan import ReadPlan
from dashboard.sync.schedule import StageRef

# Four heartbeats, and longer than a request's timeout: a run takes one request, so its lease is not
# renewed. One that is not found takes up to four: if they are slow, another worker may read it.
LEASE = timedelta(seconds=20)
_KEY = Parameter("key", BigIntegerField())
_SCHEDULED_AT = Parameter("scheduled_at", DateTimeField())  # as of when the row was selected


def has_due_reads(now: datetime) -> bool:
    """Return whether a run, a stage, a list of the catalog, or the probe after a 429 may be due.

    One statement, for the many ticks at which nothing is.
    """
    return bool(_due_reads_query().fetch(now=now))


@cache
def _due_reads_query() -> PreparedQuery:
    due_rows = (
        Run.objects.due(NOW),
        CatalogSync.objects.due(NOW),
        RateBudget.objects.filter(refusals__gt=0),
    )
    unordered = (rows.order_by().values_list("pk") for rows in due_rows)
    stages = Stage.objects.due(NOW).order_by().values_list("pk")
    return PreparedQuery(stages.union(*unordered, all=True)[:1])


def claim_stages(
    now: datetime,
    limit: int,
    *,
    urgent_only: bool = False,
    runs_only: bool = False,
) -> Sequence[Stage]:
    """Lease up to `limit` due stages: urgent ones first, then those due for longest.

    Urgent are those that somebody watches or that a webhook event concerns. `urgent_only`: only
    those. `runs_only`: skip stages due only for their release flow.
    """
    due = _due_query(urgent_only=urgent_only, runs_only=runs_only, limit=limit)
    return _claim(due.fetch(now=now), now)


@cache
def _due_query(*, urgent_only: bool, runs_only: bool, limit: int) -> PreparedModels[Stage]:
    # A backlog after an outage must not delay urgent stages.
    is_watched = Q(last_viewed_at__gt=NOW - schedule.WATCHED_FOR)
    has_event = Q(last_release_event_at__gt=F("synced_at"))
    is_urgent = ExpressionWrapper(is_watched | has_event, BooleanField())
    due = Stage.objects.due(NOW).annotate(urgent=Coalesce(is_urgent, False))
    due = due.order_by("-urgent", "next_sync_at", "pk")
    if urgent_only:
        due = due.filter(urgent=True)
    if runs_only:
        due = due.exclude(flow_synced_at=None, fresh_until__gt=NOW)
    return PreparedModels(due.select_related("pipeline__project")[:limit])


def claim_first_reads(now: datetime, limit: int) -> Sequence[Stage]:
    """Lease up to `limit` due stages that have a gap, in the order of first reads."""
    if limit <= 0:
        return []
    # Projects take turns, counted over all stages: those already read count too.
    read_states = _read_states_query().fetch()
    order = schedule.order_first_reads(
        (StageRef(stage.pk, stage.name, stage.pipeline.project_id), schedule.find_gap(stage, now))
        for stage in read_states
    )
    if not order:
        return []
    unleased_keys = {key for (key,) in _unleased_query().fetch(stages=order, now=now)}
    keys = [key for key in order if key in unleased_keys][:limit]
    stages_by_key = {stage.pk: stage for stage in _stages_query().fetch(stages=keys)}
    return _claim([stages_by_key[key] for key in keys if key in stages_by_key], now)


@cache
def _read_states_query() -> PreparedModels[Stage]:
    stages = Stage.objects.listed().order_by("pipeline__project", "pipeline", "pk")
    read_states = stages.select_related("pipeline").only(*_GAP_FIELDS, "pipeline__project_id")
    return PreparedModels(read_states)


@cache
def _unleased_query() -> PreparedQuery:
    due = Stage.objects.due(NOW).filter(pk__in=Keys("stages"))
    return PreparedQuery(due.order_by().values_list("pk"))


@cache
def _stages_query() -> PreparedModels[Stage]:
    stages = Stage.objects.filter(pk__in=Keys("stages"))
    return PreparedModels(stages.select_related("pipeline__project"))


_GAP_FIELDS = ("name", "has_flow", "synced_at", "fresh_until", "in_flight_incomplete")


def has_event(stage: Stage) -> bool:
    """Return whether a webhook event concerns a stage since its last read."""
    event_at, read_at = stage.last_release_event_at, stage.synced_at
    return event_at is not None and (read_at is None or event_at > read_at)


def _claim(stages: Iterable[Stage], now: datetime) -> list[Stage]:
    """Lease these stages, except those that another worker has leased meanwhile."""
    lease = _stage_lease()
    return [
        stage
        for stage in stages
        if lease.execute(key=stage.pk, scheduled_at=stage.next_sync_at, now=now)
    ]


@cache
def _stage_lease() -> PreparedUpdate:
    unleased = Stage.objects.unleased(NOW).filter(pk=_KEY, next_sync_at=_SCHEDULED_AT)
    return PreparedUpdate(unleased, leased_until=NOW + LEASE)


def renew(stage_keys: Collection[int], now: datetime) -> None:
    """Renew the leases of these stages, except expired ones: another worker may hold them now."""
    if stage_keys:
        leased = Stage.objects.filter(pk__in=stage_keys, leased_until__gt=now)
        read_plan.update_stages(leased, leased_until=now + LEASE)


def requeue(stage_pk: int, now: datetime) -> None:
    """Release a stage unread; it is due again now, after all that are due for longer."""
    update_row(Stage, stage_pk, next_sync_at=now, leased_until=None)


def claim_runs(now: datetime, limit: int, *, aborting_only: bool = False) -> Sequence[Run]:
    """Lease up to `limit` runs whose detail is due; `aborting_only`: with an open abort."""
    leased_runs = []
    for run in _due_runs_query(aborting_only=aborting_only, limit=limit).fetch(now=now):
        if _run_lease().execute(key=run.pk, scheduled_at=run.next_detail_sync_at, now=now):
            run.next_detail_sync_at = now + LEASE
            leased_runs.append(run)
    return leased_runs


@cache
def _due_runs_query(*, aborting_only: bool, limit: int) -> PreparedModels[Run]:
    due = Run.objects.due(NOW)
    if aborting_only:
        due = due.filter(aborts__in=Abort.objects.open())
    return PreparedModels(due.with_stage().without_detail()[:limit])


@cache
def _run_lease() -> PreparedUpdate:
    unleased = Run.objects.filter(pk=_KEY, next_detail_sync_at=_SCHEDULED_AT)
    return PreparedUpdate(unleased, next_detail_sync_at=NOW + LEASE)


def release_stage(
    stage: Stage, now: datetime, plan: ReadPlan, *, is_first: bool = False, **read_fields: Any
) -> None:
    """Store what a read of a stage has found, release it, and schedule its next read.

    `is_first`: a first read, one of many at a time. Their next reads are spread.
    """
    [(stored, runs)] = read_plan.load_stages(now, stage.pk)
    facts = stored._replace(
        **{name: value for name, value in read_fields.items() if name in stored._fields}
    )
    interval = plan.stage_interval(facts, runs, now)
    if facts.failures:
        next_sync_at = now + schedule.failure_backoff(facts.failures, facts.error)
        update_row(Stage, stage.pk, next_sync_at=next_sync_at, leased_until=None, **read_fields)
        return
    # A first read omits older runs in flight and the release flow: they are due at once.
    is_incomplete = (facts.flow_synced_at is None and not facts.error) or (
        facts.in_flight_incomplete and facts.has_flow
    )
    next_sync_at = now + interval * (random.uniform(0.2, 1) if is_first else 1)  # noqa: S311
    _release(tuple(read_fields)).execute(
        key=stage.pk,
        scheduled_at=stage.next_sync_at,
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
        due_at = at if read_at is None else max(at, read_at + MIN_STEPS_AGE)
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
def _release(read_fields: tuple[str, ...]) -> PreparedUpdate:
    # A time changed meanwhile requests a read newer than ours: keep it.
    is_changed = ~Q(next_sync_at=_SCHEDULED_AT)
    new_values = parameters(Stage, (*read_fields, "fresh_until", "next_sync_at"))
    next_sync_at = Case(
        When(is_changed, then=F("next_sync_at")), default=new_values.pop("next_sync_at")
    )
    return PreparedUpdate(
        Stage.objects.filter(pk=_KEY), leased_until=None, next_sync_at=next_sync_at, **new_values
    )


def release_after_flow_read(stage: Stage) -> None:
    """Release a stage after reading its release flow only; its runs are due at `fresh_until`."""
    _release_after_flow_read().execute(key=stage.pk, scheduled_at=stage.next_sync_at)


@cache
def _release_after_flow_read() -> PreparedUpdate:
    is_unchanged = Q(next_sync_at=_SCHEDULED_AT, in_flight_incomplete=False)
    next_sync_at = Case(When(is_unchanged, then=F("fresh_until")), default=F("next_sync_at"))
    return PreparedUpdate(
        Stage.objects.filter(pk=_KEY), leased_until=None, next_sync_at=next_sync_at
    )


def release_run(leased_run: Run, now: datetime, plan: ReadPlan | None) -> None:
    """Release a run that was read, and schedule its next read if it needs one."""
    [state] = _run_query().fetch(key=leased_run.pk, now=now)
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
        interval = plan.watched_run_interval(watched_since, now) if plan is not None else LEASE
    _run_release().execute(
        key=leased_run.pk,
        scheduled_at=leased_run.next_detail_sync_at,
        next_detail_sync_at=now + interval if interval is not None else None,
    )


@cache
def _run_query() -> PreparedQuery:
    open_aborts = Abort.objects.open().order_by()
    requested_at = Subquery(open_aborts.filter(run=OuterRef("pk")).values("requested_at"))  # one
    recent_aborts = open_aborts.filter(requested_at__gt=NOW - schedule.STUCK_ABORT_AGE)
    counts = [  # of all runs
        Subquery(aborts.values_list(prepared.Count())) for aborts in (recent_aborts, open_aborts)
    ]
    return PreparedQuery(
        Run.objects.filter(pk=_KEY).values_list(
            "in_flight", "last_viewed_at", "watched_since", requested_at, *counts
        )
    )


@cache
def _run_release() -> PreparedUpdate:
    # A time changed meanwhile requests a read newer than ours: keep it.
    unchanged = Run.objects.filter(pk=_KEY, next_detail_sync_at=_SCHEDULED_AT)
    return PreparedUpdate(unchanged, **parameters(Run, ["next_detail_sync_at"]))
