"""Lease due stages and runs to workers, and schedule their next read on release.

A lease is a conditional update of the row itself, so any number of workers may share a database. A
worker renews its leases with each heartbeat; those of a killed worker expire soon. Times are the
database's (db/threads.py).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django.db import transaction
from django.db.models import (
    BooleanField,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    Value,
    When,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from dashboard.db.prepared import PreparedQuery
from dashboard.models import Abort, CatalogSync, RateBudget, Run, Stage
from dashboard.models.catalog import ListOrder, StageQuerySet
from dashboard.sync import schedule
from dashboard.sync.schedule import Demand, Plan, StageClass, StageFacts, StageRef

# Four heartbeats, and longer than a request's timeout: a run takes one request, so its lease is not
# renewed.
LEASE = timedelta(seconds=20)
# `fresh_until` is extended this long before it expires: two plans.
FRESHNESS_LOOKAHEAD = timedelta(seconds=10)


def make_plan(
    requests_per_second: float,
    now: datetime,
    *,
    webhook_alive: bool = False,
    has_baseline_reads: bool = False,
    discovery_delay: timedelta = timedelta(),
) -> Plan:
    """Return a plan for all listed stages, and reschedule stages planned differently before.

    `webhook_alive`: webhook events currently announce new runs. `has_baseline_reads`: details are
    scheduled for baselines. `discovery_delay`: how long discovery waits for the burst to fall.
    """
    stages = list(Stage.objects.listed().values_list(*_PLAN_FIELDS, named=True))
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
    read_stages = [stage for stage in stages if stage.synced_at and not stage.failures]
    # Each stage was scheduled under the plan of its last read. When the budget has grown (a new
    # window, say), make it due earlier.
    due_early = [
        stage.pk
        for stage in read_stages
        if stage.next_sync_at > now > stage.synced_at + intervals[stage_classes[stage.pk]]
    ]
    _make_due(due_early, now)
    # Conversely, extend `fresh_until` of discovered stages to the current plan. A time set under a
    # shorter interval would show them as stale although reads are on schedule.
    for stage_class in {kind for kind in stage_classes.values() if not kind.is_tracked}:
        interval = intervals[stage_class] + discovery_delay
        keys = [
            stage.pk
            for stage in read_stages
            if stage_classes[stage.pk] is stage_class
            and stage.fresh_until
            and stage.fresh_until < now + FRESHNESS_LOOKAHEAD
            and stage.fresh_until < stage.synced_at + interval > now
        ]
        if keys:
            _update(Stage.objects.filter(pk__in=keys), fresh_until=F("synced_at") + interval)
    return read_plan


def has_due_reads(now: datetime) -> bool:
    """Return whether a run, a stage, a list of the catalog, or the probe after a 429 may be due.

    One statement, for the many ticks at which nothing is. A watched stage counts: it may become due
    before its scheduled time.
    """
    watched_stages = Stage.objects.listed().filter(last_viewed_at__gt=now - schedule.WATCHED_FOR)
    due_rows = (
        Run.objects.due(now),
        CatalogSync.objects.due(now),
        watched_stages,
        RateBudget.objects.filter(refusals__gt=0),
    )
    unordered = (rows.order_by().values("pk") for rows in due_rows)
    return Stage.objects.due(now).order_by().values("pk").union(*unordered, all=True).exists()


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
    watched_early = Stage.objects.filter(
        last_viewed_at__gt=now - schedule.WATCHED_FOR,
        synced_at__lt=now - read_plan.watched_interval,
        next_sync_at__gt=now,
        runs__in_flight=True,
        runs__removed_at=None,
        failures=0,
    ).values_list("pk", flat=True)
    _make_due(list(watched_early.distinct()), now)
    # A backlog after an outage must not delay tracked stages.
    in_flight = Exists(Run.objects.tracked().filter(stage=OuterRef("pk")))
    is_watched = Q(last_viewed_at__gt=now - schedule.WATCHED_FOR)
    has_event = Q(last_release_event_at__gt=F("synced_at"))
    is_tracked = ExpressionWrapper(Q(in_flight) | is_watched | has_event, BooleanField())
    due = Stage.objects.due(now).annotate(tracked=Coalesce(is_tracked, False))
    due = due.order_by("-tracked", "next_sync_at", "pk")
    if tracked_only:
        due = due.filter(tracked=True)
    if runs_only:
        due = due.exclude(flow_synced_at=None, fresh_until__gt=now)
    return _claim(due.select_related("pipeline__project")[:limit], now)


def claim_first_reads(now: datetime, limit: int) -> Sequence[Stage]:
    """Lease up to `limit` due stages that have a gap, in the order of first reads."""
    if limit <= 0:
        return []
    # Projects take turns, counted over all stages: those already read count too.
    stages = Stage.objects.listed().order_by("pipeline__project", "pipeline", "pk")
    read_states = stages.select_related("pipeline").only(*_GAP_FIELDS, "pipeline__project_id")
    order = schedule.order_first_reads(
        (StageRef(stage.pk, stage.name, stage.pipeline.project_id), schedule.find_gap(stage, now))
        for stage in read_states
    )
    unleased_keys = set(Stage.objects.due(now).filter(pk__in=order).values_list("pk", flat=True))
    keys = [key for key in order if key in unleased_keys][:limit]
    stages_by_key = Stage.objects.select_related("pipeline__project").in_bulk(keys)
    return _claim([stages_by_key[key] for key in keys if key in stages_by_key], now)


_GAP_FIELDS = ("name", "has_flow", "synced_at", "fresh_until", "in_flight_incomplete")
FACTS_FIELDS = ("pk", "has_flow", "last_viewed_at", "last_run_change_at", "missing_since")
_PLAN_FIELDS = (
    *FACTS_FIELDS, "synced_at", "fresh_until", "in_flight_incomplete", "next_sync_at", "failures",
    "list_order", "next_history_page",
)  # fmt: skip


def _claim(stages: Iterable[Stage], now: datetime) -> list[Stage]:
    """Lease these stages, except those that another worker has leased meanwhile."""
    return [
        stage
        for stage in stages
        if Stage.objects.unleased(now)
        .filter(pk=stage.pk, next_sync_at=stage.next_sync_at)
        .update(leased_until=now + LEASE)
    ]


def renew(stage_keys: Collection[int], now: datetime) -> None:
    """Renew the leases of these stages, except expired ones: another worker may hold them now."""
    if stage_keys:
        leased = Stage.objects.filter(pk__in=stage_keys, leased_until__gt=now)
        _update(leased, leased_until=now + LEASE)


def requeue(stage_pk: int, now: datetime) -> None:
    """Release a stage unread; it is due again now, after all that are due for longer."""
    Stage.objects.filter(pk=stage_pk).update(next_sync_at=now, leased_until=None)


def claim_runs(now: datetime, limit: int, *, aborting_only: bool = False) -> Sequence[Run]:
    """Lease up to `limit` runs whose detail is due; `aborting_only`: with an open abort."""
    due = Run.objects.due(now)
    if aborting_only:
        due = due.filter(aborts__in=Abort.objects.open())
    leased_runs = []
    for run in due.with_stage().without_detail()[:limit]:
        lease = now + LEASE
        unleased = Run.objects.filter(pk=run.pk, next_detail_sync_at=run.next_detail_sync_at)
        if unleased.update(next_detail_sync_at=lease):
            run.next_detail_sync_at = lease
            leased_runs.append(run)
    return leased_runs


def release_stage(stage: Stage, now: datetime, read_plan: Plan) -> None:
    """Release a stage and schedule its next read."""
    row = Stage.objects.filter(pk=stage.pk)
    state = row.values_list(*FACTS_FIELDS, "failures", "error", named=True).get()
    interval = read_plan.stage_interval(_facts(state, _count_in_flight()), now)
    if state.failures:
        backoff = schedule.failure_backoff(state.failures, state.error)
        interval = max(backoff, read_plan.watched_interval)
        row.update(next_sync_at=now + interval, leased_until=None)
        return
    # A first read omits older runs in flight and the release flow: they are due at once.
    incomplete = Q(in_flight_incomplete=True, has_flow=True) | Q(flow_synced_at=None)
    row.update(
        fresh_until=now + interval,
        leased_until=None,
        # A time changed meanwhile requests a read newer than ours: keep it.
        next_sync_at=Case(
            When(~Q(next_sync_at=stage.next_sync_at), then=F("next_sync_at")),
            When(incomplete, then=Value(now)),
            default=Value(now + interval),
        ),
    )


def release_after_flow_read(stage: Stage) -> None:
    """Release a stage after reading its release flow only; its runs are due at `fresh_until`."""
    row = Stage.objects.filter(pk=stage.pk)
    row.update(leased_until=None)
    unchanged = row.filter(next_sync_at=stage.next_sync_at).exclude(in_flight_incomplete=True)
    unchanged.update(next_sync_at=F("fresh_until"))


def release_run(leased_run: Run, now: datetime, read_plan: Plan | None) -> None:
    """Release a run that was read, and schedule its next read if it needs one."""
    run = Run.objects.only("in_flight", "status", "last_viewed_at").get(pk=leased_run.pk)
    abort_requested_at = run.aborts.open().values_list("requested_at", flat=True).first()
    interval = None
    is_watched = run.last_viewed_at is not None and now - run.last_viewed_at < schedule.WATCHED_FOR
    if run.in_flight and abort_requested_at is not None:
        interval = schedule.aborting_interval(now - abort_requested_at)
    elif run.in_flight and is_watched:
        interval = read_plan.watched_interval if read_plan is not None else LEASE
    # A time changed meanwhile requests a read newer than ours: keep it.
    unchanged = Run.objects.filter(pk=run.pk, next_detail_sync_at=leased_run.next_detail_sync_at)
    unchanged.update(next_detail_sync_at=now + interval if interval is not None else None)


def _make_due(stage_keys: Collection[int], now: datetime) -> None:
    if stage_keys:  # an empty update would still lock SQLite
        scheduled_later = Stage.objects.filter(pk__in=stage_keys, next_sync_at__gt=now)
        _update(scheduled_later, next_sync_at=now)


def _update(stages: StageQuerySet, **changes: datetime | Combinable) -> None:
    """Update several stages, locked in order of key, as webhook_events does."""
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
    watched_runs = (
        Run.objects.tracked().filter(last_viewed_at__gt=now - schedule.WATCHED_FOR).count()
    )
    catalog_lists = CatalogSync.objects.listed().count()
    stages_with_flow = [stage for stage in stages if stage.has_flow]
    hour = timedelta(hours=1)
    ended_runs = Run.objects.filter(ended_at__gt=now - hour).count() if webhook_alive else 0
    incomplete_histories = sum(
        stage.list_order != ListOrder.NEWEST or stage.next_history_page is not None
        for stage in stages_with_flow
    )
    return Demand(
        tracking + watched_runs / StageClass.WATCHED.value,
        discovery
        + catalog_lists / schedule.CATALOG_INTERVAL.total_seconds()
        + len(stages_with_flow) / schedule.FLOW_INTERVAL.total_seconds()
        + incomplete_histories / schedule.HISTORY_INTERVAL.total_seconds(),
        webhook_reads=schedule.WEBHOOK_READS_PER_RUN * ended_runs / hour.total_seconds(),
        has_gaps=CatalogSync.objects.never_synced().filter(failures=0).exists()
        or any(
            not stage.failures and schedule.find_gap(stage, now) is not None for stage in stages
        ),
        has_baseline_reads=has_baseline_reads,
    )
