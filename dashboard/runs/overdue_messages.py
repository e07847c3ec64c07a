"""Messages for overdue runs: label, sentence, tone and glyph. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models.severity import Severity
from dashboard.runs import durations
from dashboard.runs.overdue import OverdueReason, Timer


@dataclass(frozen=True, slots=True)
class OverdueMessage:
    """How overdue something is, as a label and a sentence."""

    severity: int  # a models.severity.Severity
    label: str
    text: str
    short_text: str  # without the typical duration, for places that show it already
    tone: str
    glyph: str


_DISPLAYS = {
    Severity.WARNING: (gettext_lazy("Overdue"), "warning", "overdue"),
    Severity.CRITICAL: (gettext_lazy("Far overdue"), "bad", "critical-overdue"),
}
# If the typical duration is known: the texts for WARNING and CRITICAL.
_ABOVE_TYPICAL: dict[OverdueReason, tuple[Promise, Promise]] = {
    OverdueReason.QUEUE: (
        gettext_lazy("Queued longer than usual"),
        gettext_lazy("Queued far longer than usual"),
    ),
    OverdueReason.APPROVAL: (
        gettext_lazy("Waiting for approval longer than usual"),
        gettext_lazy("Waiting for approval far longer than usual"),
    ),
    OverdueReason.STEP: (
        gettext_lazy("The current step takes longer than usual"),
        gettext_lazy("The current step takes far longer than usual"),
    ),
    OverdueReason.NO_PROGRESS: (
        gettext_lazy("No step progress for longer than a whole run usually takes"),
        gettext_lazy("No step progress for far longer than a whole run usually takes"),
    ),
    OverdueReason.RUN: (
        gettext_lazy("The run takes longer than usual"),
        gettext_lazy("The run takes far longer than usual"),
    ),
}
# If only a limit of the settings applies.
_ABOVE_LIMIT: dict[OverdueReason, Promise] = {
    OverdueReason.QUEUE: gettext_lazy("Queued for more than %(limit)s"),
    OverdueReason.APPROVAL: gettext_lazy("Waiting for approval for more than %(limit)s"),
    OverdueReason.RUN: gettext_lazy("Running for more than %(limit)s"),
}


def severity_label(severity: int) -> str:
    """Return the label of a severity; empty if nothing is overdue."""
    return str(_DISPLAYS[Severity(severity)][0]) if severity else ""


def describe(
    severity: int, reason: str = "", timers: Iterable[Timer] = ()
) -> OverdueMessage | None:
    """Return the message for an overdue run, or None if nothing is overdue.

    `timers` are the run's timers, which supply the typical duration. Without them the message is
    only that the run takes too long.
    """
    if not severity:
        return None
    label, tone, glyph = _DISPLAYS[Severity(severity)]
    is_critical = severity >= Severity.CRITICAL
    timer = next((clock for clock in timers if clock.reason == reason), None)
    statement = _statement(reason, timer, is_critical)
    typical = timer.typical if timer else None
    short_text = text = _("%(statement)s.") % {"statement": statement}
    if typical:
        text = _("%(statement)s (%(typical)s).") % {
            "statement": statement,
            "typical": durations.format_typical(typical),
        }
    return OverdueMessage(int(severity), str(label), text, short_text, tone, glyph)


def worst(run_severity: int, abort_severity: int) -> OverdueMessage | None:
    """Return the message for the most overdue of several runs and of their aborts."""
    if not abort_severity or abort_severity < run_severity:
        return describe(run_severity)
    _label, tone, glyph = _DISPLAYS[Severity(abort_severity)]
    text = _("An abort is overdue.")
    return OverdueMessage(abort_severity, _("Abort overdue"), text, text, tone, glyph)


def _statement(reason: str, timer: Timer | None, is_critical: bool) -> str:
    if reason == OverdueReason.LAST_ATTEMPT:
        return _("The current step is on its last attempt")
    if timer is None:
        return _("The run is far overdue") if is_critical else _("The run is overdue")
    if timer.typical is None:
        limit_at = timer.critical_at if is_critical else timer.warning_at
        return str(_ABOVE_LIMIT[timer.reason]) % {
            "limit": _format_limit(limit_at - timer.started_at)
        }
    return str(_ABOVE_TYPICAL[timer.reason][is_critical])


def _format_limit(span: timedelta) -> str:
    # Limits of the settings are mostly whole hours: "1 h", not "60 min" or "1 h 0 min".
    hours, rest = divmod(round(span.total_seconds()), 3600)
    return durations.format_rounded(span) if rest or not hours else durations.format_hours(hours)
