"""Run summary: how a run stands, in a sentence or two, and a shorter text for its row. Pure.

A summary is rich text, so that pages keep its times running. What is not known is left out. Each
remark is a template around the text so far (`state`), so that a translation can place it freely.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import abort_clock, durations, overdue, overdue_messages, statuses, steps
from dashboard.runs.overdue import NOT_STARTED_STATUSES, OverdueReason, Timer
from dashboard.runs.rich_text import format_parts, join_sentences


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The time since `at`: "for 18 min"."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Countdown:
    """The time until `at`: "in 40 s", and then "due now"."""

    at: datetime


class ExternalText(str):
    """Text not written by us, on one line and cut to a length; pages isolate it in `<bdi>`."""

    __slots__ = ()

    def __new__(cls, text: str, max_length: int = 80) -> "ExternalText":
        """Fold whitespace and cut the text to `max_length` characters."""
        folded = " ".join(text.split())
        return super().__new__(
            cls, folded if len(folded) <= max_length else f"{folded[: max_length - 1]}…"
        )


type RichText = tuple[str | Elapsed | Countdown, ...]

MAX_ERROR_LENGTH = 200  # characters; the page's steps show the whole error
_OVERDUE_TEMPLATES = {
    Severity.WARNING: gettext_lazy("%(state)s, longer than usual"),
    Severity.CRITICAL: gettext_lazy("%(state)s, far longer than usual"),
}
# For these statuses of a run in flight the current step describes it better.
ACTIVE_STATUSES = {"running", "waiting", "retrying", "async_wait", "approval_wait"}
_STATUS_TEXTS: dict[str, Promise] = {
    "retrying": gettext_lazy("a step failed and is being retried"),
    "async_wait": gettext_lazy("a step is waiting for a response from outside Northflank"),
    "approval_wait": gettext_lazy("needs approval"),
}


def build(
    run: Run,
    root: Node | None,
    timing: StageTiming | None,
    *,
    queued_ahead: int = 0,
    queued_behind: int = 0,
    skip_summary: str = "",
) -> RichText:
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
    queue_text = ""
    if queued_behind and run.in_flight:
        queue_text = ngettext(
            "%(n)d run is queued behind it.", "%(n)d runs are queued behind it.", queued_behind
        )
        queue_text %= {"n": queued_behind}
    return format_parts(
        _("%(pipeline)s / %(stage)s: %(state)s"),
        pipeline=ExternalText(str(run.stage.pipeline)),
        stage=run.stage.name,
        state=join_sentences(state, queue_text, skip_summary),
    )


def step_summary(run: Run, timers: Iterable[Timer]) -> RichText:
    """Return the current step of a run, for its row; empty if none is known.

    The row shows separately how long the run has taken or been queued. `timers` are the run's
    timers, which supply the typical durations.
    """
    if not run.in_flight:
        return ()
    timers = list(timers)
    is_approval = run.status == "approval_wait" or any(
        timer.reason is OverdueReason.APPROVAL for timer in timers
    )
    if not run.step:
        return (_("Approve it on Northflank."),) if is_approval else ()
    step = ExternalText(run.step)
    if run.step_started_at is None or run.status == "aborting":
        return (step,)
    template = (
        _("Waiting for approval: “%(step)s”, %(since)s. Approve it on Northflank.")
        if is_approval
        else _("%(step)s, %(since)s")
    )
    text: RichText = format_parts(template, step=step, since=Elapsed(run.step_started_at))
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


def render_text(parts: RichText, now: datetime) -> str:
    """Return rich text as plain text, with its times as of `now`."""
    return "".join(part if isinstance(part, str) else format_time_part(part, now) for part in parts)


def format_time_part(part: Elapsed | Countdown, now: datetime) -> str:
    """Return the text of a time part as of `now`."""
    if isinstance(part, Elapsed):
        return _("for %(time)s") % {"time": durations.format_elapsed(now - part.at)}
    if part.at <= now:
        return _("due now")
    return _("in %(time)s") % {"time": durations.format_elapsed(part.at - now)}


# --- In flight ----------------------------------------------------------------------------------


def _in_flight_state(
    run: Run, root: Node | None, timing: StageTiming | None, queued_ahead: int
) -> RichText:
    step = steps.current(root) if root is not None else None
    reason: OverdueReason | None = OverdueReason.STEP  # what `typical` is about
    typical: TypicalDuration | None = None
    state: RichText
    count_template, count = "", 0
    if run.status in NOT_STARTED_STATUSES:
        reason, typical = OverdueReason.QUEUE, timing.typical_queue if timing else None
        state = _with_elapsed(_waiting_text(run), run.created_at)
        count = queued_ahead
        count_template = ngettext(
            "%(state)s, %(n)d run ahead", "%(state)s, %(n)d runs ahead", count
        )
    elif step is not None and (steps.is_approval(step) or run.status != "approval_wait"):
        reason = OverdueReason.APPROVAL if steps.is_approval(step) else OverdueReason.STEP
        typical = overdue.typical_step_duration(step, timing) if step.started_at else None
        state = _with_status(run, _current_step_text(step))
        count = _count_parallel_steps(root, step)
        count_template = ngettext(
            "%(state)s, and %(n)d more in parallel",
            "%(state)s, and %(n)d more in parallel",
            count,
        )
    elif run.status in _STATUS_TEXTS:
        reason = OverdueReason.APPROVAL if run.status == "approval_wait" else OverdueReason.STEP
        typical = timing.typical_approval() if timing and reason is OverdueReason.APPROVAL else None
        state = _with_elapsed(str(_STATUS_TEXTS[run.status]), _status_started_at(run))
    elif run.status in ACTIVE_STATUSES:
        reason, typical = OverdueReason.RUN, timing.typical_run if timing else None
        state = _with_elapsed(_("running"), run.started_at)
    else:
        reason = None
        # A final status (“success”) of a run in flight gets no elapsed time: it is no activity.
        is_lasting = run.status not in statuses.RUN_STATUSES or run.status == "unknown"
        state = _with_elapsed(_status_text(run), _status_started_at(run) if is_lasting else None)
    attempt_text = _attempt_text(step) if step is not None and reason is OverdueReason.STEP else ()
    overdue_template = (
        _OVERDUE_TEMPLATES.get(Severity(run.overdue_severity))
        if typical and run.overdue_reason == reason
        else None
    )
    overdue_text = ""
    if (
        run.overdue_severity
        and not overdue_template
        and not (attempt_text and run.overdue_reason == OverdueReason.LAST_ATTEMPT)
    ):
        timers = overdue.timers(run, root, timing)
        message = overdue_messages.describe(run.overdue_severity, run.overdue_reason, timers)
        overdue_text = message.text if message else ""
    state = _with_typical(state, typical)
    if overdue_template:
        state = format_parts(str(overdue_template), state=state)
    if count:
        state = format_parts(count_template, state=state, n=count)
    return join_sentences(_as_sentence(state), attempt_text, overdue_text)


def _as_sentence(state: RichText) -> RichText:
    return format_parts(_("%(state)s."), state=state)


def _waiting_text(run: Run) -> str:
    return _("queued") if run.status == "queued" else _("waiting to start")


def _with_elapsed(state: str | RichText, started_at: datetime | None) -> RichText:
    """Append for how long the state has lasted, if known."""
    if started_at is None:
        return (state,) if isinstance(state, str) else state
    # Translators: “queued” and “for 18 min”.
    return format_parts(_("%(state)s %(since)s"), state=state, since=Elapsed(started_at))


def _current_step_text(step: Node) -> RichText:
    """Return the step that a run is at, and for how long."""
    if steps.is_approval(step):
        template = _("needs approval at step “%(step)s”")
    elif step.status == "async_wait":
        template = _("step “%(step)s” is waiting for a response from outside Northflank")
    else:
        template = _("step “%(step)s”") if step.started_at else _("at step “%(step)s”")
    return _with_elapsed(format_parts(template, step=_step_name(step)), step.started_at)


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
        return ()
    attempt = _("Attempt %(n)d of %(most)d") if max_count >= count else _("Attempt %(n)d")
    attempt %= {"n": count, "most": max_count}
    text: RichText
    if count >= max_count > 1:
        text = format_parts(_("%(attempt)s (last)."), attempt=attempt)
    elif retrying and step.next_attempt_at is not None:
        # Translators: “in 40 s” or “due now” follows “next”.
        template = _("%(attempt)s, next %(until)s.")
        text = format_parts(template, attempt=attempt, until=Countdown(step.next_attempt_at))
    else:
        text = format_parts(_("%(attempt)s."), attempt=attempt)
    error = _error_text(step)
    return join_sentences(
        text, format_parts(_("Last error: %(error)s."), error=error) if error else ""
    )


def _with_typical(state: RichText, typical: TypicalDuration | None) -> RichText:
    """Append the typical duration, if known."""
    if not typical:
        return state
    return format_parts(
        _("%(state)s (%(typical)s)"), state=state, typical=durations.format_typical(typical)
    )


def _with_status(run: Run, state: RichText) -> RichText:
    """Prepend Northflank's status of a run in flight, unless the state makes it redundant."""
    if run.status in ACTIVE_STATUSES:
        return state
    return format_parts(_("%(status)s; %(state)s"), status=_status_text(run), state=state)


