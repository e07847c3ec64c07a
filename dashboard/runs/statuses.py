"""Labels, descriptions, tones and glyphs of Northflank's run and step statuses.

An unknown status is shown as sent: Northflank has added statuses before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.utils.translation import gettext as _

# Tones and glyphs are names, defined in dashboard.css and components/icons.html.


@dataclass(frozen=True, slots=True)
class StatusDisplay:
    """How a status is shown: label, description of one sentence, tone and glyph."""

    label: str
    description: str
    tone: str
    glyph: str


# https://northflank.com/docs/v1/api/project/pipelines/list-release-flow-runs
RUN_STATUSES: dict[str, StatusDisplay] = {
    "pending": StatusDisplay(
        _("Pending"),
        _("Scheduled, not started yet."),
        "waiting",
        "clock",
    ),
    "queued": StatusDisplay(
        _("Queued"),
        _("Waiting for an earlier run of this stage to end."),
        "waiting",
        "queue",
    ),
    "running": StatusDisplay(_("Running"), _("Started, not ended yet."), "running", "play"),
    "waiting": StatusDisplay(
        _("Waiting"),
        _("Waiting for a job, build or deployment."),
        "running",
        "hourglass",
    ),
    "retrying": StatusDisplay(
        _("Retrying"),
        _("Failed and is being retried."),
        "warning",
        "retry",
    ),
    "async_wait": StatusDisplay(
        _("Waiting (external)"),
        _("Waiting for a response from outside Northflank."),
        "waiting",
        "link",
    ),
    "approval_wait": StatusDisplay(
        _("Needs approval"),
        _("Waiting for approval."),
        "people",
        "person",
    ),
    "aborting": StatusDisplay(
        _("Aborting"),
        _("The abort is accepted, but it has not ended yet."),
        "warning",
        "stop",
    ),
    "aborted": StatusDisplay(_("Aborted"), _("It was aborted."), "neutral", "stop"),
    "success": StatusDisplay(_("Succeeded"), _("It succeeded."), "good", "check"),
    "failure": StatusDisplay(_("Failed"), _("It failed."), "bad", "cross"),
    "skipped": StatusDisplay(_("Skipped"), _("Northflank did not run it."), "neutral", "skip"),
    "unknown": StatusDisplay(
        _("Unknown"),
        _("Northflank reports the status as unknown."),
        "neutral",
        "question",
    ),
}

# https://northflank.com/docs/v1/api/project/pipelines/get-release-flow-run-details
# A step has no status before it starts, and none for "running": see `for_step`.
STEP_STATUSES = RUN_STATUSES | {
    "pending": StatusDisplay(_("Not started"), _("Earlier steps run first."), "neutral", "clock"),
    "invalid": StatusDisplay(
        _("Invalid"), _("Northflank could not run it as defined."), "bad", "cross"
    ),
}


REMOVED = StatusDisplay(
    _("Removed"),
    _("Removed from Northflank; its outcome is unknown."),
    "warning",
    "question",
)


def for_run(status: str, *, removed: bool = False) -> StatusDisplay:
    """Return how a run's status is shown; an unknown status is shown as sent.

    `removed`: Northflank removed the run before it concluded.
    """
    if removed:
        return REMOVED
    return RUN_STATUSES.get(status) or _unrecognized(status)


def inline_label(status: str) -> str:
    """Return the label of a run's status within a sentence; an unknown status as sent."""
    return RUN_STATUSES[status].label.lower() if status in RUN_STATUSES else status


def for_step(
    status: str | None, *, started: bool, ended: bool, run_in_flight: bool
) -> StatusDisplay:
    """Return how a step's status is shown, inferred from the other arguments if it has none.

    A step without a status may have started or not; once the run has ended it never will.
    """
    if status:
        return STEP_STATUSES.get(status) or _unrecognized(status)
    if started and not ended and run_in_flight:
        return STEP_STATUSES["running"]
    if started or ended:
        return replace(STEP_STATUSES["unknown"], description=_("Northflank reports no outcome."))
    if not run_in_flight:
        return StatusDisplay(_("Not run"), _("The run ended before this step."), "neutral", "skip")
    return STEP_STATUSES["pending"]


def most_urgent(run_statuses: Iterable[str]) -> StatusDisplay | None:
    """Return the display of the most urgent run status, or None if none needs a person."""
    displays = [display for display in map(for_run, run_statuses) if display.tone in _URGENT_TONES]
    return min(displays, key=lambda look: _URGENT_TONES.index(look.tone), default=None)


_URGENT_TONES = ("bad", "warning", "people")  # the most urgent first


def _unrecognized(status: str) -> StatusDisplay:
    return StatusDisplay(
        status, _("This dashboard does not recognize this status."), "neutral", "question"
    )
