"""Abort messages: text and tone for each state of an abort. Pure.

A message claims no more than Northflank has reported, and the run's latest status takes precedence
over what was recorded with the abort.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.dates import MONTHS_3
from django.utils.translation import gettext as _

from dashboard.aborts import resend_policy, severity
from dashboard.models import Abort, Run
from dashboard.models.aborts import AbortState
from dashboard.models.severity import Severity
from dashboard.runs import abort_clock, durations, local_time, statuses
from dashboard.runs.rich_text import format_parts, join_sentences

# From WARNING on the text also states the delay: see `_overdue_text`.
_TONES = {Severity.OK: "warning", Severity.WARNING: "warning", Severity.CRITICAL: "bad"}


@dataclass(frozen=True, slots=True)
class ClockTime:
    """A time within a message; as text, the local time of day.

    A message may be kept for days, so its text does not depend on today: the date is included if it
    differs from that of `reference`.
    """

    at: datetime
    reference: datetime | None

    @property
    def needs_day(self) -> bool:
        """Whether the date must be included, judged in the current time zone."""
        reference = self.reference
        return reference is not None and timezone.localdate(reference) != timezone.localdate(
            self.at
        )

    def __str__(self) -> str:
        local = timezone.localtime(self.at)
        return (
            format_with_day(local, self.reference)
            if self.needs_day
            else local_time.format_time(local)
        )


type MessageText = str | tuple[str | ClockTime, ...]  # a tuple of parts if it contains times


@dataclass(frozen=True, slots=True)
class AbortMessage:
    """How an abort stands, as a text and a tone."""

    text: MessageText
    tone: str
    is_unexpected: bool = False  # not the outcome that the requester expects

    @property
    def glyph(self) -> str:
        """The name of the message's icon."""
        return "warning" if self.is_unexpected else "stop"

    @property
    def plain_text(self) -> str:
        """The message as plain text."""
        return self._to_text(str)

    @property
    def dated_text(self) -> str:
        """The message as plain text in which each time has its date and time zone."""
        return self._to_text(lambda time: local_time.format_full(time.at))

    def _to_text(self, format_time: Callable[[ClockTime], str]) -> str:
        parts = (self.text,) if isinstance(self.text, str) else self.text
        return "".join(format_time(part) if isinstance(part, ClockTime) else part for part in parts)


def describe(abort: Abort, run: Run) -> AbortMessage:
    """Return the message of an abort of `run`."""
    match AbortState(abort.state):
        case AbortState.REQUESTED:
            return AbortMessage(_requested_text(abort), "info")
        case AbortState.ACCEPTED:
            return _accepted_message(abort, run)
        case AbortState.CONCLUDED:
            return _concluded_message(abort, run)
        case AbortState.NOT_SENT:
            if abort.retry_at is not None:
                # Worded to be correct before and after that time.
                template = _("Not sent: rate limited by Northflank until %(time)s.")
                return AbortMessage(
                    format_parts(template, time=ClockTime(abort.retry_at, abort.requested_at)),
                    "bad",
                )
            return AbortMessage(
                _("Not sent: %(why)s") % {"why": end_with_period(abort.answer)}, "bad"
            )
        case AbortState.REFUSED:
            answer = end_with_period(abort.answer)
            has_prefix = answer.startswith("Northflank refused")
            text = (
                answer if has_prefix else _("Northflank refused: %(answer)s") % {"answer": answer}
            )
            return AbortMessage(text, "bad")
        case AbortState.TOO_LATE:
            return _too_late_message(abort, run)
        case AbortState.UNKNOWN:
            return _unknown_message(abort, run)
        case AbortState.RETRIED:
            text = _("No effect after %(time)s; the abort was resent.")
            return AbortMessage(
                text % {"time": durations.format_duration(_duration(abort))}, "neutral"
            )


