"""Messages for overdue runs: label, sentence, tone and glyph. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models.severity import Severity
from dashboard.runs.overdue import OverdueReason, Timer
from dashboard.texts import durations
from dashboard.texts.rich_text import Message, MessageTable

_STYLES = {  # tone and glyph
    Severity.WARNING: ("warning", "overdue"),
    Severity.CRITICAL: ("bad", "critical-overdue"),
}
_text = MessageTable(
    {
        "abort": gettext_lazy("An abort has not ended in time."),
        "run_overdue": gettext_lazy("The run is overdue"),
        "run_critical": gettext_lazy("The run is overdue %(factor)s×"),
        "last_attempt": gettext_lazy("A step is on its last attempt"),
        "longer": gettext_lazy("longer than"),
        "times_as_long": gettext_lazy("over %(factor)s× as long as"),
        # An OverdueReason, if the typical duration is known.
        # Translators: “longer than” or “over 3× as long as” stands before “usual”.
        "queue": gettext_lazy("Queued %(longer)s usual"),
        "approval": gettext_lazy("Waiting for approval %(longer)s usual"),
        "step": gettext_lazy("The current step takes %(longer)s usual"),
        "no_progress": gettext_lazy("No step progress for %(longer)s a whole run takes"),
        "run": gettext_lazy("The run takes %(longer)s usual"),
        # An OverdueReason, if only a limit of the settings applies.
        "queue_limit": gettext_lazy("Queued for more than %(limit)s"),
        "approval_limit": gettext_lazy("Waiting for approval for more than %(limit)s"),
        "run_limit": gettext_lazy("Running for more than %(limit)s"),
        "sentence": gettext_lazy("%(statement)s."),
        "sentence_typical": gettext_lazy("%(statement)s (%(typical)s)."),
    }
)


@dataclass(frozen=True, slots=True)
class OverdueMessage:
    """How overdue something is, as a label and a sentence."""

    severity: int  # a models.severity.Severity
    label: str
    text: Message
    short_text: Message  # without the typical duration, for places that show it already
    tone: str
    glyph: str


def severity_label(severity: int) -> str:
    """Return the label of a severity; empty if nothing is overdue."""
    if severity == Severity.CRITICAL:
        return _("Overdue %(factor)s×") % {"factor": critical_factor()}
    return _("Overdue") if severity else ""


def critical_factor() -> str:
    """Return what is critical takes over how many times as long as usual, or as a limit: "3"."""
    return f"{settings.OVERDUE_CRITICAL_FACTOR:g}"


def describe(
    severity: int, reason: str = "", timers: Iterable[Timer] = ()
) -> OverdueMessage | None:
    """Return the message for an overdue run, or None if nothing is overdue.

    `timers` are the run's timers, which supply the typical duration. Without them the message is
    only that the run takes too long.
    """
    if not severity:
        return None
    tone, glyph = _STYLES[Severity(severity)]
    timer = next((timer for timer in timers if timer.reason == reason), None)
    statement = _statement(reason, timer, Severity(severity))
    text = short_text = _text("sentence", statement=statement)
    if timer and timer.typical:
        text = _text("sentence_typical", statement=statement, typical=timer.typical)
    return OverdueMessage(int(severity), severity_label(severity), text, short_text, tone, glyph)


def worst(run_severity: int, abort_severity: int) -> OverdueMessage | None:
    """Return the message for the most overdue of several runs and of their aborts."""
    if not abort_severity or abort_severity < run_severity:
        return describe(run_severity)
    tone, glyph = _STYLES[Severity(abort_severity)]
    text = _text("abort")
    return OverdueMessage(abort_severity, _("Abort overdue"), text, text, tone, glyph)


def _statement(reason: str, timer: Timer | None, severity: Severity) -> Message:
    if reason == OverdueReason.LAST_ATTEMPT:
        return _text("last_attempt")
    is_critical = severity == Severity.CRITICAL
    if timer is None:
        if is_critical:
            return _text("run_critical", factor=critical_factor())
        return _text("run_overdue")
    key = timer.reason.name.lower()
    if timer.typical is None:
        limit_at = timer.critical_at if is_critical else timer.warning_at
        return _text(f"{key}_limit", limit=durations.format_rounded(limit_at - timer.started_at))
    times = _text("times_as_long", factor=critical_factor())
    return _text(key, longer=times if is_critical else _text("longer"))
