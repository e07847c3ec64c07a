"""Whether a run is overdue, why and how badly, by the typical durations of its stage. Pure.

A run that is overdue is only marked, never aborted. Approvals are compared with typical approval
times, and work with typical work times; where none is known, the limits below apply.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b

from django.conf import settings

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.models.stage_timings import OVERRIDES
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import concurrency_policy, steps

NOT_STARTED_STATUSES = {"queued", "pending"}

# After these times a wait in the queue, a wait for approval and a run are overdue where no typical
# duration is known. A pause in a working day must not alert anybody.
QUEUE_LIMIT = timedelta(minutes=15)
APPROVAL_LIMIT = timedelta(hours=4)
RUN_LIMIT = timedelta(hours=1)
# How long an approval may wait before its run needs attention, overdue or not.
APPROVAL_PATIENCE = timedelta(minutes=30)


class OverdueReason(StrEnum):
    """What takes too long."""

    QUEUE = "queue"  # the run has not started
    APPROVAL = "approval"  # nobody has approved it yet
    STEP = "step"  # the current step
    NO_PROGRESS = "silent"  # no step has changed
    LAST_ATTEMPT = "attempts"  # a step is on its last attempt
    RUN = "run"  # the whole run
    BLOCKED = "blocked"  # nothing: it waits in the queue behind a run that is stuck


@dataclass(frozen=True, slots=True)
class Timer:
    """A part of a run with its start, and when it becomes overdue, and critical."""

    reason: OverdueReason
    started_at: datetime
    warning_at: datetime
    critical_at: datetime
    typical: TypicalDuration | None  # None: unknown, one of the limits above applies

    def severity_at(self, now: datetime) -> Severity:
        """Return how overdue it is at `now`."""
        if now > self.critical_at:
            return Severity.CRITICAL
        return Severity.WARNING if now > self.warning_at else Severity.OK


@dataclass(frozen=True, slots=True)
class Finding:
    """The most severe reason why a run is overdue."""

    severity: Severity
    reason: OverdueReason


def timers(run: Run, root: Node | None, timing: StageTiming | None) -> list[Timer]:
    """Return the timers of a run in flight, the most specific first.

    Empty for a removed run: it is unknown whether it goes on.
    """
    if not run.in_flight or run.removed_at is not None:
        return []
    if run.status == "aborting":
        return _aborting_timers(run, root, timing)
    if run.status in NOT_STARTED_STATUSES:
        return [queue_timer(run.turn_since, timing)] if run.turn_since else []
    started_at = run.started_at or run.created_at  # Northflank may omit started_at
    found_timers = []
    step = steps.current(root, run.status) if root is not None else None
    if step is not None and step.started_at is not None:
        typical = typical_step_duration(step, timing)
        if steps.is_approval(step):
            return [_approval_timer(step.started_at, typical)]
        if typical is not None:
            found_timers.append(_timer_from_typical(OverdueReason.STEP, step.started_at, typical))
    if run.status == "approval_wait":
        return [_approval_timer(run.status_since, timing.typical_approval() if timing else None)]
    typical = timing.typical_run if timing else None
    changed_at = steps.last_changed_at(root) if root is not None else None
    if changed_at is not None and typical is not None and not found_timers:
        # Its typical duration is unknown: a step that takes as long as a typical run is stuck.
        found_timers.append(_timer_from_typical(OverdueReason.NO_PROGRESS, changed_at, typical))
    approval_time = steps.approval_time(root) if root is not None else timedelta()
    found_timers.append(_timer(OverdueReason.RUN, started_at + approval_time, typical, RUN_LIMIT))
    return found_timers


def _aborting_timers(run: Run, root: Node | None, timing: StageTiming | None) -> list[Timer]:
    """Return the timer of the whole run for a run that is aborting, if it has one.

    Its steps, queue time and approvals no longer count; the abort itself has its own clock.
    """
    step = steps.current(root, run.status) if root is not None else None
    if run.started_at is None or (step is not None and steps.is_approval(step)):
        return []
    approval_time = steps.approval_time(root) if root is not None else timedelta()
    typical = timing.typical_run if timing else None
    return [_timer(OverdueReason.RUN, run.started_at + approval_time, typical, RUN_LIMIT)]


def typical_step_duration(step: Node, timing: StageTiming | None) -> TypicalDuration | None:
    """Return the typical duration of a step or of an approval, or None if unknown."""
    if timing is None:
        return None
    if steps.is_approval(step):
        return timing.typical_approval(steps.key(step))
    if step.ref is None and step.kind in steps.CONTAINER_KINDS:
        return None  # unnamed groups share one key, whatever their steps
    return timing.typical_step(steps.key(step))


def worst_finding(
    run: Run, root: Node | None, run_timers: Iterable[Timer], now: datetime
) -> Finding | None:
    """Return the most severe finding of a run with these timers, or None if nothing is overdue."""
    findings = [
        Finding(severity, timer.reason)
        for timer in run_timers
        if (severity := timer.severity_at(now))
    ]
    is_active = run.in_flight and run.status != "aborting"
    if (
        is_active
        and root is not None
        and any(is_last_attempt(step) for _, step in steps.walk(root))
    ):
        findings.append(Finding(Severity.WARNING, OverdueReason.LAST_ATTEMPT))
    # Of equally severe findings `max` returns the first, which is the most specific.
    return max(findings, key=lambda item: item.severity, default=None)


def queue_timer(started_at: datetime, timing: StageTiming | None) -> Timer:
    """Return the timer of a wait in the queue."""
    typical = timing.typical_queue if timing else None
    return _timer(OverdueReason.QUEUE, started_at, typical, QUEUE_LIMIT)


def is_ahead(other: Run, run: Run) -> bool:
    """Return whether a run in flight of the same stage is ahead of a run in its queue.

    A removed run is ahead of nobody: it may have ended.
    """
    return (
        concurrency_policy.may_queue(run.stage.concurrency_policy)
        and other.is_tracked
        and (other.created_at, other.pk) < (run.created_at, run.pk)
    )


def turn_since(run: Run, last_end: datetime | None) -> datetime:
    """Return since when a queued run with nothing ahead of it could have started.

    `last_end` is when the last of the stage's earlier runs ended; None: there is none. A run that
    Northflank never queues waits for no other: see concurrency_policy.py.
    """
    if not concurrency_policy.may_queue(run.stage.concurrency_policy):
        return run.created_at
    return max(run.created_at, last_end or run.created_at)


def is_stuck(run: Run, finding: Finding | None, now: datetime) -> bool:
    """Return whether a run needs attention, so that those queued behind it are blocked by it."""
    waited = now - run.approval_since if run.approval_since else timedelta()
    return (
        bool(finding and finding.severity)
        or bool(run.abort_severity)
        or (waited >= APPROVAL_PATIENCE)
    )


def basis(run: Run, root: Node | None, timing: StageTiming | None) -> str:
    """Return a digest of all that may make a run less overdue.

    That is a change of the run itself, of the runs ahead of it, of an override or of a setting:
    neither time, nor a baseline that other runs' successes have changed.
    """
    tree = steps.walk(root) if root is not None else ()
    state = (
        (run.status, run.started_at, run.turn_since, run.approval_since),
        (run.abort_severity, run.removed_at),
        [(steps.key(n), n.status, n.started_at, n.ended_at, n.attempts) for _depth, n in tree],
        [getattr(timing, name) for pair in OVERRIDES for name in pair] if timing else None,
        (settings.OVERDUE_FACTOR, settings.OVERDUE_CRITICAL_FACTOR),
    )
    return blake2b(repr(state).encode(), digest_size=8).hexdigest()


def mark(run: Run, finding: Finding | None, new_basis: str) -> tuple[int, str]:
    """Return the severity and reason to store: less severe only with another basis."""
    severity, reason = (finding.severity, finding.reason) if finding else (Severity.OK, "")
    if severity < run.overdue_severity and new_basis == run.overdue_basis:
        return run.overdue_severity, run.overdue_reason
    return int(severity), str(reason)


def is_last_attempt(step: Node) -> bool:
    """Return whether a step in progress has failed before, and is not tried again."""
    return (
        step.status == "retrying"
        and step.attempts is not None
        and step.max_attempts is not None
        and 1 < step.max_attempts <= step.attempts
    )


def _approval_timer(started_at: datetime, typical: TypicalDuration | None) -> Timer:
    return _timer(OverdueReason.APPROVAL, started_at, typical, APPROVAL_LIMIT)


def _timer(
    reason: OverdueReason, started_at: datetime, typical: TypicalDuration | None, limit: timedelta
) -> Timer:
    if typical is not None:
        return _timer_from_typical(reason, started_at, typical)
    critical_factor: float = settings.OVERDUE_CRITICAL_FACTOR
    return Timer(reason, started_at, started_at + limit, started_at + critical_factor * limit, None)


def _timer_from_typical(
    reason: OverdueReason, started_at: datetime, typical: TypicalDuration
) -> Timer:
    return Timer(reason, started_at, *typical.deadlines(started_at), typical)
