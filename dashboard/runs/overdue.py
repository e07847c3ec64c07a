"""Is a run overdue, of what, and how badly: told by what is usual in its stage. Pure.

A mark and a sentence, never an act. Waiting for people is judged by how long people usually take,
and work by how long work does. Where nothing is known, by plain limits of the settings.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.conf import settings

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import Overdue, Usual
from dashboard.northflank import Node
from dashboard.runs import steps

NOT_STARTED = {"queued", "pending"}


class Why(StrEnum):
    """What takes too long."""

    QUEUE = "queue"  # it has not started
    APPROVAL = "approval"  # people have not approved it
    STEP = "step"  # the step it is at
    SILENT = "silent"  # no step has changed
    ATTEMPTS = "attempts"  # the step it is at is on its last attempt
    RUN = "run"  # all of it


@dataclass(frozen=True, slots=True)
class Clock:
    """Something that takes its time: since when, and when it is overdue, and again."""

    why: Why
    since: datetime
    late_at: datetime
    very_late_at: datetime
    usual: Usual | None  # None: not known, so a plain limit holds

    def level(self, now: datetime) -> Overdue:
        """Say how far it is overdue."""
        if now > self.very_late_at:
            return Overdue.VERY
        return Overdue.YES if now > self.late_at else Overdue.NO


@dataclass(frozen=True, slots=True)
class Finding:
    """The worst that is overdue of a run."""

    level: Overdue
    why: Why


def clocks(run: Run, root: Node | None, timing: StageTiming | None) -> list[Clock]:
    """Return all that takes its time about a run in flight, the most telling first.

    Of one that Northflank knows no more nobody can tell whether it goes on.
    """
    if not run.in_flight or run.gone_at is not None:
        return []
    if run.status == "aborting":
        return _of_what_is_aborted(run, root, timing)
    if run.status in NOT_STARTED:
        usual = timing.usual_queue if timing else None
        return [_clock(Why.QUEUE, run.created_at, usual, settings.OVERDUE_QUEUED_AFTER)]
    began = run.started_at or run.created_at  # Northflank may leave out the first
    found = []
    at = steps.current(root) if root is not None else None
    if at is not None and at.started_at is not None:
        usual = usual_of(at, timing)
        if steps.for_people(at):
            return [_for_people(at.started_at, usual)]
        if usual is not None:
            found.append(_of(Why.STEP, at.started_at, usual))
    if run.status == "approval_wait":
        return [_for_people(run.status_since, timing.usual_approval() if timing else None)]
    usual = timing.usual_run if timing else None
    changed = steps.last_change(root) if root is not None else None
    if changed is not None and usual is not None and not found:
        # No step of its kind is known: one that alone takes as long as usually all of it is stuck.
        found.append(_of(Why.SILENT, changed, usual))
    waited = steps.waited(root) if root is not None else timedelta()
    found.append(_clock(Why.RUN, began + waited, usual, settings.OVERDUE_RUN_AFTER))
    return found


def _of_what_is_aborted(run: Run, root: Node | None, timing: StageTiming | None) -> list[Clock]:
    """Return the clock of all of a run that is aborting; the abort has one of its own.

    No step of it is waited for any more, neither is its turn, nor are people.
    """
    at = steps.current(root) if root is not None else None
    if run.started_at is None or (at is not None and steps.for_people(at)):
        return []
    waited = steps.waited(root) if root is not None else timedelta()
    usual = timing.usual_run if timing else None
    return [_clock(Why.RUN, run.started_at + waited, usual, settings.OVERDUE_RUN_AFTER)]


def usual_of(step: Node, timing: StageTiming | None) -> Usual | None:
    """Return how long a step usually takes, or people do to approve; None where nobody knows."""
    if timing is None:
        return None
    if steps.for_people(step):
        return timing.usual_approval(steps.key(step))
    if step.ref is None and step.kind in steps.CONTAINERS:
        return None  # groups without a name have one key, whatever is in them
    return timing.usual_step(steps.key(step))


def finding(
    run: Run, root: Node | None, timing: StageTiming | None, now: datetime
) -> Finding | None:
    """Return the worst that is overdue of a run, or None where nothing is."""
    late = [
        Finding(level, clock.why)
        for clock in clocks(run, root, timing)
        if (level := clock.level(now))
    ]
    going = run.in_flight and run.status != "aborting"
    if going and root is not None and (at := steps.current(root)) is not None:
        last = at.max_attempts is not None and at.max_attempts > 1
        if last and at.status == "retrying" and (at.attempts or 0) >= (at.max_attempts or 0):
            late.append(Finding(Overdue.YES, Why.ATTEMPTS))
    # Of two that are as bad the first says more.
    return max(late, key=lambda one: one.level, default=None)


def _for_people(since: datetime, usual: Usual | None) -> Clock:
    return _clock(Why.APPROVAL, since, usual, settings.OVERDUE_APPROVAL_AFTER)


def _clock(why: Why, since: datetime, usual: Usual | None, limit: int) -> Clock:
    if usual is not None:
        return _of(why, since, usual)
    plain = timedelta(seconds=limit)
    again: float = settings.OVERDUE_AGAIN_FACTOR
    return Clock(why, since, since + plain, since + again * plain, None)


def _of(why: Why, since: datetime, usual: Usual) -> Clock:
    return Clock(why, since, *usual.since(since), usual)