def _status_text(run: Run) -> RichText:
    if run.status == "unknown":
        return (_("Northflank status: unknown"),)
    if run.status in statuses.RUN_STATUSES:
        template = _("Northflank status: “%(status)s”, but not concluded")
        return (template % {"status": statuses.inline_label(run.status)},)
    return _raw_status_text(run)


def _raw_status_text(run: Run) -> RichText:
    if not run.status.strip():
        return (_("Northflank reports no status"),)
    return format_parts(
        _("Northflank status: “%(status)s”"), status=ExternalText(statuses.inline_label(run.status))
    )


def _status_started_at(run: Run) -> datetime | None:
    # A run first read with this status may have had it for longer.
    return run.status_since if run.status_since > run.first_synced_at else None


# --- Aborting, removed, concluded ---------------------------------------------------------------


def _aborting_state(run: Run, root: Node | None) -> RichText:
    start = abort_clock.northflank_start(run)
    # Translators: “aborting at least” and “for 18 min”.
    state = _with_elapsed(
        _("aborting at least") if start.is_approximate else _("aborting"), start.at
    )
    return _as_sentence(_with_step(state, steps.current(root) if root is not None else None))


def _removed_state(run: Run, root: Node | None) -> RichText:
    if not run.status.strip():
        return (_("Northflank no longer lists this run."),)
    template = _("Northflank no longer lists this run; last status “%(status)s”")
    state: RichText = format_parts(template, status=ExternalText(statuses.inline_label(run.status)))
    return _as_sentence(_with_step(state, steps.current(root) if root is not None else None))


