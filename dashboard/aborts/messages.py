"""Abort messages: text and tone for each state of an abort. Pure.

Of a job run or build that a run has left running no message says that it was aborted: it has no
status that means that.

A message claims no more than Northflank has reported, and the run's latest status takes precedence
over what was recorded with the abort.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext_lazy

from dashboard.aborts import resend_policy, severity
from dashboard.models import Abort, Run, Work
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.severity import Severity
from dashboard.runs import abort_clock, statuses
from dashboard.texts import durations
from dashboard.texts.local_time import format_full
from dashboard.texts.rich_text import (
    ClockTime,
    ExternalText,
    Message,
    MessageTable,
    RichText,
    join_texts,
    to_dated_text,
    to_text,
)

# From WARNING on the text also states the delay: see `_overdue_text`.
_TONES = {Severity.OK: "warning", Severity.WARNING: "warning", Severity.CRITICAL: "bad"}
MAX_PART_LENGTH = 300  # characters of a reason, or of how an abort stands, in a line of a text
_text = MessageTable(
    {
        # Lines of a text.
        "by": gettext_lazy("Abort requested by %(who)s, %(time)s, no reason given. %(story)s"),
        "by_reason": gettext_lazy("Abort requested by %(who)s, %(time)s: “%(reason)s” %(story)s"),
        "requested": gettext_lazy("Abort requested at %(time)s; not sent yet."),
        "sent": gettext_lazy("Abort sent at %(time)s; waiting for Northflank’s response."),
        "accepted": gettext_lazy("Abort accepted; status is still %(status)s."),
        "aborting": gettext_lazy("Abort accepted; aborting since %(time)s."),
        "or_earlier": gettext_lazy("%(time)s or earlier"),
        "already_aborting": gettext_lazy("The run was already aborting, since %(time)s."),
        "external": gettext_lazy("Aborting since %(time)s; requested outside this dashboard."),
        "external_after_failure": gettext_lazy(
            "Aborting since %(time)s; the latest abort from this dashboard was not accepted."
        ),
        "overdue": gettext_lazy("Taking longer than %(time)s."),
        "critical": gettext_lazy("Not ended %(time)s after the abort."),
        "rate_limited": gettext_lazy("Not sent: rate limited by Northflank until %(time)s."),
        "not_sent": gettext_lazy("Not sent: %(why)s"),
        "refused": gettext_lazy("Northflank refused: %(response)s"),
        # Claims nothing of its effect: it may have arrived and take effect later.
        "aborted_again": gettext_lazy("Not ended %(time)s after this abort; it was aborted again."),
        "too_late": gettext_lazy("Too late: already ended (%(status)s)."),
        "missing": gettext_lazy("Not found on Northflank (404)."),
        "doubtful": gettext_lazy("The abort is not confirmed yet. %(response)s"),
        "no_resend": gettext_lazy("It may not be resent any more. You can abort again."),
        "resend": gettext_lazy(
            "The dashboard resends it for %(time)s (%(n)d of %(most)d sent); you need not do "
            "anything."
        ),
        "resend_refused": gettext_lazy(
            "Northflank refused the resend. Checking whether an earlier one worked."
        ),
        "not_arrived_but_stopped": gettext_lazy(
            "Northflank never confirmed the abort, but the run is %(status)s."
        ),
        "not_arrived": gettext_lazy("Northflank never confirmed this abort; the run goes on."),
        "work_not_arrived": gettext_lazy(
            "Northflank never confirmed this abort; it is still running."
        ),
        "can_abort_again": gettext_lazy("You can abort again."),
        "aborted": gettext_lazy("Aborted after %(time)s."),
        "removed": gettext_lazy(
            "Outcome unknown: removed from Northflank %(time)s after the request."
        ),
        "failed": gettext_lazy(
            "Abort failed: the run ended (%(status)s) %(time)s after the request."
        ),
        "work_ended": gettext_lazy("Ended (%(status)s) %(time)s after the request."),
        "no_response": gettext_lazy("Northflank never responded to the abort."),
        "status_changed": gettext_lazy(
            "Status changed from %(before)s to %(now)s after the abort. Check the run."
        ),
        "reappeared": gettext_lazy(
            "Northflank had removed the run, but now reports %(now)s. Check the run."
        ),
    }
)


@dataclass(frozen=True, slots=True)
class AbortMessage:
    """How an abort stands, as a text and a tone."""

    text: RichText
    tone: str
    is_unexpected: bool = False  # not the outcome that the requester expects

    @property
    def glyph(self) -> str:
        """The name of the message's icon."""
        return "warning" if self.is_unexpected else "stop"

    @property
    def plain_text(self) -> str:
        """The message as plain text."""
        return to_text(self.text)

    @property
    def dated_text(self) -> str:
        """The message as plain text in which each time has its date and time zone."""
        return to_dated_text(self.text)


