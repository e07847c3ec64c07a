"""Related runs: what a run waits for and holds up, and which runs were skipped or superseded.

Pure, except for the functions named `load_*`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache

from django.db.models import BigIntegerField, Q

from dashboard.db.prepared import Parameter, PreparedModels
from dashboard.models import Abort, Run, StageTiming
from dashboard.runs import concurrency_policy
from dashboard.runs.overdue import NOT_STARTED_STATUSES
from dashboard.texts.rich_text import RichText, join_texts

MAX_FINISHED_RUNS = 100  # how many of a stage's latest ended runs `load_finished` reads
# A run aborted this soon after a newer one was created is superseded; later, a user aborted it.
SUPERSEDE_WINDOW = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class RelatedRuns:
    """Runs related to one run; those in flight are in the order of their creation."""

    policy_text: RichText  # of its stage's policy; empty if it has ended or is removed
    queued_ahead: tuple[Run, ...] = ()  # of the same stage: the run waits for them
    queued_behind: tuple[Run, ...] = ()  # of the same stage: they wait for the run
    also_in_flight: tuple[Run, ...] = ()  # other runs in flight in the same pipeline
    # Of the same stage: dropped while the run was in flight, latest first.
    skipped_meanwhile: tuple[Run, ...] = ()
    skipped_text: RichText = ""  # how many were skipped; empty if none is known
    superseded_by: Run | None = None  # the run for which this one was dropped
    superseded_text: RichText = ""  # empty if it was not dropped, or it is unclear for which run
    last_success: Run | None = None  # the stage's latest success

    @property
    def skip_summary(self) -> RichText:
        """Whether the run was superseded, and how many runs were skipped; empty if neither."""
        return join_texts(self.superseded_text, self.skipped_text)


@dataclass(frozen=True, slots=True)
class FinishedRuns:
    """Latest ended runs of a stage; empty if its policy drops no runs."""

    runs: Sequence[Run] = ()  # latest first
    aborted_run_pks: frozenset[int] = frozenset()  # those with an abort made here
    is_complete: bool = True  # whether it reaches back to the given run's creation


NO_FINISHED_RUNS = FinishedRuns()


def related_runs(
    run: Run,
    in_flight: Iterable[Run],
    timing: StageTiming | None,
    finished: FinishedRuns = NO_FINISHED_RUNS,
) -> RelatedRuns:
    """Return the runs of the pipeline, sorted by their relation to `run`.

    A removed run holds up no other and waits for none: it may have ended.
    """
    queued_ahead, queued_behind, also_in_flight = list[Run](), list[Run](), list[Run]()
    policy = run.stage.concurrency_policy
    is_parallel = policy == concurrency_policy.PARALLEL
    others = sorted((other for other in in_flight if other.pk != run.pk), key=_creation_order)
    for other in others:
        is_older = _creation_order(other) < _creation_order(run)
        if other.stage_id != run.stage_id or not run.is_tracked or is_parallel:
            also_in_flight.append(other)
        elif is_older and _is_waiting(run):
            queued_ahead.append(other)
        elif not is_older and _is_waiting(other):
            queued_behind.append(other)
        else:
            also_in_flight.append(other)
    stage_runs = [
        run,
        *finished.runs,
        *(other for other in others if other.stage_id == run.stage_id),
    ]
    stage_runs.sort(key=_creation_order)
    skipped_meanwhile = _skipped_meanwhile(run, stage_runs, finished)
    superseded_by = _superseded_by(run, stage_runs, finished)
    return RelatedRuns(
        policy_text=concurrency_policy.policy_text(policy) if run.is_tracked else "",
        queued_ahead=tuple(queued_ahead),
        queued_behind=tuple(queued_behind),
        also_in_flight=tuple(also_in_flight),
        skipped_meanwhile=skipped_meanwhile,
        skipped_text=concurrency_policy.skipped_text(
            policy,
            len(skipped_meanwhile),
            at_least=not finished.is_complete,
            in_flight=run.is_tracked,
        ),
        superseded_by=superseded_by,
        superseded_text=concurrency_policy.superseded_text(policy)
        if superseded_by is not None
        else "",
        last_success=timing.last_success if timing else None,
    )


def load_related_runs(run: Run, visible: Q, timing: StageTiming | None) -> RelatedRuns:
    """Read and sort the related runs of a run, in the stages that match `visible`."""
    return related_runs(run, load_in_flight(run, visible), timing, load_finished(run, visible))


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


def load_finished(run: Run, visible: Q) -> FinishedRuns:
    """Return the latest ended runs of the run's stage, created before the run's end.

    Nothing is read if the stage's policy drops no runs. At most MAX_FINISHED_RUNS are read.
    """
    if run.stage.concurrency_policy not in concurrency_policy.SKIPPING:
        return NO_FINISHED_RUNS
    ended = Run.objects.filter(visible, stage=run.stage_id, in_flight=False).exclude(pk=run.pk)
    end = _ended_at(run)
    if end is not None:
        ended = ended.filter(created_at__lte=end)
    loaded = list(ended.without_detail().order_by("-created_at", "-pk")[:MAX_FINISHED_RUNS])
    for other in loaded:
        other.stage = run.stage
    aborts = Abort.objects.filter(run__in=[run.pk, *(other.pk for other in loaded)])
    return FinishedRuns(
        runs=loaded,
        aborted_run_pks=frozenset(aborts.values_list("run_id", flat=True)),
        is_complete=len(loaded) < MAX_FINISHED_RUNS or loaded[-1].created_at < run.created_at,
    )


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


# --- Skipped and superseded runs ----------------------------------------------------------------


def _skipped_meanwhile(
    run: Run, stage_runs: Sequence[Run], finished: FinishedRuns
) -> tuple[Run, ...]:
    """Return the runs dropped while `run` was in flight, latest first."""
    candidates = ((other, _skipped_at(other, stage_runs, finished)) for other in finished.runs)
    return tuple(
        other
        for other, skipped_at in candidates
        if skipped_at is not None and _was_active_at(run, skipped_at)
    )


def _superseded_by(run: Run, stage_runs: Sequence[Run], finished: FinishedRuns) -> Run | None:
    """Return the run for which this one was dropped, or None if that is not clear."""
    skipped_at = _skipped_at(run, stage_runs, finished)
    if skipped_at is None:
        return None
    if run.stage.concurrency_policy in concurrency_policy.SUPERSEDING:
        return _newer_run(run, stage_runs)
    active = [other for other in stage_runs if _was_active_at(other, skipped_at)]
    return active[0] if len(active) == 1 else None


def _skipped_at(run: Run, stage_runs: Sequence[Run], finished: FinishedRuns) -> datetime | None:
    """Return when a run was dropped, by its end and its stage's policy; None if it was not."""
    policy = run.stage.concurrency_policy
    if not run.concluded or run.pk in finished.aborted_run_pks:
        return None
    if policy in concurrency_policy.SUPERSEDING:
        return run.concluded_at if _newer_run(run, stage_runs) is not None else None
    is_refused = run.status == "skipped" and run.started_at is None
    return run.created_at if is_refused and policy in concurrency_policy.SKIPPING else None


