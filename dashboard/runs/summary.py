"""Run summary: how a run stands, in a sentence or two, and a shorter text for its row. Pure.

What is not known is left out. Each remark is a message around the one so far (`state`), so that a
translation can place it freely.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import abort_clock, overdue, overdue_messages, statuses, steps
from dashboard.runs.overdue import NOT_STARTED_STATUSES, OverdueReason, Timer
from dashboard.texts import durations
from dashboard.texts.rich_text import (
    Countdown,
    Elapsed,
    ExternalText,
    Message,
    MessageTable,
    RichText,
    join_texts,
)

MAX_ERROR_LENGTH = 200  # characters; the page's steps show the whole error
# For these statuses of a run in flight the current step describes it better.
ACTIVE_STATUSES = {"running", "waiting", "retrying", "async_wait", "approval_wait"}
_text = MessageTable(
    {
        "summary": gettext_lazy("%(pipeline)s / %(stage)s: %(state)s"),
        "sentence": gettext_lazy("%(state)s."),
        # Remarks around a state.
        # Translators: “queued” and “for 18 min”.
        "since": gettext_lazy("%(state)s %(since)s"),
        "typical": gettext_lazy("%(state)s (%(typical)s)"),
        "overdue": gettext_lazy("%(state)s, longer than usual"),
        "far_overdue": gettext_lazy("%(state)s, far longer than usual"),
        "runs_ahead": lambda n: ngettext(
            "%(state)s, %(n)d run ahead", "%(state)s, %(n)d runs ahead", n
        ),
        "parallel_steps": lambda n: ngettext(
            "%(state)s, and %(n)d more in parallel", "%(state)s, and %(n)d more in parallel", n
        ),
        "with_status": gettext_lazy("%(status)s; %(state)s"),
        "at_step": gettext_lazy("%(state)s, at step “%(step)s”"),
        "at_attempt": gettext_lazy("%(state)s, at step “%(step)s” on attempt %(n)d"),
        "at_attempt_of": gettext_lazy("%(state)s, at step “%(step)s” on attempt %(n)d of %(most)d"),
        "with_error": gettext_lazy("%(state)s: %(error)s"),
        "with_approvals": gettext_lazy("%(state)s, plus %(time)s waiting for approval"),
        # Sentences after the first.
        "queued_behind": lambda n: ngettext(
            "%(n)d run is queued behind it.", "%(n)d runs are queued behind it.", n
        ),
        "attempt": gettext_lazy("Attempt %(n)d"),
        "attempt_of": gettext_lazy("Attempt %(n)d of %(most)d"),
        "attempt_sentence": gettext_lazy("%(attempt)s."),
        "last_attempt": gettext_lazy("%(attempt)s (last)."),
        # Translators: “in 40 s” or “due now” follows “next”.
        "next_attempt": gettext_lazy("%(attempt)s, next %(until)s."),
        "last_error": gettext_lazy("Last error: %(error)s."),
        "error_message": gettext_lazy("“%(error)s”"),
        "error_code": gettext_lazy("code %(code)s"),
        # A run in flight.
        "queued": gettext_lazy("queued"),
        "pending": gettext_lazy("waiting to start"),
        "running": gettext_lazy("running"),
        "retrying": gettext_lazy("retrying a failed step"),
        "async_wait": gettext_lazy("waiting for an external response"),
        "approval_wait": gettext_lazy("needs approval"),
        "step": gettext_lazy("step “%(step)s”"),
        "step_not_started": gettext_lazy("at step “%(step)s”"),
        "step_approval": gettext_lazy("needs approval at step “%(step)s”"),
        "step_async_wait": gettext_lazy("step “%(step)s” waiting for an external response"),
        "status": gettext_lazy("Northflank status: “%(status)s”"),
        "status_not_concluded": gettext_lazy("Northflank status: “%(status)s”, but not concluded"),
        "status_unknown": gettext_lazy("Northflank status: unknown"),
        "no_status": gettext_lazy("Northflank reports no status"),
        "aborting": gettext_lazy("aborting"),
        # Translators: “for 18 min” follows.
        "aborting_at_least": gettext_lazy("aborting at least"),
        # A run that has ended or was removed.
        "removed": gettext_lazy("Northflank no longer lists this run."),
        "removed_status": gettext_lazy(
            "Northflank no longer lists this run; last status “%(status)s”"
        ),
        "removed_after_end": gettext_lazy("Northflank no longer lists it."),
        "success": gettext_lazy("succeeded"),
        "success_in": gettext_lazy("succeeded in %(time)s"),
        "failure": gettext_lazy("failed"),
        "failure_after": gettext_lazy("failed after %(time)s"),
        "aborted": gettext_lazy("aborted"),
        "aborted_after": gettext_lazy("aborted after %(time)s"),
        "ended": gettext_lazy("ended"),
        "ended_after": gettext_lazy("ended after %(time)s"),
        "ended_with_status": gettext_lazy("%(state)s; %(status)s"),
        "ended_unknown": gettext_lazy("ended; Northflank reports the outcome as unknown"),
        "ended_unknown_after": gettext_lazy(
            "ended after %(time)s; Northflank reports the outcome as unknown"
        ),
        "skipped": gettext_lazy("skipped: Northflank did not run it"),
        # The line of a row.
        "row_step": gettext_lazy("%(step)s, %(since)s"),
        "row_approval": gettext_lazy(
            "Waiting for approval: “%(step)s”, %(since)s. Approve it on Northflank."
        ),
        "row_approval_unknown_step": gettext_lazy("Approve it on Northflank."),
    }
)


def build(
    run: Run,
    root: Node | None,
    timing: StageTiming | None,
    *,
    queued_ahead: int = 0,
    queued_behind: int = 0,
    skip_summary: RichText = "",
) -> Message:
    """Return the summary: pipeline, stage, and how the run stands in a sentence or two.

    `queued_ahead` and `queued_behind` count the runs it waits for and those waiting for it;
    `skip_summary` is that of its `RelatedRuns`.
    """
    if run.concluded:
        state = _concluded_state(run, root, timing)
    elif run.removed_at is not None:
        state = _removed_state(run, root)
    elif run.status == "aborting":
        state = _aborting_state(run, root)
    else:
        state = _in_flight_state(run, root, timing, queued_ahead)
    is_blocking = queued_behind and run.in_flight
    queue_text = _text("queued_behind", n=queued_behind) if is_blocking else ""
    return _text(
        "summary",
        pipeline=ExternalText(str(run.stage.pipeline)),
        stage=run.stage.name,
        state=join_texts(state, queue_text, skip_summary),
    )


def step_summary(run: Run, timers: Iterable[Timer]) -> RichText:
    """Return the current step of a run, for its row; empty if none is known.

    The row shows separately how long the run has taken or been queued. `timers` are the run's
    timers, which supply the typical durations.
    """
    if not run.in_flight:
        return ""
    timers = list(timers)
    is_approval = run.status == "approval_wait" or any(
        timer.reason is OverdueReason.APPROVAL for timer in timers
    )
    if not run.step or (run.status == "approval_wait" and _is_step_older_than_status(run)):
        return _text("row_approval_unknown_step") if is_approval else ""
    step = ExternalText(run.step)
    if run.step_started_at is None or run.status == "aborting":
        return step
    key = "row_approval" if is_approval else "row_step"
    text = _text(key, step=step, since=Elapsed(run.step_started_at))
    typical_by_reason = {timer.reason: timer.typical for timer in timers}
    # The row's progress bar shows the typical duration of the run: not repeated here if equal.
    typical_step, typical_run = (
        typical_by_reason.get(OverdueReason.STEP),
        typical_by_reason.get(OverdueReason.RUN),
    )
    if (
        typical_step
        and typical_run
        and durations.format_typical(typical_step) == durations.format_typical(typical_run)
    ):
        return text
    return _with_typical(text, typical_step)


def _is_step_older_than_status(run: Run) -> bool:
    """Return whether the steps were last read before the run's status changed."""
    return run.detail_synced_at is not None and run.detail_synced_at < run.status_since