def describe(abort: Abort, run: Run) -> AbortMessage:
    """Return the message of an abort of `run`, or of what it has left running."""
    return _describe(abort, abort.work or run)


def _describe(abort: Abort, run: Run | Work) -> AbortMessage:
    match AbortState(abort.state):
        case AbortState.REQUESTED:
            return AbortMessage(_requested_text(abort), "info")
        case AbortState.ACCEPTED:
            return _accepted_message(abort, run)
        case AbortState.CONCLUDED:
            return _concluded_message(abort, run)
        case AbortState.NOT_SENT:
            if abort.retry_at is None:
                return AbortMessage(_text("not_sent", why=end_with_period(abort.response)), "bad")
            # Worded to be correct before and after that time.
            time = ClockTime(abort.retry_at, abort.requested_at)
            return AbortMessage(_text("rate_limited", time=time), "bad")
        case AbortState.REFUSED:
            return AbortMessage(_refusal(abort), "bad")
        case AbortState.TOO_LATE:
            return _too_late_message(abort, run)
        case AbortState.UNKNOWN:
            return _unknown_message(abort, run)
        case AbortState.ABORTED_AGAIN:
            time_text = durations.format_duration(_duration(abort, run))
            return AbortMessage(_text("aborted_again", time=time_text), "neutral")


def is_external(abort: Abort | None, run: Run) -> bool:
    """Return whether `run` is being aborted, but not by `abort`, the latest one made here."""
    if not run.in_flight or run.removed_at is not None or run.status != "aborting":
        return False
    if abort is None:
        return True
    # Messages of these states cover the status “aborting”, or this abort may have caused it.
    final_states = {AbortState.CONCLUDED, AbortState.TOO_LATE, AbortState.UNKNOWN}
    return abort.settled_at is not None and abort.state not in final_states


def describe_external(run: Run, abort: Abort | None = None) -> AbortMessage:
    """Return the message for a run that is being aborted, but not by `abort`, the latest made here.

    An abort before that one may have taken effect late.
    """
    start = abort_clock.northflank_start(run)
    key = "external" if abort is None else "external_after_failure"
    text = _text(key, time=_start_time(start.at, run.created_at, start.is_approximate))
    return AbortMessage(join_texts(text, _overdue_text(run)), _tone(run))


def dated_lines(run: Run, aborts: Sequence[Abort]) -> Iterator[str]:
    """Yield who aborted a run and why, and how that stands, for a text outside the dashboard.

    `aborts` are those made here, the latest first.
    """
    latest = aborts[0] if aborts else None
    if is_external(latest, run):
        yield describe_external(run, latest).dated_text
    for abort in aborts:
        line = _text(
            "by_reason" if abort.reason else "by",
            who=ExternalText(abort.username),
            time=format_full(abort.requested_at),
            reason=end_with_period(ExternalText(abort.reason, MAX_PART_LENGTH)),
            story=ExternalText(describe(abort, run).dated_text, MAX_PART_LENGTH),
        )
        yield str(line)


def _requested_text(abort: Abort) -> Message:
    if abort.sent_at is None:
        return _text("requested", time=ClockTime(abort.requested_at, abort.requested_at))
    return _text("sent", time=ClockTime(abort.sent_at, abort.requested_at))


def _accepted_message(abort: Abort, run: Run | Work) -> AbortMessage:
    if isinstance(run, Run) and run.status == "aborting":
        start = abort_clock.northflank_start(run)
        started_earlier = start.at < abort.requested_at  # somebody else aborted it first
        at = start.at if started_earlier else run.status_since
        is_refused = abort.response_status not in {200, None}  # as the run was aborting
        # Of a refused abort an earlier send may have aborted it.
        was_aborting = is_refused and abort.send_count <= 1
        is_approximate = was_aborting or (started_earlier and start.is_approximate)
        time = _start_time(at, abort.requested_at, is_approximate)
        text = _text("already_aborting" if was_aborting else "aborting", time=time)
    else:
        text = _text("accepted", status=status_label(run.status))
    return AbortMessage(join_texts(text, _overdue_text(run)), _tone(run))


