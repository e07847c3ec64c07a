"""Is a run overdue, of what, and how badly: told by what is usual in its stage. Pure.

A mark and a sentence, never an act. Waiting for people is judged by how long people usually take,
and work by how long work does. Where nothing is known, by plain limits of the settings.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.conf import settings

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import Severity, TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import steps

NOT_STARTED_STATUSES = {"queued", "pending"}


class OverdueReason(StrEnum):
    """What takes too long."""

    QUEUE = "queue"  # it has not started
    APPROVAL = "approval"  # people have not approved it
    STEP = "step"  # the step it is at
    NO_PROGRESS = "silent"  # no step has changed
    LAST_ATTEMPT = "attempts"  # the step it is at is on its last attempt
    RUN = "run"  # all of it


@dataclass(frozen=True, slots=True)
class Timer:
    """Something that takes its time: since when, and when it is overdue, and again."""

    reason: OverdueReason
    started_at: datetime
    warning_at: datetime
    critical_at: datetime
    typical: TypicalDuration | None  # None: not known, so a plain limit holds

    def severity_at(self, now: datetime) -> Severity:
        """Say how far it is overdue."""
        if now > self.critical_at:
            return Severity.CRITICAL
        return Severity.WARNING if now > self.warning_at else Severity.OK


@dataclass(frozen=True, slots=True)
class Finding:
    """The worst that is overdue of a run."""

    severity: Severity
    reason: OverdueReason


def timers(run: Run, root: Node | None, timing: StageTiming | None) -> list[Timer]:
    """Return all that takes its time about a run in flight, the most telling first.

    Of one that Northflank knows no more nobody can tell whether it goes on.
    """
    if not run.in_flight or run.removed_at is not None:
        return []
    if run.status == "aborting":
        return _aborting_timers(run, root, timing)
    if run.status in NOT_STARTED_STATUSES:
        typical = timing.typical_queue if timing else None
        return [_timer(OverdueReason.QUEUE, run.created_at, typical, settings.OVERDUE_QUEUED_AFTER)]
    started_at = run.started_at or run.created_at  # Northflank may leave out the first
    found_timers = []
    step = steps.current(root) if root is not None else None
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
        # No step of its kind is known: one that alone takes as long as usually all of it is stuck.
        found_timers.append(_timer_from_typical(OverdueReason.NO_PROGRESS, changed_at, typical))
    approval_time = steps.approval_time(root) if root is not None else timedelta()
    found_timers.append(
        _timer(OverdueReason.RUN, started_at + approval_time, typical, settings.OVERDUE_RUN_AFTER)
    )
    return found_timers


def _aborting_timers(run: Run, root: Node | None, timing: StageTiming | None) -> list[Timer]:
    """Return the clock of all of a run that is aborting; the abort has one of its own.

    No step of it is waited for any more, neither is its turn, nor are people.
    """
    step = steps.current(root) if root is not None else None
    if run.started_at is None or (step is not None and steps.is_approval(step)):
        return []
    approval_time = steps.approval_time(root) if root is not None else timedelta()
    typical = timing.typical_run if timing else None
    return [
        _timer(
            OverdueReason.RUN, run.started_at + approval_time, typical, settings.OVERDUE_RUN_AFTER
        )
    ]


def typical_step_duration(step: Node, timing: StageTiming | None) -> TypicalDuration | None:
    """Return how long a step usually takes, or people do to approve; None where nobody knows."""
    if timing is None:
        return None
    if steps.is_approval(step):
        return timing.typical_approval(steps.key(step))
    if step.ref is None and step.kind in steps.CONTAINER_KINDS:
        return None  # groups without a name have one key, whatever is in them
    return timing.typical_step(steps.key(step))


def worst_finding(
    run: Run, root: Node | None, timing: StageTiming | None, now: datetime
) -> Finding | None:
    """Return the worst that is overdue of a run, or None where nothing is."""
    findings = [
        Finding(severity, timer.reason)
        for timer in timers(run, root, timing)
        if (severity := timer.severity_at(now))
    ]
    is_active = run.in_flight and run.status != "aborting"
    if is_active and root is not None and (step := steps.current(root)) is not None:
        has_retries = step.max_attempts is not None and step.max_attempts > 1
        if (
            has_retries
            and step.status == "retrying"
            and (step.attempts or 0) >= (step.max_attempts or 0)
        ):
            findings.append(Finding(Severity.WARNING, OverdueReason.LAST_ATTEMPT))
    # Of two that are as bad the first says more.
    return max(findings, key=lambda item: item.severity, default=None)


def _approval_timer(started_at: datetime, typical: TypicalDuration | None) -> Timer:
    return _timer(OverdueReason.APPROVAL, started_at, typical, settings.OVERDUE_APPROVAL_AFTER)


def _timer(
    reason: OverdueReason, started_at: datetime, typical: TypicalDuration | None, limit_seconds: int
) -> Timer:
    if typical is not None:
        return _timer_from_typical(reason, started_at, typical)
    limit = timedelta(seconds=limit_seconds)
    critical_factor: float = settings.OVERDUE_CRITICAL_FACTOR
    return Timer(reason, started_at, started_at + limit, started_at + critical_factor * limit, None)


def _timer_from_typical(
    reason: OverdueReason, started_at: datetime, typical: TypicalDuration
) -> Timer:
    return Timer(reason, started_at, *typical.deadlines(started_at), typical)