def is_external(abort: Abort | None, run: Run) -> bool:
    """Return whether `run` is being aborted from outside; `abort` is the latest one made here."""
    if not run.in_flight or run.removed_at is not None or run.status != "aborting":
        return False
    if abort is None:
        return True
    # Messages of these states cover the status “aborting”, or this abort may have caused it.
    final_states = {AbortState.CONCLUDED, AbortState.TOO_LATE, AbortState.UNKNOWN}
    return abort.settled_at is not None and abort.state not in final_states


def describe_external(run: Run) -> AbortMessage:
    """Return the message for a run that is being aborted without an abort made here."""
    start = abort_clock.northflank_start(run)
    template = _("Aborting since %(time)s; requested outside this dashboard.")
    if start.is_approximate:
        template = _("Aborting since %(time)s or earlier; requested outside this dashboard.")
    text: MessageText = format_parts(template, time=ClockTime(start.at, run.created_at))
    return AbortMessage(join_sentences(text, _overdue_text(run)), _tone(run))


def _requested_text(abort: Abort) -> MessageText:
    if abort.sent_at is None:
        template = _("Abort requested at %(time)s; not sent yet.")
        return format_parts(template, time=ClockTime(abort.requested_at, abort.requested_at))
    sent_at = ClockTime(abort.sent_at, abort.requested_at)
    if abort.send_count > 1:
        template = _(
            "Abort resent at %(time)s (attempt %(n)s of %(most)s); waiting for Northflank’s "
            "response."
        )
        return format_parts(
            template, time=sent_at, n=str(abort.send_count), most=str(resend_policy.MAX_SENDS)
        )
    template = _("Abort sent at %(time)s; waiting for Northflank’s response.")
    return format_parts(template, time=sent_at)


def _accepted_message(abort: Abort, run: Run) -> AbortMessage:
    text: MessageText
    if run.status == "aborting":
        start = abort_clock.northflank_start(run)
        started_earlier = start.at < abort.requested_at  # somebody else aborted it first
        start_time = ClockTime(
            start.at if started_earlier else run.status_since, abort.requested_at
        )
        template = _("Abort accepted; aborting since %(time)s.")
        if started_earlier and start.is_approximate:
            template = _("Abort accepted; aborting since %(time)s or earlier.")
        if abort.answer_status not in {200, None}:
            template = _("The run was already aborting, since %(time)s or earlier.")
        text = format_parts(template, time=start_time)
    elif abort.answered_at is not None:
        text = format_parts(
            _("Abort accepted at %(time)s; run status is still %(status)s."),
            time=ClockTime(abort.answered_at, abort.requested_at),
            status=status_label(run.status),
        )
    else:
        text = _("Abort accepted; run status is still %(status)s.") % {
            "status": status_label(run.status)
        }
    return AbortMessage(join_sentences(text, _overdue_text(run)), _tone(run))


def _too_late_message(abort: Abort, run: Run) -> AbortMessage:
    if not abort.outcome:
        template = (
            _("The run no longer existed when the abort arrived.")
            if abort.sent_at
            else _("The run no longer existed; the abort was not sent.")
        )
        return AbortMessage(template, "info")
    if status_changed_after_end(abort, run):
        return _changed_message(abort, run)
    template = (
        _("Too late: the run had finished (%(status)s) before the abort arrived.")
        if abort.sent_at
        else _("Too late: the run had finished (%(status)s) before the abort was sent.")
    )
    return AbortMessage(template % {"status": status_label(abort.outcome)}, "info")


