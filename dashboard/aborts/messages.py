"""What is said of an abort: one true sentence for each state it can be in. Pure.

A sentence never says more than Northflank has said, and Northflank's latest word on the run comes
before ours on the act.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import dateformat, timezone
from django.utils.translation import gettext as _

from dashboard.aborts import resend_policy
from dashboard.aborts import severity as abort_severity
from dashboard.aborts.severity import Level
from dashboard.models import Abort, Run
from dashboard.models.aborts import AbortState
from dashboard.runs import abort_clock, durations, statuses
from dashboard.runs.rich_text import fill, together

# Past them an act is no matter of seconds any more, and the sentence begins to say so.
_TONES = {Level.CALM: "warning", Level.AMBER: "warning", Level.RED: "bad"}


@dataclass(frozen=True, slots=True)
class At:
    """A point in time within a sentence that stands beside another; as text it is on the clock.

    Sentences are kept, so they are the same on every day: the day is told if it is not that of the
    other.
    """

    at: datetime
    beside: datetime | None

    @property
    def with_day(self) -> bool:
        """Whether its day has to be told, in the zone in which times are written."""
        then = self.beside
        return then is not None and timezone.localdate(then) != timezone.localdate(self.at)

    def __str__(self) -> str:
        local = timezone.localtime(self.at)
        return with_day(local, self.beside) if self.with_day else f"{local:%H:%M:%S}"


type Said = str | tuple[str | At, ...]  # in parts where there are times in it


@dataclass(frozen=True, slots=True)
class Story:
    """How an abort stands, in a sentence and a tone."""

    said: Said
    tone: str
    loud: bool = False  # it went otherwise than whoever pressed will think

    @property
    def sentence(self) -> str:
        """The sentence as plain text."""
        return self.by(str)

    def by(self, clock: Callable[[At], str]) -> str:
        """The sentence as plain text, its times written by `clock`."""
        parts = (self.said,) if isinstance(self.said, str) else self.said
        return "".join(clock(part) if isinstance(part, At) else part for part in parts)


def of(abort: Abort, run: Run) -> Story:
    """Say how an abort of `run` stands; never more than Northflank has said."""
    match AbortState(abort.state):
        case AbortState.REQUESTED:
            return Story(_requested(abort), "info")
        case AbortState.ACCEPTED:
            return _accepted(abort, run)
        case AbortState.CONCLUDED:
            return _concluded(abort, run)
        case AbortState.NOT_SENT:
            if abort.retry_at is not None:
                # True until then, and after.
                template = _("Not sent: Northflank asked for a pause until %(time)s.")
                return Story(fill(template, time=At(abort.retry_at, abort.requested_at)), "bad")
            return Story(_("Not sent: %(why)s") % {"why": sentence(abort.answer)}, "bad")
        case AbortState.REFUSED:
            answer = sentence(abort.answer)
            begun = answer.startswith("Northflank refused")
            said = answer if begun else _("Northflank refused: %(answer)s") % {"answer": answer}
            return Story(said, "bad")
        case AbortState.TOO_LATE:
            return _too_late(abort, run)
        case AbortState.UNKNOWN:
            return _unknown(abort, run)
        case AbortState.TRIED_AGAIN:
            said = _("Nothing came of it for %(time)s; it was tried again.")
            return Story(said % {"time": durations.in_words(_span(abort))}, "neutral")


def is_elsewhere(abort: Abort | None, run: Run) -> bool:
    """Say whether a run is being aborted by nobody here; `abort` is the latest act on it."""
    if not run.in_flight or run.gone_at is not None or run.status != "aborting":
        return False
    if abort is None:
        return True
    # These have said already what Northflank says now, or may be what it speaks of.
    speaks = {AbortState.CONCLUDED, AbortState.TOO_LATE, AbortState.UNKNOWN}
    return abort.settled_at is not None and abort.state not in speaks


def elsewhere(run: Run) -> Story:
    """Say how an abort stands that was not asked for here: Northflank says `aborting`."""
    begun = abort_clock.begun(run)
    template = _("Aborting since %(time)s, not asked for here.")
    if begun.at_least:
        template = _("Aborting since at least %(time)s, not asked for here.")
    said: Said = fill(template, time=At(begun.at, run.created_at))
    return Story(together(said, _late(run)), _tone(run))


def _requested(abort: Abort) -> Said:
    if abort.sent_at is None:
        template = _("Abort requested at %(time)s; not sent yet.")
        return fill(template, time=At(abort.requested_at, abort.requested_at))
    sent_at = At(abort.sent_at, abort.requested_at)
    if abort.sendings > 1:
        template = _(
            "Abort sent again at %(time)s (%(n)s of at most %(most)s times); waiting for "
            "Northflank’s answer."
        )
        return fill(template, time=sent_at, n=str(abort.sendings), most=str(resend_policy.MOST))
    template = _("Abort sent at %(time)s; waiting for Northflank’s answer.")
    return fill(template, time=sent_at)


def _accepted(abort: Abort, run: Run) -> Story:
    said: Said
    if run.status == "aborting":
        begun = abort_clock.begun(run)
        before = begun.at < abort.requested_at  # somebody else was faster
        since = At(begun.at if before else run.status_since, abort.requested_at)
        template = _("Abort accepted; aborting since %(time)s.")
        if before and begun.at_least:
            template = _("Abort accepted; aborting since at least %(time)s.")
        if abort.answer_status not in {200, None}:
            template = _("The run was being aborted already, since %(time)s or before.")
        said = fill(template, time=since)
    elif abort.answered_at is not None:
        said = fill(
            _("Abort accepted at %(time)s; Northflank still says %(status)s."),
            time=At(abort.answered_at, abort.requested_at),
            status=word(run.status),
        )
    else:
        said = _("Abort accepted; Northflank still says %(status)s.") % {"status": word(run.status)}
    return Story(together(said, _late(run)), _tone(run))


def _too_late(abort: Abort, run: Run) -> Story:
    if not abort.outcome:
        said = (
            _("Northflank knew the run no more when the abort arrived.")
            if abort.sent_at
            else _("Northflank knew the run no more when the abort could be sent.")
        )
        return Story(said, "info")
    if turned(abort, run):
        return _after_its_end(abort, run)
    said = (
        _("Finished before the abort arrived: the run had ended as %(status)s.")
        if abort.sent_at
        else _("Finished before the abort could be sent: the run had ended as %(status)s.")
    )
    return Story(said % {"status": word(abort.outcome)}, "info")


def _unknown(abort: Abort, run: Run) -> Story:
    if abort.settled_at is None:
        doubt = _("The abort may not have arrived. %(answer)s") % {"answer": sentence(abort.answer)}
        # One that tries another again is red from its begin: that says nothing of its sendings.
        if run.aborting_level >= Level.RED and abort.begun_at is None:
            more = _("It is not sent again by itself. You can try again.")
        elif abort.sendings < resend_policy.MOST:
            more = _("It is sent again if the run goes on: sent %(n)d of at most %(most)d times.")
        else:
            more = _("Sent %(n)d times: checking what became of the run.")
        counted = {"n": abort.sendings, "most": resend_policy.MOST}
        return Story(together(doubt, more % counted), _tone(run))
    if run.status in {"aborting", "aborted"}:
        said = _(
            "It was not known whether the abort had arrived. It was taken for lost, and now "
            "Northflank says %(status)s."
        )
        return Story(said % {"status": word(run.status)}, _tone(run))
    if abort.sendings > 1:
        said = _(
            "The abort was sent %(n)d times, and the run went on: it seems not to have arrived."
        )
    else:
        said = _("The abort was sent, and the run went on: it seems not to have arrived.")
    again = _("You can try again.") if run.in_flight else ""
    return Story(together(said % {"n": abort.sendings}, again), "bad")


def _concluded(abort: Abort, run: Run) -> Story:
    took = durations.in_words(_span(abort))
    if turned(abort, run):
        return _after_its_end(abort, run)
    if abort.outcome == "aborted":
        return Story(_("Aborted after %(time)s.") % {"time": took}, "neutral")
    unheard = "" if abort.answered_at else _("No answer to the abort had come back.")
    if not abort.outcome:
        said = _(
            "Northflank knows the run no more, %(time)s after the abort was asked for; how it "
            "ended is unknown."
        )
        return Story(together(said % {"time": took}, unheard), "warning")
    said = _("Not stopped: the run ended as %(status)s, %(time)s after the abort was asked for.")
    said %= {"status": word(abort.outcome), "time": took}
    return Story(together(said, unheard), "bad", loud=True)


def turned(abort: Abort, run: Run) -> bool:
    """Say whether a run is something else now than when an abort of it settled."""
    if abort.state == AbortState.TOO_LATE and not abort.outcome:
        return False  # it was not known how the run stood
    settled = abort.state in {AbortState.CONCLUDED, AbortState.TOO_LATE}
    other = run.status != abort.outcome or not run.concluded
    return settled and run.gone_at is None and other


def _after_its_end(abort: Abort, run: Run) -> Story:
    """Say of a run that had ended, or was gone, that it is something else now."""
    said = (
        _("Northflank had said %(before)s, and now says %(now)s: look at the run itself.")
        if abort.outcome
        else _("Northflank did not know the run, and now says %(now)s: look at the run itself.")
    )
    told = said % {"before": word(abort.outcome), "now": word(run.status)}
    return Story(told, "bad", loud=True)


def _late(run: Run) -> str:
    level = Level(min(run.aborting_level, Level.RED))
    said = {
        Level.CALM: "",
        Level.AMBER: _("That takes longer than %(time)s."),
        Level.RED: _("It has not ended within %(time)s."),
    }[level]
    return said and said % {"time": durations.in_brief(abort_severity.after(level))}


def _tone(run: Run) -> str:
    return _TONES[Level(min(run.aborting_level, Level.RED))]


def _span(abort: Abort) -> timedelta:
    return (abort.settled_at or abort.requested_at) - abort.requested_at


def sentence(text: str) -> str:
    """Return a text that ends as a sentence does."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def word(status: str) -> str:
    """Return what a status is called within a sentence."""
    return statuses.within(status)


def with_day(local: datetime, beside: datetime | None = None) -> str:
    """Return a local time on the clock with its day: "3 Jan 04:05:06".

    With its year, "3 Jan 2025 04:05:06", where that is not the one `beside` which it stands; now's,
    if there is none.
    """
    same_year = local.year == timezone.localtime(beside).year
    return dateformat.format(local, "j M H:i:s" if same_year else "j M Y H:i:s")