def _newer_run(run: Run, stage_runs: Sequence[Run]) -> Run | None:
    """Return the newest run that existed when this one was skipped or aborted, or None."""
    if run.status not in {"skipped", "aborted"} or run.concluded_at is None:
        return None
    count = bisect_right(stage_runs, run.concluded_at, key=_created_at)
    newest = stage_runs[count - 1] if count else run  # none if the clocks disagree
    is_too_late = (
        run.status == "aborted" and run.concluded_at - newest.created_at > SUPERSEDE_WINDOW
    )
    return newest if _creation_order(newest) > _creation_order(run) and not is_too_late else None


def _was_active_at(run: Run, moment: datetime) -> bool:
    """Return whether a run was in flight at `moment`; a skipped run never holds up others."""
    end = _ended_at(run)
    return run.status != "skipped" and (
        run.created_at <= moment and (run.is_tracked or (end is not None and moment <= end))
    )


def _ended_at(run: Run) -> datetime | None:
    """Return the run's end, or None if it is in flight or its end is unknown.

    For a removed run it is the last time Northflank listed it.
    """
    if run.is_tracked:
        return None
    return run.concluded_at if run.concluded else run.synced_at


def _creation_order(run: Run) -> tuple[datetime, int]:
    return run.created_at, run.pk


def _created_at(run: Run) -> datetime:
    return run.created_at


def _is_waiting(run: Run) -> bool:
    """Return whether a run waits for another to end.

    Under a policy that never queues runs, only its status `queued` counts.
    """
    if run.stage.concurrency_policy in concurrency_policy.NEVER_QUEUING and run.status != "queued":
        return False
    return run.status in NOT_STARTED_STATUSES and run.started_at is None