# --- In flight ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Activity:
    """What a run in flight is doing."""

    state: Message
    reason: OverdueReason | None  # that `typical` belongs to; None: none
    typical: TypicalDuration | None = None
    count_key: str = ""  # the remark that says `count`
    count: int = 0
    attempt_text: RichText = ""


def _in_flight_state(
    run: Run, root: Node | None, timing: StageTiming | None, queued_ahead: int
) -> RichText:
    activity = _activity(run, root, timing, queued_ahead)
    is_remark = activity.typical and run.overdue_severity and run.overdue_reason == activity.reason
    step = _current_step(run, root)
    is_repeated = (
        activity.attempt_text
        and run.overdue_reason == OverdueReason.LAST_ATTEMPT
        and step is not None
        and overdue.is_last_attempt(step)  # not another step beside it
    )
    state = _with_typical(activity.state, activity.typical)
    if is_remark:
        is_critical = run.overdue_severity == Severity.CRITICAL
        state = _text("far_overdue" if is_critical else "overdue", state=state)
    if activity.count:
        state = _text(activity.count_key, state=state, n=activity.count)
    return join_texts(
        _text("sentence", state=state),
        activity.attempt_text,
        "" if is_remark or is_repeated else _overdue_text(run, root, timing),
    )


def _activity(
    run: Run, root: Node | None, timing: StageTiming | None, queued_ahead: int
) -> _Activity:
    if run.status in NOT_STARTED_STATUSES:
        return _activity_before_start(run, timing, queued_ahead)
    step = _current_step(run, root)
    if step is not None:
        return _activity_at_step(run, root, step, timing)
    if run.status in {"retrying", "async_wait", "approval_wait"}:
        return _activity_at_unknown_step(run, timing)
    if run.status in ACTIVE_STATUSES:
        state = _with_elapsed(_text("running"), run.started_at)
        return _Activity(state, OverdueReason.RUN, timing.typical_run if timing else None)
    # A final status (“success”) of a run in flight gets no elapsed time: it is no activity.
    is_lasting = run.status not in statuses.RUN_STATUSES or run.status == "unknown"
    since = _status_started_at(run) if is_lasting else None
    return _Activity(_with_elapsed(_status_text(run), since), None)


