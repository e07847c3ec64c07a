"""Related runs: what a run waits for and holds up, and which runs were skipped meanwhile.

Pure, except for the functions named `load_*`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache

from django.db.models import BigIntegerField, Q

from dashboard.db.prepared import Parameter, PreparedModels
from dashboard.models import Run, StageTiming
from dashboard.runs import concurrency_policy
from dashboard.runs.overdue import NOT_STARTED_STATUSES
from dashboard.texts.rich_text import RichText

MAX_SKIPPED = 1_000  # runs; of more the latest


@dataclass(frozen=True, slots=True)
class RelatedRuns:
    """Runs related to one run; those in flight are in the order of their creation."""

    policy_text: RichText  # of its stage's policy; empty if it has ended or is removed
    blocked_by: tuple[Run, ...] = ()  # of the same stage: the run waits for them
    blocks: tuple[Run, ...] = ()  # of the same stage: they wait for the run
    also_in_flight: tuple[Run, ...] = ()  # other runs in flight in the same pipeline
    skipped_meanwhile: tuple[Run, ...] = ()  # of the same stage, latest first
    skipped_text: RichText = ""  # how many were skipped; empty if none is known
    last_success: Run | None = None  # the stage's latest success


NO_RELATED_RUNS = RelatedRuns("")


def related_runs(
    run: Run,
    in_flight: Iterable[Run],
    timing: StageTiming | None,
    skipped_meanwhile: Sequence[Run] = (),
) -> RelatedRuns:
    """Return the runs of the pipeline, sorted by their relation to `run`.

    A removed run holds up no other and waits for none: it may have ended. `skipped_meanwhile` are
    those of `load_skipped`.
    """
    blocked_by, blocks, also_in_flight = list[Run](), list[Run](), list[Run]()
    policy = run.stage.concurrency_policy
    may_queue = run.is_tracked and concurrency_policy.may_queue(policy)
    others = sorted((other for other in in_flight if other.pk != run.pk), key=_creation_order)
    for other in others:
        is_older = _creation_order(other) < _creation_order(run)
        if other.stage_id != run.stage_id or not may_queue:
            also_in_flight.append(other)
        elif is_older and _is_waiting(run):
            blocked_by.append(other)
        elif not is_older and _is_waiting(other):
            blocks.append(other)
        else:
            also_in_flight.append(other)
    skipped_count = len(skipped_meanwhile)
    return RelatedRuns(
        policy_text=concurrency_policy.policy_text(policy) if run.is_tracked else "",
        blocked_by=tuple(blocked_by),
        blocks=tuple(blocks),
        also_in_flight=tuple(also_in_flight),
        skipped_meanwhile=tuple(skipped_meanwhile),
        skipped_text=concurrency_policy.skipped_text(skipped_count, in_flight=run.is_tracked),
        last_success=timing.last_success if timing else None,
    )


def load_related_runs(run: Run, visible: Q, timing: StageTiming | None) -> RelatedRuns:
    """Read and sort the related runs of a run, in the stages that match `visible`."""
    return related_runs(run, load_in_flight(run, visible), timing, load_skipped(run, visible))


def load_in_flight(run: Run, visible: Q) -> list[Run]:
    """Return the runs in flight in the run's pipeline, in the stages that match `visible`."""
    pipeline = run.stage.pipeline
    # A removed run holds up no other; it is included only if it is `run` itself.
    runs = [
        other
        for other in _in_flight_query(visible).fetch(pipeline=pipeline.pk)
        if other.removed_at is None or other.pk == run.pk
    ]
    for other in runs:
        other.stage.pipeline = pipeline
    return runs


@lru_cache(maxsize=100)
def _in_flight_query(visible: Q) -> PreparedModels[Run]:
    in_pipeline = Q(stage__pipeline=Parameter("pipeline", BigIntegerField()))
    runs = Run.objects.in_flight().filter(visible, in_pipeline)
    return PreparedModels(runs.without_detail().select_related("stage"))


def load_skipped(run: Run, visible: Q) -> list[Run]:
    """Return the runs of the stage that were refused while `run` was in flight, latest first.

    Only the policy `forbid` refuses runs. It is unknown when a removed run ended: until it was last
    read it was in flight.
    """
    end = run.concluded_at if run.concluded else run.synced_at
    holds_up_others = run.status != "skipped" and (run.is_tracked or end is not None)
    if run.stage.concurrency_policy != concurrency_policy.FORBID or not holds_up_others:
        return []
    skipped = Run.objects.filter(visible, stage=run.stage_id).with_status("skipped")
    skipped = skipped.filter(concluded=True, started_at=None, created_at__gte=run.created_at)
    if not run.is_tracked:
        skipped = skipped.filter(created_at__lte=end)
    skipped = skipped.with_in_flight(False).without_detail()  # by index
    loaded = list(skipped.order_by("-created_at", "-pk")[:MAX_SKIPPED])
    for other in loaded:
        other.stage = run.stage
    return loaded


def load_timing(run: Run) -> StageTiming | None:
    """Return the typical durations of the run's stage with its latest success, or None."""
    for stage_timing in _timing_query().fetch(stage=run.stage_id):
        if stage_timing.last_success is not None:
            stage_timing.last_success.stage = run.stage
        return stage_timing
    return None


@cache
def _timing_query() -> PreparedModels[StageTiming]:
    deferred_fields = "last_success__steps", "last_success__description"
    timings = StageTiming.objects.filter(stage=Parameter("stage", BigIntegerField()))
    return PreparedModels(timings.select_related("last_success").defer(*deferred_fields))


def _creation_order(run: Run) -> tuple[datetime, int]:
    return run.created_at, run.pk


def _is_waiting(run: Run) -> bool:
    """Return whether a run waits for another to end."""
    return run.status in NOT_STARTED_STATUSES and run.started_at is None