def _unknown_message(abort: Abort, run: Run) -> AbortMessage:
    if abort.settled_at is None:
        doubt = _("The abort may not have arrived. %(answer)s") % {
            "answer": end_with_period(abort.answer)
        }
        # A retry is critical from its start: that does not mean its own sends are exhausted.
        if run.abort_severity >= Severity.CRITICAL and abort.already_aborting_since is None:
            next_step = _("It is not resent automatically. You can resend it.")
        elif abort.send_count < resend_policy.MAX_SENDS:
            next_step = _(
                "It is resent if the run continues (sent %(n)d of at most %(most)d times)."
            )
        else:
            next_step = _("Sent %(n)d times; checking the run’s status.")
        counts = {"n": abort.send_count, "most": resend_policy.MAX_SENDS}
        return AbortMessage(join_sentences(doubt, next_step % counts), _tone(run))
    if run.status in {"aborting", "aborted"}:
        template = _(
            "The abort was unconfirmed and considered lost, but the run is now %(status)s."
        )
        return AbortMessage(template % {"status": status_label(run.status)}, _tone(run))
    if abort.send_count > 1:
        template = _("Abort probably lost: it was sent %(n)d times, but the run continued.")
    else:
        template = _("Abort probably lost: it was sent, but the run continued.")
    retry_hint = _("You can resend it.") if run.in_flight else ""
    return AbortMessage(join_sentences(template % {"n": abort.send_count}, retry_hint), "bad")


def _concluded_message(abort: Abort, run: Run) -> AbortMessage:
    duration = durations.format_duration(_duration(abort))
    if status_changed_after_end(abort, run):
        return _changed_message(abort, run)
    if abort.outcome == "aborted":
        return AbortMessage(_("Aborted after %(time)s.") % {"time": duration}, "neutral")
    no_answer = "" if abort.answered_at else _("Northflank never responded to the abort.")
    if not abort.outcome:
        template = _("Outcome unknown: Northflank removed the run %(time)s after the request.")
        return AbortMessage(join_sentences(template % {"time": duration}, no_answer), "warning")
    template = _("Abort failed: the run finished (%(status)s) %(time)s after the request.")
    template %= {"status": status_label(abort.outcome), "time": duration}
    return AbortMessage(join_sentences(template, no_answer), "bad", is_unexpected=True)


def status_changed_after_end(abort: Abort, run: Run) -> bool:
    """Return whether the run's status differs from the one that its abort was settled with."""
    if abort.state == AbortState.TOO_LATE and not abort.outcome:
        return False  # the run's status was unknown
    is_final = abort.state in {AbortState.CONCLUDED, AbortState.TOO_LATE}
    has_changed = run.status != abort.outcome or not run.concluded
    return is_final and run.removed_at is None and has_changed


def _changed_message(abort: Abort, run: Run) -> AbortMessage:
    """Return the message for a run with a new status after it had ended or been removed."""
    template = (
        _("Status changed from %(before)s to %(now)s after the abort. Check the run.")
        if abort.outcome
        else _("Northflank had removed the run, but now reports %(now)s. Check the run.")
    )
    text = template % {"before": status_label(abort.outcome), "now": status_label(run.status)}
    return AbortMessage(text, "bad", is_unexpected=True)


def _overdue_text(run: Run) -> str:
    abort_severity = Severity(run.abort_severity)
    template = {
        Severity.OK: "",
        Severity.WARNING: _("Taking longer than %(time)s."),
        Severity.CRITICAL: _("Not ended after %(time)s."),
    }[abort_severity]
    return template and template % {
        "time": durations.format_compact(severity.threshold(abort_severity))
    }


def _tone(run: Run) -> str:
    return _TONES[Severity(run.abort_severity)]


def _duration(abort: Abort) -> timedelta:
    return (abort.settled_at or abort.requested_at) - abort.requested_at


def end_with_period(text: str) -> str:
    """Return the text with a period, unless it already ends like a sentence."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def status_label(status: str) -> str:
    """Return the label of a run's status for use within a sentence."""
    return statuses.inline_label(status)


def format_with_day(local: datetime, reference: datetime | None = None) -> str:
    """Return a local time with its date: "3 Jan 04:05:06".

    The year is included ("3 Jan 2025 04:05:06") if it differs from that of `reference`, which
    defaults to now.
    """
    same_year = local.year == (reference or timezone.now()).astimezone(local.tzinfo).year
    # As Django's format "j M Y H:i:s", which takes ten times as long.
    month = str(MONTHS_3[local.month]).title()
    year = "" if same_year else f" {local.year}"
    return f"{local.day} {month}{year} {local_time.format_time(local)}"