def _activity_before_start(run: Run, timing: StageTiming | None, queued_ahead: int) -> _Activity:
    return _Activity(
        _with_elapsed(_text(run.status), run.created_at),
        OverdueReason.QUEUE,
        timing.typical_queue if timing else None,
        "runs_ahead",
        queued_ahead,
    )


def _activity_at_step(
    run: Run, root: Node | None, step: Node, timing: StageTiming | None
) -> _Activity:
    is_approval = steps.is_approval(step)
    return _Activity(
        _with_status(run, _current_step_text(step)),
        OverdueReason.APPROVAL if is_approval else OverdueReason.STEP,
        overdue.typical_step_duration(step, timing) if step.started_at else None,
        "parallel_steps",
        _count_parallel_steps(root, step),
        "" if is_approval else _attempt_text(step),
    )


def _activity_at_unknown_step(run: Run, timing: StageTiming | None) -> _Activity:
    state = _with_elapsed(_text(run.status), _status_started_at(run))
    if run.status != "approval_wait":
        return _Activity(state, OverdueReason.STEP)
    typical = timing.typical_approval() if timing else None
    return _Activity(state, OverdueReason.APPROVAL, typical)


def _overdue_text(run: Run, root: Node | None, timing: StageTiming | None) -> RichText:
    """Return in which part the run is overdue, if it is."""
    timers = overdue.timers(run, root, timing)
    message = overdue_messages.describe(run.overdue_severity, run.overdue_reason, timers)
    return message.text if message else ""


def _with_elapsed(state: Message, started_at: datetime | None) -> Message:
    """Append for how long the state has lasted, if known."""
    return _text("since", state=state, since=Elapsed(started_at)) if started_at else state


def _current_step_text(step: Node) -> Message:
    """Return the step that a run is at, and for how long."""
    if steps.is_approval(step):
        key = "step_approval"
    elif step.status == "async_wait":
        key = "step_async_wait"
    else:
        key = "step" if step.started_at else "step_not_started"
    return _with_elapsed(_text(key, step=_step_name(step)), step.started_at)


def _count_parallel_steps(root: Node | None, step: Node) -> int:
    """Return how many other steps are in progress, not counting groups."""
    return sum(
        steps.is_in_progress(node) and node is not step and not node.steps
        for _depth, node in (steps.walk(root) if root is not None else ())
        if node.kind not in steps.CONTAINER_KINDS
    )


def _attempt_text(step: Node) -> RichText:
    """Return a step's attempt, the time of its next one and its last error, if there are any."""
    count, max_count = step.attempts or 0, step.max_attempts or 0
    retrying = step.status == "retrying"
    if count < 1 or (count == 1 and not retrying):
        return ""
    attempt = _text("attempt_of" if max_count >= count else "attempt", n=count, most=max_count)
    if count >= max_count > 1:
        text = _text("last_attempt", attempt=attempt)
    elif retrying and step.next_attempt_at is not None:
        text = _text("next_attempt", attempt=attempt, until=Countdown(step.next_attempt_at))
    else:
        text = _text("attempt_sentence", attempt=attempt)
    error = _error_text(step)
    return join_texts(text, _text("last_error", error=error) if error else "")


def _with_typical(state: Message, typical: TypicalDuration | None) -> Message:
    """Append the typical duration, if known."""
    return _text("typical", state=state, typical=typical) if typical else state


def _with_status(run: Run, state: Message) -> Message:
    """Prepend Northflank's status of a run in flight, unless the state makes it redundant."""
    if run.status in ACTIVE_STATUSES:
        return state
    return _text("with_status", status=_status_text(run), state=state)


def _status_text(run: Run) -> Message:
    if run.status == "unknown":
        return _text("status_unknown")
    if run.status in statuses.RUN_STATUSES:
        return _text("status_not_concluded", status=statuses.inline_label(run.status))
    return _raw_status_text(run)


