"""The current step of a run, for its row. Pure."""

from collections.abc import Iterable

from django.utils.translation import gettext_lazy

from dashboard.models import Run
from dashboard.runs import activity
from dashboard.runs.overdue import OverdueReason, Timer
from dashboard.texts.rich_text import Elapsed, ExternalText, MessageTable, RichText

_text = MessageTable(
    {
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


def build(run: Run, timers: Iterable[Timer]) -> RichText:
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
    step = with_place(run)
    if run.step_started_at is None or run.status == "aborting":
        return step
    since = Elapsed(run.step_started_at)
    text = (
        _text("row_approval", step=ExternalText(run.step), since=since)
        if is_approval
        else _text("row_step", step=step, since=since)
    )
    typical = next((t.typical for t in timers if t.reason is OverdueReason.STEP), None)
    return activity.with_typical(text, typical)


def with_place(run: Run) -> RichText:
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
