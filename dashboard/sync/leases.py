"""Lease due stages and runs to workers, and schedule their next read on release.

A lease is a conditional update of the row itself, so any number of workers may share a database. A
worker renews its leases with each heartbeat; those of a killed worker expire soon. Times are the
database's (db/threads.py).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import (
    BigIntegerField,
    BooleanField,
    Case,
    Count,
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    Subquery,
    Value,
    When,
)
from django.db.models.expressions import Combinable
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
from dashboard.models.catalog import ListOrder, StageQuerySet
from dashboard.sync import schedule
from dashboard.sync.schedule import Demand, Plan, StageClass, StageFacts, StageRef

# Four heartbeats, and longer than a request's timeout: a run takes one request, so its lease is not
# renewed. One that is not found takes up to four: if they are slow, another worker may read it.
LEASE = timedelta(seconds=20)
# `fresh_until` is extended this long before it expires: two plans.
FRESHNESS_LOOKAHEAD = timedelta(seconds=10)

_HOUR = timedelta(hours=1)
_KEY = Parameter("key", BigIntegerField())
_SCHEDULED_AT = Parameter("scheduled_at", DateTimeField())  # as of when the row was selected


def make_plan(
    requests_per_second: float,
    now: datetime,
    *,
    webhook_alive: bool = False,
    has_baseline_reads: bool = False,
    discovery_delay: timedelta = timedelta(),
    can_read: bool = True,
) -> Plan:
    """Return a plan for all listed stages, and reschedule stages planned differently before.

    `webhook_alive`: webhook events currently announce new runs. `has_baseline_reads`: details are
    scheduled for baselines. `discovery_delay`: how long discovery waits for the burst to fall.
    `can_read`: enough requests are left for a read; without, no stage counts as fresh for longer.
    """
    stages = [_PlanStage(*row) for row in _plan_query().fetch()]
    stage_classes = classify_stages(stages, now)
    demand = _measure_demand(
        stages,
        Counter(stage_classes.values()),
        now,
        webhook_alive=webhook_alive,
        has_baseline_reads=has_baseline_reads,
    )
    read_plan = schedule.make_plan(demand, requests_per_second, webhook_alive=webhook_alive)
    intervals = {kind: read_plan.class_interval(kind) for kind in StageClass}
    # Failing stages stay backed off.
    read_at = {
        stage.pk: stage.synced_at for stage in stages if stage.synced_at and not stage.failures
    }
    read_stages = [stage for stage in stages if stage.pk in read_at]
    # Each stage was scheduled under the plan of its last read. When the budget has grown (a new
    # window, say), make it due earlier.
    due_early = [
        stage.pk
        for stage in read_stages
        if stage.next_sync_at > now > read_at[stage.pk] + intervals[stage_classes[stage.pk]]
    ]
    _make_due(due_early, now)
    # So was the detail of each watched run.
    read_before = now - read_plan.watched_interval
    for key, scheduled_at in _watched_runs_query().fetch(now=now, read_before=read_before):
        _run_release().execute(key=key, scheduled_at=scheduled_at, next_detail_sync_at=now)
    # Conversely, extend `fresh_until` of discovered stages to the current plan. A time set under a
    # shorter interval would show them as stale although reads are on schedule.
    discovered = {kind for kind in stage_classes.values() if not kind.is_tracked}
    for stage_class in discovered if can_read else ():
        interval = intervals[stage_class] + discovery_delay
        keys = [
            stage.pk
            for stage in read_stages
            if stage_classes[stage.pk] is stage_class
            and stage.fresh_until
            and stage.fresh_until < now + FRESHNESS_LOOKAHEAD
            and stage.fresh_until < read_at[stage.pk] + interval > now
        ]
        if keys:
            _update(Stage.objects.filter(pk__in=keys), fresh_until=F("synced_at") + interval)
    return read_plan


@cache
def _plan_query() -> PreparedQuery:
    return PreparedQuery(Stage.objects.listed().values_list(*_PlanStage._fields))


@cache
def _watched_runs_query() -> PreparedQuery:
    """Return the runs to read earlier than scheduled, with when that is."""
    # A run that is being read is scheduled for the end of its lease, and a failing one stays backed
    # off.
    runs = Run.objects.tracked().filter(
        last_viewed_at__gt=NOW - schedule.WATCHED_FOR,
        detail_synced_at__lt=Parameter("read_before", DateTimeField()),
        next_detail_sync_at__gt=NOW + LEASE,
        failures=0,
    )
    return PreparedQuery(runs.values_list("pk", "next_detail_sync_at"))


def has_due_reads(now: datetime) -> bool:
    """Return whether a run, a stage, a list of the catalog, or the probe after a 429 may be due.

    One statement, for the many ticks at which nothing is. A watched stage counts: it may become due
    before its scheduled time.
    """
    return bool(_due_reads_query().fetch(now=now))


@cache
def _due_reads_query() -> PreparedQuery:
    watched_stages = Stage.objects.listed().filter(last_viewed_at__gt=NOW - schedule.WATCHED_FOR)
    due_rows = (
        Run.objects.due(NOW),
        CatalogSync.objects.due(NOW),
        watched_stages,
        RateBudget.objects.filter(refusals__gt=0),
    )
    unordered = (rows.order_by().values_list("pk") for rows in due_rows)
    stages = Stage.objects.due(NOW).order_by().values_list("pk")
    return PreparedQuery(stages.union(*unordered, all=True)[:1])


def claim_stages(
    now: datetime,
    read_plan: Plan,
    limit: int,
    *,
    tracked_only: bool = False,
    runs_only: bool = False,
) -> Sequence[Stage]:
    """Lease up to `limit` due stages: tracked ones first, then those due for longest.

    `tracked_only`: only those. `runs_only`: skip stages due only for their release flow.
    """
    # A stage that becomes watched is due by its new interval, counted from its last read, without
    # waiting for the next plan. Failing stages stay backed off.
    read_before = now - read_plan.watched_interval
    watched_early = _watched_early_query().fetch(now=now, read_before=read_before)
    _make_due([key for (key,) in watched_early], now)
    due = _due_query(tracked_only=tracked_only, runs_only=runs_only, limit=limit)
    return _claim(due.fetch(now=now), now)


@cache
def _watched_early_query() -> PreparedQuery:
    stages = Stage.objects.filter(
        last_viewed_at__gt=NOW - schedule.WATCHED_FOR,
        synced_at__lt=Parameter("read_before", DateTimeField()),
        next_sync_at__gt=NOW,
        runs__in_flight=True,
        runs__removed_at=None,
        failures=0,
    )
    return PreparedQuery(stages.values_list("pk").distinct())


@cache
def _due_query(*, tracked_only: bool, runs_only: bool, limit: int) -> PreparedModels[Stage]:
    # A backlog after an outage must not delay tracked stages.
    in_flight = Exists(Run.objects.tracked().filter(stage=OuterRef("pk")))
    is_watched = Q(last_viewed_at__gt=NOW - schedule.WATCHED_FOR)
    has_event = Q(last_release_event_at__gt=F("synced_at"))
    is_tracked = ExpressionWrapper(Q(in_flight) | is_watched | has_event, BooleanField())
    due = Stage.objects.due(NOW).annotate(tracked=Coalesce(is_tracked, False))
    due = due.order_by("-tracked", "next_sync_at", "pk")
    if tracked_only:
        due = due.filter(tracked=True)
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
FACTS_FIELDS = ("pk", "has_flow", "last_viewed_at", "last_run_change_at", "missing_since")


class _PlanStage(NamedTuple):
    """What the plan depends on; it begins with FACTS_FIELDS."""

    pk: int
    has_flow: bool | None
    last_viewed_at: datetime | None
    last_run_change_at: datetime | None
    missing_since: datetime | None
    synced_at: datetime | None
    fresh_until: datetime | None
    in_flight_incomplete: bool
    next_sync_at: datetime
    failures: int
    list_order: str
    next_history_page: int | None


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
        _update(leased, leased_until=now + LEASE)


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


def release_stage(stage: Stage, now: datetime, read_plan: Plan, **read_fields: Any) -> None:
    """Store what a read of a stage has found, release it, and schedule its next read."""
    [stored] = _release_query().fetch(key=stage.pk)
    state = dict(zip(_RELEASE_FIELDS, stored, strict=True)) | read_fields
    facts = StageFacts(
        state["has_flow"],
        state["in_flight_runs"],
        state["last_viewed_at"],
        state["last_run_change_at"],
        state["missing_since"],
    )
    interval = read_plan.stage_interval(facts, now)
    if state["failures"]:
        backoff = schedule.failure_backoff(state["failures"], state["error"])
        interval = max(backoff, read_plan.watched_interval)
        update_row(Stage, stage.pk, next_sync_at=now + interval, leased_until=None, **read_fields)
        return
    # A first read omits older runs in flight and the release flow: they are due at once.
    is_incomplete = (state["flow_synced_at"] is None and not state["error"]) or (
        state["in_flight_incomplete"] and state["has_flow"]
    )
    _release(tuple(read_fields)).execute(
        key=stage.pk,
        scheduled_at=stage.next_sync_at,
        next_sync_at=now if is_incomplete else now + interval,
        fresh_until=now + interval,
        **read_fields,
    )


_RELEASE_FIELDS = (
    *FACTS_FIELDS, "failures", "error", "flow_synced_at", "in_flight_incomplete", "in_flight_runs"
)  # fmt: skip


@cache
def _release_query() -> PreparedQuery:
    tracked_runs = Run.objects.tracked().filter(stage=OuterRef("pk")).order_by()
    return PreparedQuery(
        Stage.objects.filter(pk=_KEY)
        .annotate(in_flight_runs=Subquery(tracked_runs.values_list(prepared.Count())))
        .values_list(*_RELEASE_FIELDS)
    )


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


def release_run(leased_run: Run, now: datetime, read_plan: Plan | None) -> None:
    """Release a run that was read, and schedule its next read if it needs one."""
    [state] = _run_query().fetch(key=leased_run.pk, now=now)
    in_flight, last_viewed_at, abort_requested_at, recent_aborts, open_aborts = state
    interval = None
    if in_flight and abort_requested_at is not None:
        elapsed = now - abort_requested_at
        is_recent = elapsed < schedule.STUCK_ABORT_AGE
        interval = schedule.aborting_interval(
            elapsed, recent_aborts if is_recent else open_aborts - recent_aborts
        )
    elif in_flight and schedule.is_watched(last_viewed_at, now):
        interval = read_plan.watched_interval if read_plan is not None else LEASE
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
            "in_flight", "last_viewed_at", requested_at, *counts
        )
    )


@cache
def _run_release() -> PreparedUpdate:
    # A time changed meanwhile requests a read newer than ours: keep it.
    unchanged = Run.objects.filter(pk=_KEY, next_detail_sync_at=_SCHEDULED_AT)
    return PreparedUpdate(unchanged, **parameters(Run, ["next_detail_sync_at"]))


def _make_due(stage_keys: Collection[int], now: datetime) -> None:
    if stage_keys:  # an empty update would still lock SQLite
        scheduled_later = Stage.objects.filter(pk__in=stage_keys, next_sync_at__gt=now)
        _update(scheduled_later, next_sync_at=now)


def _update(stages: StageQuerySet, **changes: datetime | Combinable) -> None:
    """Update several stages, locked in order of key, as webhooks/events.py does."""
    with transaction.atomic():
        keys = stages.order_by("pk").select_for_update().values_list("pk", flat=True)
        Stage.objects.filter(pk__in=list(keys)).update(**changes)


def classify_stages(stages: Iterable[Any], now: datetime) -> dict[int, StageClass]:
    """Return the class of each stage, by its key; rows with FACTS_FIELDS, or stages."""
    in_flight_counts = _count_in_flight()
    return {stage.pk: schedule.classify(_facts(stage, in_flight_counts), now) for stage in stages}


def _facts(stage: Any, in_flight_counts: Mapping[int, int]) -> StageFacts:
    """Return the facts of a stage, or of a row with FACTS_FIELDS."""
    return StageFacts(
        stage.has_flow,
        in_flight_counts.get(stage.pk, 0),
        stage.last_viewed_at,
        stage.last_run_change_at,
        stage.missing_since,
    )


def _count_in_flight() -> dict[int, int]:
    """Return the number of tracked runs, by the key of their stage."""
    return dict(_counts_query().fetch())


@cache
def _counts_query() -> PreparedQuery:
    by_stage = Run.objects.tracked().order_by().values_list("stage")
    return PreparedQuery(by_stage.annotate(runs=Count("pk")))


def _measure_demand(
    stages: Sequence[Any],
    class_counts: Counter[StageClass],
    now: datetime,
    *,
    webhook_alive: bool,
    has_baseline_reads: bool,
) -> Demand:
    tracking = sum(
        count / stage_class.value
        for stage_class, count in class_counts.items()
        if stage_class.is_tracked
    )
    discovery = sum(
        count / kind.value for kind, count in class_counts.items() if not kind.is_tracked
    )
    counts = dict(_demand_query().fetch(now=now))
    stages_with_flow = [stage for stage in stages if stage.has_flow]
    incomplete_histories = sum(
        stage.list_order != ListOrder.NEWEST or stage.next_history_page is not None
        for stage in stages_with_flow
    )
    return Demand(
        tracking + counts["watched runs"] / StageClass.WATCHED.value,
        discovery
        + counts["catalog lists"] / schedule.CATALOG_INTERVAL.total_seconds()
        + len(stages_with_flow) / schedule.FLOW_INTERVAL.total_seconds()
        + incomplete_histories / schedule.HISTORY_INTERVAL.total_seconds(),
        webhook_reads=schedule.WEBHOOK_READS_PER_RUN * counts["ended runs"] / _HOUR.total_seconds()
        if webhook_alive
        else 0.0,
        has_gaps=counts["unread lists"] > 0
        or any(
            not stage.failures and schedule.find_gap(stage, now) is not None for stage in stages
        ),
        has_baseline_reads=has_baseline_reads,
    )


@cache
def _demand_query() -> PreparedQuery:
    watched_runs = Run.objects.tracked().filter(last_viewed_at__gt=NOW - schedule.WATCHED_FOR)
    rows = {
        "watched runs": watched_runs,
        "ended runs": Run.objects.filter(ended_at__gt=NOW - _HOUR),
        "catalog lists": CatalogSync.objects.listed(),
        "unread lists": CatalogSync.objects.never_synced().filter(failures=0),
    }
    first, *others = (
        queryset.order_by().values_list(Value(name), prepared.Count())
        for name, queryset in rows.items()
    )
    return PreparedQuery(first.union(*others, all=True))