def _concluded_state(run: Run, root: Node | None, timing: StageTiming | None) -> RichText:
    removed_text = _("Northflank no longer lists it.") if run.removed_at is not None else ""
    duration = _duration(run)
    time_params = {"time": durations.format_duration(duration)} if duration is not None else {}
    state: RichText
    match run.status:
        case "success":
            state = _success_state(duration, root, timing)
        case "failure":
            state = _with_failed_step(
                (_("failed after %(time)s") % time_params if time_params else _("failed"),), root
            )
        case "aborted":
            aborted_text = (
                _("aborted after %(time)s") % time_params if time_params else _("aborted")
            )
            state = _with_step((aborted_text,), aborted_step(root))
        case "skipped":
            state = (_("skipped: Northflank did not run it"),)
        case "unknown" if time_params:
            template = _("ended after %(time)s; Northflank reports the outcome as unknown")
            state = (template % time_params,)
        case "unknown":
            state = (_("ended; Northflank reports the outcome as unknown"),)
        case _:
            ended_text = _("ended after %(time)s") % time_params if time_params else _("ended")
            state = format_parts(
                _("%(state)s; %(status)s"), state=ended_text, status=_raw_status_text(run)
            )
    return join_sentences(_as_sentence(state), removed_text)


def _success_state(
    duration: timedelta | None, root: Node | None, timing: StageTiming | None
) -> RichText:
    if duration is None:
        return (_("succeeded"),)
    approval_time = steps.approval_time(root) if root is not None else timedelta()
    if not timedelta() < approval_time <= duration:
        approval_time = timedelta()  # the clocks disagree
    text = _("succeeded in %(time)s") % {
        "time": durations.format_duration(duration - approval_time)
    }
    state = _with_typical((text,), timing.typical_run if timing else None)
    if not approval_time:
        return state
    template = _("%(state)s, plus %(time)s waiting for approval")
    return format_parts(template, state=state, time=durations.format_rounded(approval_time))


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


def _with_failed_step(state: RichText, root: Node | None) -> RichText:
    """Append the step at which a run failed, its attempt and its error."""
    node = failed_step(root)
    if node is None:
        return state
    count, max_count = node.attempts or 0, node.max_attempts or 0
    if count > 1:
        template = (
            _("%(state)s, at step “%(step)s” on attempt %(n)d of %(most)d")
            if max_count >= count
            else _("%(state)s, at step “%(step)s” on attempt %(n)d")
        )
        state = format_parts(template, state=state, step=_step_name(node), n=count, most=max_count)
    else:
        state = _with_step(state, node)
    error = _error_text(node)
    return format_parts(_("%(state)s: %(error)s"), state=state, error=error) if error else state


def _with_step(state: RichText, node: Node | None) -> RichText:
    if node is None:
        return state
    return format_parts(_("%(state)s, at step “%(step)s”"), state=state, step=_step_name(node))


def _duration(run: Run) -> timedelta | None:
    started_at = run.started_at or run.created_at
    return max(run.concluded_at - started_at, timedelta()) if run.concluded_at else None


def _error_text(node: Node) -> RichText:
    if node.error_message and node.error_message.strip():
        return format_parts(
            _("“%(error)s”"), error=ExternalText(node.error_message, MAX_ERROR_LENGTH)
        )
    return (_("code %(code)s") % {"code": node.error_code},) if node.error_code is not None else ()


def _step_name(node: Node) -> ExternalText:
    return ExternalText(node.label if node.label.strip() else node.kind)