def _start_time(at: datetime, reference: datetime, is_approximate: bool) -> RichText:
    time = ClockTime(at, reference)
    return _text("or_earlier", time=time) if is_approximate else time


def _too_late_message(abort: Abort, run: Run | Work) -> AbortMessage:
    if not abort.outcome:
        return AbortMessage(_text("missing"), "info")
    if status_changed_after_end(abort, run):
        return _changed_message(abort, run)
    return AbortMessage(_text("too_late", status=status_label(abort.outcome)), "info")


def _unknown_message(abort: Abort, run: Run | Work) -> AbortMessage:
    if abort.settled_at is None:
        is_refused = abort.response_status is not None
        if run.abort_severity >= Severity.CRITICAL:  # its time is over, or it was aborted before
            key = "no_resend"
        else:
            is_over = is_refused or abort.send_count >= resend_policy.MAX_SENDS
            key = "resend_refused" if is_over else "resend"
        response = _refusal(abort) if is_refused else end_with_period(abort.response)
        doubt = _text("doubtful", response=response)
        window = durations.format_rounded(resend_policy.RESEND_WINDOW)
        next_step = _text(key, n=abort.send_count, most=resend_policy.MAX_SENDS, time=window)
        return AbortMessage(join_texts(doubt, next_step), _tone(run))
    if run.status in {"aborting", "aborted"}:
        text = _text("not_arrived_but_stopped", status=status_label(run.status))
        return AbortMessage(text, _tone(run))
    again_hint = _text("can_abort_again") if run.in_flight else ""
    key = "not_arrived" if abort.work_id is None else "work_not_arrived"
    return AbortMessage(join_texts(_text(key), again_hint), "bad")


def _refusal(abort: Abort) -> RichText:
    text = end_with_period(abort.response)
    return text if text.startswith("Northflank refused") else _text("refused", response=text)


def _concluded_message(abort: Abort, run: Run | Work) -> AbortMessage:
    time = durations.format_duration(_duration(abort, run))
    if status_changed_after_end(abort, run):
        return _changed_message(abort, run)
    if abort.outcome == "aborted":
        return AbortMessage(_text("aborted", time=time), "neutral")
    no_response = "" if abort.responded_at else _text("no_response")
    if not abort.outcome:
        return AbortMessage(join_texts(_text("removed", time=time), no_response), "warning")
    status = status_label(abort.outcome)
    if abort.work_id is not None:
        text = _text("work_ended", status=status, time=time)
        return AbortMessage(join_texts(text, no_response), "neutral")
    text = _text("failed", status=status, time=time)
    return AbortMessage(join_texts(text, no_response), "bad", is_unexpected=True)


def status_changed_after_end(abort: Abort, run: Run | Work) -> bool:
    """Return whether the run's status differs from the one that its abort was settled with.

    What a run has left running does not start again.
    """
    if abort.work_id is not None:
        return False
    if abort.state == AbortState.TOO_LATE and not abort.outcome:
        return False  # the run's status was unknown
    is_final = abort.state in {AbortState.CONCLUDED, AbortState.TOO_LATE}
    has_changed = run.status != abort.outcome or not run.concluded
    return is_final and run.removed_at is None and has_changed


def _changed_message(abort: Abort, run: Run | Work) -> AbortMessage:
    """Return the message for a run with a new status after it had ended or been removed."""
    key = "status_changed" if abort.outcome else "reappeared"
    text = _text(key, before=status_label(abort.outcome), now=status_label(run.status))
    return AbortMessage(text, "bad", is_unexpected=True)


def _overdue_text(run: Run | Work) -> RichText:
    level = Severity(run.abort_severity)
    if level is Severity.OK:
        return ""
    key = "critical" if level is Severity.CRITICAL else "overdue"
    return _text(key, time=durations.format_rounded(severity.threshold(level)))


def _tone(run: Run | Work) -> str:
    return _TONES[Severity(run.abort_severity)]


def _duration(abort: Abort, run: Run | Work) -> timedelta:
    return abort.duration(run) or timedelta()


def end_with_period(text: str) -> str:
    """Return the text with a period, unless it already ends like a sentence."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def status_label(status: str) -> str:
    """Return the label of a run's status for use within a sentence; others are as sent."""
    return statuses.inline_label(status or "unknown")
