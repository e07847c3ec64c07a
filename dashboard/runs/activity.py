"""What a run in flight is doing, in a sentence or two of its summary, and its row. Pure.

What is not known is left out. Each remark is a message around the one so far (`state`), so that a
translation can place it freely.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import overdue, overdue_messages, statuses, steps
from dashboard.runs.overdue import NOT_STARTED_STATUSES, OverdueReason, Timer
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
        "sentence": gettext_lazy("%(state)s."),
        # Remarks around a state.
        # Translators: “queued” and “for 18 min”.
        "since": gettext_lazy("%(state)s %(since)s"),
        "typical": gettext_lazy("%(state)s (%(typical)s)"),
        "blocked_by": lambda n: ngettext(
            "%(state)s, blocked by %(n)d run", "%(state)s, blocked by %(n)d runs", n
        ),
        "attempt_sentence": gettext_lazy("%(attempt)s."),
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
        # The line of a row.
        "row_step": gettext_lazy("%(step)s, %(since)s"),
        "place": gettext_lazy("%(step)s (%(number)d of %(count)d)"),
        "row_approval": gettext_lazy(
            "Waiting for approval: “%(step)s”, %(since)s. Approve it on Northflank."
        ),
        "blocked": gettext_lazy("Blocked by a run that needs attention."),
        "row_approval_unknown_step": gettext_lazy("Approve it on Northflank."),
    }
)


@dataclass(frozen=True, slots=True)
class _Activity:
    """What a run in flight is doing."""

    state: Message
    reason: OverdueReason | None  # that `typical` belongs to; None: none
    typical: TypicalDuration | None = None
    attempt_text: RichText = ""


def describe(run: Run, root: Node | None, timing: StageTiming | None, blocked_by: int) -> RichText:
    """Return what a run in flight is doing; `blocked_by` counts the runs it waits for."""
    activity = _activity(run, root, timing)
    state = with_typical(activity.state, activity.typical)
    if blocked_by and run.status in NOT_STARTED_STATUSES:
        state = _text("blocked_by", state=state, n=blocked_by)
    return join_texts(
        _text("sentence", state=state),
        activity.attempt_text,
        _overdue_text(run, overdue.timers(run, root, timing), activity),
    )


def _activity(run: Run, root: Node | None, timing: StageTiming | None) -> _Activity:
    if run.status in NOT_STARTED_STATUSES:
        state = with_elapsed(_text(run.status), run.created_at)
        typical = timing.typical_queue if timing else None
        return _Activity(state, OverdueReason.QUEUE, typical)
    step = current_step(run, root)
    if step is not None:
        return _activity_at_step(step, timing)
    if run.status in {"retrying", "async_wait", "approval_wait"}:  # at a step that is unknown
        state = with_elapsed(_text(run.status), _status_started_at(run))
        if run.status != "approval_wait":
            return _Activity(state, OverdueReason.STEP)
        typical = timing.typical_approval() if timing else None
        return _Activity(state, OverdueReason.APPROVAL, typical)
    if run.status in ACTIVE_STATUSES:
        state = with_elapsed(_text("running"), run.started_at)
        return _Activity(state, OverdueReason.RUN, timing.typical_run if timing else None)
    # A final status (“success”) of a run in flight gets no elapsed time: it is no activity.
    is_lasting = run.status not in statuses.RUN_STATUSES or run.status == "unknown"
    since = _status_started_at(run) if is_lasting else None
    return _Activity(with_elapsed(_status_text(run), since), None)


def _activity_at_step(step: Node, timing: StageTiming | None) -> _Activity:
    is_approval = steps.is_approval(step)
    return _Activity(
        _current_step_text(step),
        OverdueReason.APPROVAL if is_approval else OverdueReason.STEP,
        overdue.typical_step_duration(step, timing) if step.started_at else None,
        "" if is_approval else _attempt_text(step),
    )


def _overdue_text(run: Run, timers: Iterable[Timer], activity: _Activity) -> RichText:
    """Return in which part the run is overdue, if it is."""
    message = overdue_messages.describe(run.overdue_severity, run.overdue_reason, timers)
    if message is None:
        return ""
    is_typical_shown = activity.typical and run.overdue_reason == activity.reason
    return message.short_text if is_typical_shown else message.text


def with_elapsed(state: Message, started_at: datetime | None) -> Message:
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
    return with_elapsed(_text(key, step=step_name(step)), step.started_at)


def _attempt_text(step: Node) -> RichText:
    """Return a step's attempt, the time of its next one and its last error, if there are any."""
    attempt = steps.attempt_text(step).capitalize()
    if not attempt:
        return ""
    is_last = overdue.is_last_attempt(step)
    if step.status == "retrying" and step.next_attempt_at is not None and not is_last:
        text = _text("next_attempt", attempt=attempt, until=Countdown(step.next_attempt_at))
    else:
        text = _text("attempt_sentence", attempt=attempt)
    error = error_text(step)
    return join_texts(text, _text("last_error", error=error) if error else "")


