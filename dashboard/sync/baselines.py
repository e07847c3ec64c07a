"""Maintain each stage's baseline: typical durations from its latest successes, as they conclude.

Step durations cost one detail request per success. Unless someone waits for them, details are read
one at a time, an interval apart (`schedule_next_detail`), so that they do not delay reads of runs
in flight. The scheduled one is stored in the database: the interval holds for all workers together.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache

from django.db.models import BigIntegerField, Exists, F, OuterRef, Q, Subquery
from django.db.models.expressions import Combinable

from dashboard.db.prepared import Parameter, PreparedModels, PreparedQuery
from dashboard.models import Run, Stage, StageTiming, typical_duration
from dashboard.models.runs import RunQuerySet
from dashboard.models.severity import Severity
from dashboard.northflank import Node
from dashboard.runs import steps

_STAGE = Parameter("stage", BigIntegerField())

# The detail of a concluded run was not read since: its last steps have no durations.
LACKS_FINAL_DETAIL = Q(detail_synced_at=None) | Q(detail_synced_at__lt=F("status_since"))
# A success never viewed, and without it: its detail is scheduled for the baseline only.
SCHEDULED_DETAIL = LACKS_FINAL_DETAIL & Q(
    status="success",
    concluded=True,
    last_viewed_at=None,
    failures=0,
    next_detail_sync_at__isnull=False,
)


def update_baseline(stage_id: int, moment: datetime) -> None:
    """Recompute a stage's baseline from its latest successes."""
    latest = _latest_successes_query().fetch(stage=stage_id)
    step_trees = {
        run.pk: step_tree
        for run in latest
        if run.has_final_detail and (step_tree := steps.decode(run.steps)) is not None
    }
    baseline = _load_timing(stage_id)
    # The samples move on with each success: until enough details are read again, keep the last
    # baseline that was made from enough of them.
    has_enough = len(step_trees) >= typical_duration.MIN_SAMPLES
    work_duration = typical_duration.estimate(_work_durations(latest, step_trees))
    if work_duration is None or (baseline.approval_keys and not has_enough):
        work_duration = baseline.observed_run
    queue = typical_duration.estimate(
        run.started_at - run.created_at for run in latest if run.started_at
    )
    baseline.record_baseline(
        run=work_duration,
        queue=queue or baseline.observed_queue,
        steps=_step_durations(step_trees.values()) if has_enough else None,
        approval_keys=_approval_keys(step_trees.values()) if has_enough else baseline.approval_keys,
        success_count=len(latest),
        detail_count=len(step_trees),
        last_success_id=next((pk for (pk,) in _last_success_query().fetch(stage=stage_id)), None),
        observed_at=moment,
    )


@cache
def _latest_successes_query() -> PreparedModels[Run]:
    latest = unaborted_successes(_STAGE).only(
        *("created_at", "started_at", "concluded", "concluded_at"),
        *("status_since", "detail_synced_at", "steps"),
    )
    return PreparedModels(latest[: typical_duration.MAX_SAMPLES])


def _load_timing(stage_id: int) -> StageTiming:
    """Return the row of a stage's typical durations; create it if there is none."""
    if not (timings := _timing_query().fetch(stage=stage_id)):
        # A person may enter an override at the same time.
        StageTiming.objects.bulk_create([StageTiming(stage_id=stage_id)], ignore_conflicts=True)
        timings = _timing_query().fetch(stage=stage_id)
    return timings[0]


@cache
def _timing_query() -> PreparedModels[StageTiming]:
    return PreparedModels(StageTiming.objects.filter(stage=_STAGE).order_by())


@cache
def _last_success_query() -> PreparedQuery:
    return PreparedQuery(Run.objects.filter(stage=_STAGE).successes().values_list("pk")[:1])


def schedule_next_detail(now: datetime, interval: timedelta) -> bool:
    """Schedule one success's detail after `interval` unless one is scheduled; return if one is now.

    Stages with an overdue run come first, then stages without step durations, then those with the
    most details read, then those with the oldest baseline.
    """
    if _scheduled_query().fetch():
        return True
    keys = [key for (key,) in _next_detail_query().fetch()]
    if not keys:
        return False
    # Another worker may have scheduled one meanwhile; a concurrent one has chosen this same run.
    scheduled = Run.objects.filter(SCHEDULED_DETAIL)
    unscheduled = Run.objects.filter(~Exists(scheduled), pk__in=keys, next_detail_sync_at=None)
    unscheduled.update(next_detail_sync_at=now + interval)
    return True


@cache
def _scheduled_query() -> PreparedQuery:
    return PreparedQuery(Run.objects.filter(SCHEDULED_DETAIL).values_list("pk")[:1])


@cache
def _next_detail_query() -> PreparedQuery:
    in_flight = Run.objects.in_flight().filter(stage=OuterRef("stage"))
    readable = Run.objects.filter(
        LACKS_FINAL_DETAIL,
        pk__in=unaborted_successes(OuterRef(OuterRef("stage"))).values("pk")[
            : typical_duration.MAX_SAMPLES
        ],
        removed_at=None,
        next_detail_sync_at=None,
        failures=0,
    ).order_by("-concluded_at", "-pk")
    incomplete = StageTiming.objects.filter(
        stage__in=Stage.objects.listed(),
        detail_count__lt=typical_duration.MIN_SAMPLES,
        success_count__gte=typical_duration.MIN_SAMPLES,
    ).annotate(
        awaited=Exists(in_flight.filter(overdue_severity__gt=Severity.OK)),
        known=~Q(observed_steps={}),
        next=Subquery(readable.values("pk")[:1]),
    )
    candidates = incomplete.exclude(next=None).order_by(
        "-awaited", "known", "-detail_count", "observed_at", "stage"
    )
    return PreparedQuery(candidates.values_list("next")[:1])


def unaborted_successes(stage_id: int | Combinable) -> RunQuerySet:
    """Return a stage's successes without any abort, latest first; an abort distorts durations."""
    return Run.objects.filter(stage=stage_id).successes().exclude(aborts__isnull=False)


def _work_durations(latest: list[Run], step_trees: dict[int, Node]) -> list[timedelta]:
    """Return the execution time of each run without its approval waits."""
    approval_runs = [
        run for run in latest if run.pk in step_trees and steps.approval_time(step_trees[run.pk])
    ]
    if approval_runs:
        # Without its detail a run's approval waits are unknown: exclude it.
        latest = [run for run in latest if run.pk in step_trees]
    return [
        run.concluded_at - run.started_at - steps.approval_time(step_trees[run.pk])
        if run.pk in step_trees
        else run.concluded_at - run.started_at
        for run in latest
        if run.concluded_at and run.started_at
    ]


def _step_durations(step_trees: Iterable[Node]) -> dict[str, typical_duration.TypicalDuration]:
    spans_by_key: dict[str, list[timedelta]] = defaultdict(list)
    for root in step_trees:
        for _, node in steps.walk(root):
            if node.status == "success" and node.started_at and node.ended_at:
                spans_by_key[steps.key(node)].append(node.ended_at - node.started_at)
    typical = {key: typical_duration.estimate(spans) for key, spans in spans_by_key.items()}
    return {key: duration for key, duration in typical.items() if duration is not None}


def _approval_keys(step_trees: Iterable[Node]) -> list[str]:
    nodes = (node for root in step_trees for _, node in steps.walk(root))
    return sorted({steps.key(node) for node in nodes if steps.is_approval(node)})