def _raw_status_text(run: Run) -> Message:
    if not run.status.strip():
        return _text("no_status")
    return _text("status", status=ExternalText(statuses.inline_label(run.status)))


def _status_started_at(run: Run) -> datetime | None:
    # A run first read with this status may have had it for longer.
    return run.status_since if run.status_since > run.first_synced_at else None


# --- Aborting, removed, concluded ---------------------------------------------------------------


def _aborting_state(run: Run, root: Node | None) -> Message:
    start = abort_clock.northflank_start(run)
    key = "aborting_at_least" if start.is_approximate else "aborting"
    state = _with_elapsed(_text(key), start.at)
    return _text("sentence", state=_with_step(state, _current_step(run, root)))


def _removed_state(run: Run, root: Node | None) -> Message:
    if not run.status.strip():
        return _text("removed")
    state = _text("removed_status", status=ExternalText(statuses.inline_label(run.status)))
    return _text("sentence", state=_with_step(state, _current_step(run, root)))


def _current_step(run: Run, root: Node | None) -> Node | None:
    return steps.current(root, run.status) if root is not None else None


def _concluded_state(run: Run, root: Node | None, timing: StageTiming | None) -> RichText:
    removed_text = _text("removed_after_end") if run.removed_at is not None else ""
    duration = _duration(run)
    match run.status:
        case "success":
            state = _success_state(duration, root, timing)
        case "failure":
            state = _with_failed_step(_after("failure", duration), root)
        case "aborted":
            state = _with_step(_after("aborted", duration), aborted_step(root))
        case "skipped":
            state = _text("skipped")
        case "unknown":
            state = _after("ended_unknown", duration)
        case _:
            ended = _after("ended", duration)
            state = _text("ended_with_status", state=ended, status=_raw_status_text(run))
    return join_texts(_text("sentence", state=state), removed_text)


def _after(key: str, duration: timedelta | None) -> Message:
    """Return how a run has ended, with its duration if known."""
    if duration is None:
        return _text(key)
    return _text(f"{key}_after", time=durations.format_duration(duration))


def _success_state(
    duration: timedelta | None, root: Node | None, timing: StageTiming | None
) -> Message:
    if duration is None:
        return _text("success")
    approval_time = steps.approval_time(root) if root is not None else timedelta()
    if not timedelta() < approval_time <= duration:
        approval_time = timedelta()  # the clocks disagree
    state = _text("success_in", time=durations.format_duration(duration - approval_time))
    state = _with_typical(state, timing.typical_run if timing else None)
    if not approval_time:
        return state
    time = durations.format_rounded(approval_time)
    return _text("with_approvals", state=state, time=time)


def failed_step(root: Node | None) -> Node | None:
    """Return the step that a run failed at: the first failed one without a failed step inside."""
    return _innermost(root, {"failure", "invalid"})


def aborted_step(root: Node | None) -> Node | None:
    """Return the step at which a run was aborted: the first without another inside."""
    return _innermost(root, {"aborted", "aborting"})


def _innermost(root: Node | None, matching_statuses: set[str]) -> Node | None:
    """Return the first step with one of these statuses and no such step inside it, or None."""
    for _depth, node in steps.walk(root) if root is not None else ():
        if node.status not in matching_statuses:
            continue
        descendants = (inner for _depth, inner in steps.walk(node) if inner is not node)
        if not any(inner.status in matching_statuses for inner in descendants):
            return node
    return None


def _with_failed_step(state: Message, root: Node | None) -> Message:
    """Append the step at which a run failed, its attempt and its error."""
    node = failed_step(root)
    if node is None:
        return state
    count, max_count = node.attempts or 0, node.max_attempts or 0
    if count > 1:
        key = "at_attempt_of" if max_count >= count else "at_attempt"
        state = _text(key, state=state, step=_step_name(node), n=count, most=max_count)
    else:
        state = _with_step(state, node)
    error = _error_text(node)
    return _text("with_error", state=state, error=error) if error else state


def _with_step(state: Message, node: Node | None) -> Message:
    return _text("at_step", state=state, step=_step_name(node)) if node is not None else state


def _duration(run: Run) -> timedelta | None:
    started_at = run.started_at or run.created_at
    return max(run.concluded_at - started_at, timedelta()) if run.concluded_at else None


def _error_text(node: Node) -> RichText:
    if node.error_message and node.error_message.strip():
        return _text("error_message", error=ExternalText(node.error_message, MAX_ERROR_LENGTH))
    return _text("error_code", code=node.error_code) if node.error_code is not None else ""


def _step_name(node: Node) -> ExternalText:
    return ExternalText(node.label if node.label.strip() else node.kind)