def with_typical(state: Message, typical: TypicalDuration | None) -> Message:
    """Append the typical duration, if known."""
    return _text("typical", state=state, typical=typical) if typical else state


def _status_text(run: Run) -> Message:
    if run.status == "unknown":
        return _text("status_unknown")
    if run.status in statuses.RUN_STATUSES:
        return _text("status_not_concluded", status=statuses.inline_label(run.status))
    return raw_status_text(run)


def raw_status_text(run: Run) -> Message:
    """Return Northflank's status of a run as sent."""
    if not run.status.strip():
        return _text("no_status")
    return _text("status", status=ExternalText(statuses.inline_label(run.status)))


def _status_started_at(run: Run) -> datetime | None:
    # A run first read with this status may have had it for longer.
    return run.status_since if run.status_since > run.first_synced_at else None


def current_step(run: Run, root: Node | None) -> Node | None:
    """Return the step that a run is at, or None if none is known."""
    return steps.current(root, run.status) if root is not None else None


def error_text(node: Node) -> RichText:
    """Return a step's error or its code; empty: none."""
    if node.error_message and node.error_message.strip():
        return _text("error_message", error=ExternalText(node.error_message, MAX_ERROR_LENGTH))
    return _text("error_code", code=node.error_code) if node.error_code is not None else ""


def step_name(node: Node) -> ExternalText:
    """Return a step's name, or its kind if it has none."""
    return ExternalText(node.label if node.label.strip() else node.kind)


# --- The step of a row ---------------------------------------------------------------------------


def row_text(run: Run, timers: Iterable[Timer]) -> RichText:
    """Return the current step of a run, for its row; empty if none is known.

    The row shows separately how long the run has taken or been queued. `timers` are the run's
    timers, which supply the typical durations.
    """
    if not run.in_flight:
        return ""
    if run.overdue_reason == OverdueReason.BLOCKED:
        return _text("blocked")
    timers = list(timers)
    is_approval = run.status == "approval_wait" or any(
        timer.reason is OverdueReason.APPROVAL for timer in timers
    )
    if not run.step or (run.status == "approval_wait" and _is_step_older_than_status(run)):
        return _text("row_approval_unknown_step") if is_approval else ""
    step = step_with_place(run)
    if run.step_started_at is None or run.status == "aborting":
        return step
    since = Elapsed(run.step_started_at)
    text = (
        _text("row_approval", step=ExternalText(run.step), since=since)
        if is_approval
        else _text("row_step", step=step, since=since)
    )
    typical = next((t.typical for t in timers if t.reason is OverdueReason.STEP), None)
    return with_typical(text, typical)


def step_with_place(run: Run) -> RichText:
    """Return a run's current step with its place, such as “Deploy (3 of 7)”; empty if unknown."""
    if not run.step:
        return ""
    step = ExternalText(run.step)
    if run.step_number is None or run.step_count is None or run.step_count < 2:
        return step
    return _text("place", step=step, number=run.step_number, count=run.step_count)


def _is_step_older_than_status(run: Run) -> bool:
    """Return whether the steps were last read before the run's status changed."""
    return run.detail_synced_at is not None and run.detail_synced_at < run.status_since
