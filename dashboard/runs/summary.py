"""Run summary: how a run stands, in a sentence or two. Pure; what is not known is left out."""

from datetime import timedelta

from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Run, StageTiming
from dashboard.northflank import Node
from dashboard.runs import abort_clock, activity, statuses, steps
from dashboard.runs.concurrency import NO_RELATED_RUNS, RelatedRuns
from dashboard.texts import durations
from dashboard.texts.rich_text import (
    ExternalText,
    Message,
    MessageTable,
    RichText,
    join_texts,
)

_text = MessageTable(
    {
        "summary": gettext_lazy("%(pipeline)s / %(stage)s: %(state)s"),
        "sentence": gettext_lazy("%(state)s."),
        "at_step": gettext_lazy("%(state)s, at step “%(step)s”"),
        "at_attempt": gettext_lazy("%(state)s, at step “%(step)s” on %(attempt)s"),
        "with_error": gettext_lazy("%(state)s: %(error)s"),
        "with_approvals": gettext_lazy("%(state)s, plus %(time)s waiting for approval"),
        # Sentences after the first.
        "blocks": lambda n: ngettext("Blocks %(n)d run.", "Blocks %(n)d runs.", n),
        "aborting": gettext_lazy("aborting"),
        # Translators: “for 18 min” follows.
        "aborting_at_least": gettext_lazy("aborting at least"),
        # A run that has ended or was removed.
        "removed": gettext_lazy("This run was removed from Northflank."),
        "removed_status": gettext_lazy("Removed from Northflank; last status “%(status)s”"),
        "removed_after_end": gettext_lazy("Since removed from Northflank."),
        "success": gettext_lazy("succeeded"),
        "success_in": gettext_lazy("succeeded in %(time)s"),
        "failure": gettext_lazy("failed"),
        "failure_after": gettext_lazy("failed after %(time)s"),
        "aborted": gettext_lazy("aborted"),
        "aborted_after": gettext_lazy("aborted after %(time)s"),
        "ended": gettext_lazy("ended"),
        "ended_after": gettext_lazy("ended after %(time)s"),
        "ended_with_status": gettext_lazy("%(state)s; %(status)s"),
        "skipped": gettext_lazy("skipped: Northflank did not run it"),
    }
)


def build(
    run: Run,
    root: Node | None,
    timing: StageTiming | None,
    related: RelatedRuns = NO_RELATED_RUNS,
) -> Message:
    """Return the summary: pipeline, stage, and how the run stands in a sentence or two."""
    if run.concluded:
        state = _concluded_state(run, root, timing)
    elif run.removed_at is not None:
        state = _removed_state(run, root)
    elif run.status == "aborting":
        state = _aborting_state(run, root)
    else:
        state = activity.describe(run, root, timing, len(related.blocked_by))
    is_blocking = related.blocks and run.in_flight
    queue_text = _text("blocks", n=len(related.blocks)) if is_blocking else ""
    return _text(
        "summary",
        pipeline=ExternalText(str(run.stage.pipeline)),
        stage=run.stage.name,
        state=join_texts(state, queue_text, related.skipped_text),
    )


def _aborting_state(run: Run, root: Node | None) -> Message:
    start = abort_clock.northflank_start(run)
    key = "aborting_at_least" if start.is_approximate else "aborting"
    state = activity.with_elapsed(_text(key), start.at)
    return _text("sentence", state=_with_step(state, activity.current_step(run, root)))


def _removed_state(run: Run, root: Node | None) -> Message:
    if not run.status.strip():
        return _text("removed")
    state = _text("removed_status", status=ExternalText(statuses.inline_label(run.status)))
    return _text("sentence", state=_with_step(state, activity.current_step(run, root)))


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
        case _:
            ended = _after("ended", duration)
            state = _text("ended_with_status", state=ended, status=activity.raw_status_text(run))
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
    state = activity.with_typical(state, timing.typical_run if timing else None)
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
    if attempt := steps.attempt_text(node):
        state = _text("at_attempt", state=state, step=activity.step_name(node), attempt=attempt)
    else:
        state = _with_step(state, node)
    error = activity.error_text(node)
    return _text("with_error", state=state, error=error) if error else state


def _with_step(state: Message, node: Node | None) -> Message:
    if node is None:
        return state
    return _text("at_step", state=state, step=activity.step_name(node))


def _duration(run: Run) -> timedelta | None:
    started_at = run.started_at or run.created_at
    return max(run.concluded_at - started_at, timedelta()) if run.concluded_at else None
