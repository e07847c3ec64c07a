"""What a run holds up, and what else goes on around it.

Pure, but for what reads: `near`, `flying`, `past` and `timing`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q

from dashboard.models import Abort, Run, StageTiming
from dashboard.runs import concurrency_policy
from dashboard.runs.overdue import NOT_STARTED

LOOKED_AT = 100  # runs of a stage that have ended, the latest ones: how far `past` looks back
# An abort follows the newer run that it is for; one that comes later is taken for somebody's.
SOON = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Around:
    """The runs around one; what is in flight comes in the order of its creation."""

    policy: str  # what the run means for others of its stage, while it is in flight
    before: tuple[Run, ...] = ()  # of the same stage: it waits for them
    behind: tuple[Run, ...] = ()  # of the same stage: they wait for it
    beside: tuple[Run, ...] = ()  # else in flight in the same pipeline
    swallowed: tuple[Run, ...] = ()  # of the same stage: dropped in its time, the latest first
    swallowed_in_words: str = ""  # how many; empty: none is known
    dropped_for: Run | None = None  # the run for which it was dropped itself
    dropped_for_in_words: str = ""  # empty: it was not, or nobody knows for which
    last_good: Run | None = None  # the latest success of the stage

    @property
    def dropped_in_words(self) -> str:
        """Whether it was dropped itself, and how many were in its time; empty: neither."""
        return f"{self.dropped_for_in_words} {self.swallowed_in_words}".strip()


@dataclass(frozen=True, slots=True)
class Past:
    """The latest runs of a stage that had ended, where its policy lets runs be dropped."""

    runs: Sequence[Run] = ()  # the latest first
    aborted_here: frozenset[int] = frozenset()  # keys of those that people aborted from here
    complete: bool = True  # it reaches back to the creation of the run that it is about


NOTHING = Past()


def of(run: Run, flying: Iterable[Run], timing: StageTiming | None, past: Past = NOTHING) -> Around:
    """Sort the runs of its pipeline by what they have to do with a run."""
    before, behind, beside = list[Run](), list[Run](), list[Run]()
    policy = run.stage.concurrency_policy
    side_by_side = policy == "allow"  # one that has not started will by itself
    others = sorted((each for each in flying if each.pk != run.pk), key=_age)
    for each in others:
        earlier = _age(each) < _age(run)
        if each.stage_id != run.stage_id or not run.in_flight or side_by_side:
            beside.append(each)
        elif earlier and _waits(run):
            before.append(each)
        elif not earlier and _waits(each):
            behind.append(each)
        else:
            beside.append(each)
    here = [run, *past.runs, *(each for each in others if each.stage_id == run.stage_id)]
    here.sort(key=_age)
    swallowed = _swallowed(run, here, past)
    dropped_for = _dropped_for(run, here, past)
    return Around(
        policy=concurrency_policy.for_others(policy) if run.in_flight else "",
        before=tuple(before),
        behind=tuple(behind),
        beside=tuple(beside),
        swallowed=swallowed,
        swallowed_in_words=concurrency_policy.swallowed(
            policy, len(swallowed), at_least=not past.complete, in_flight=run.in_flight
        ),
        dropped_for=dropped_for,
        dropped_for_in_words=concurrency_policy.dropped(policy) if dropped_for is not None else "",
        last_good=timing.last_good if timing else None,
    )


def near(run: Run, seen: Q, timing: StageTiming | None) -> Around:
    """Read what is around a run, in the stages that `seen` lets through, and sort it."""
    return of(run, flying(run, seen), timing, past(run, seen))


def flying(run: Run, seen: Q) -> list[Run]:
    """Return what is in flight in the run's pipeline, in the stages that `seen` lets through."""
    pipeline = run.stage.pipeline
    # What Northflank knows no more holds up nothing.
    there = Run.objects.followed() | Run.objects.in_flight().filter(pk=run.pk)
    runs = there.filter(seen, stage__pipeline=pipeline).without_detail()
    found = list(runs.select_related("stage"))
    for each in found:
        each.stage.pipeline = pipeline
    return found


def past(run: Run, seen: Q) -> Past:
    """Return what had ended in the run's stage by its end, as far back as is looked.

    Nothing is read where the stage's policy has runs wait for each other, or go side by side.
    """
    if run.stage.concurrency_policy not in concurrency_policy.DROPPING:
        return NOTHING
    ended = Run.objects.filter(seen, stage=run.stage_id, in_flight=False).exclude(pk=run.pk)
    end = _end(run)
    if end is not None:
        ended = ended.filter(created_at__lte=end)
    found = list(ended.without_detail().order_by("-created_at", "-pk")[:LOOKED_AT])
    for each in found:
        each.stage = run.stage
    asked = Abort.objects.filter(run__in=[run.pk, *(each.pk for each in found)])
    return Past(
        runs=found,
        aborted_here=frozenset(asked.values_list("run_id", flat=True)),
        complete=len(found) < LOOKED_AT or found[-1].created_at < run.created_at,
    )


def timing(run: Run) -> StageTiming | None:
    """Return what is usual in the run's stage, and with it the stage's latest success."""
    heavy = "last_good__steps", "last_good__raw", "last_good__description"
    known = StageTiming.objects.filter(stage=run.stage_id).select_related("last_good")
    found = known.defer(*heavy).first()
    if found is not None and found.last_good is not None:
        found.last_good.stage = run.stage
    return found


# --- What was dropped ---------------------------------------------------------------------------


def _swallowed(run: Run, here: Sequence[Run], past: Past) -> tuple[Run, ...]:
    """Return what was dropped in a run's time, the latest first."""
    dropped = ((each, _dropped_at(each, here, past)) for each in past.runs)
    return tuple(each for each, at in dropped if at is not None and _is_there(run, at))


def _dropped_for(run: Run, here: Sequence[Run], past: Past) -> Run | None:
    """Return the run for which this one was dropped, where it can be but one."""
    at = _dropped_at(run, here, past)
    if at is None:
        return None
    if run.stage.concurrency_policy in concurrency_policy.FOR_A_NEWER_ONE:
        return _newer(run, here)
    there = [each for each in here if _is_there(each, at)]
    return there[0] if len(there) == 1 else None


def _dropped_at(run: Run, here: Sequence[Run], past: Past) -> datetime | None:
    """Return when a run was dropped, by its end and its flow's policy; None: it was not."""
    policy = run.stage.concurrency_policy
    if not run.concluded or run.pk in past.aborted_here:
        return None
    if policy in concurrency_policy.FOR_A_NEWER_ONE:
        return run.concluded_at if _newer(run, here) is not None else None
    refused = run.status == "skipped" and run.started_at is None
    return run.created_at if refused and policy in concurrency_policy.DROPPING else None


def _newer(run: Run, here: Sequence[Run]) -> Run | None:
    """Return the newest run that was there when this one ended without having its way."""
    if run.status not in {"skipped", "aborted"} or run.concluded_at is None:
        return None
    count = bisect_right(here, run.concluded_at, key=_created_at)
    newest = here[count - 1] if count else run  # none: what clocks say that are off
    late = run.status == "aborted" and run.concluded_at - newest.created_at > SOON
    return newest if _age(newest) > _age(run) and not late else None


def _is_there(run: Run, at: datetime) -> bool:
    """Say whether a run stood in the way of others at a time; one that was skipped never did."""
    end = _end(run)
    return run.status != "skipped" and (
        run.created_at <= at and (run.in_flight or (end is not None and at <= end))
    )


def _end(run: Run) -> datetime | None:
    """Return until when a run is known to have been there; None: it still is, or nobody says."""
    if run.in_flight:
        return None
    return run.concluded_at if run.concluded else run.seen_at


def _age(run: Run) -> tuple[datetime, int]:
    return run.created_at, run.pk


def _created_at(run: Run) -> datetime:
    return run.created_at


def _waits(run: Run) -> bool:
    """Say whether a run waits for its turn: where none is meant to, only if Northflank says so."""
    if run.stage.concurrency_policy in concurrency_policy.NOTHING_WAITS and run.status != "queued":
        return False
    return run.status in NOT_STARTED and run.started_at is None
