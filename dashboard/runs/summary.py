"""How a run stands, in plain words: a sentence or two, and a shorter one for its row. Pure.

A verdict is made of parts, so that the times in it go on by themselves where it is shown. It never
says more than is known: what is not known is left out. Each remark is a template around what is
said so far (`state`), so that every language puts it where it belongs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import Overdue, Usual
from dashboard.northflank import Node
from dashboard.runs import abort_clock, durations, overdue, overdue_messages, statuses, steps
from dashboard.runs.overdue import NOT_STARTED, Clock, Why
from dashboard.runs.rich_text import fill, together


@dataclass(frozen=True, slots=True)
class Since:
    """For how long something has gone on: "for 18 min"."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Until:
    """How long until something comes: "in 40 s", and then "due now"."""

    at: datetime


class Name(str):
    """Other people's text, on one line and not too long; pages keep it apart from ours."""

    __slots__ = ()

    def __new__(cls, text: str, most: int = 80) -> "Name":
        """Make one of at most so many characters."""
        folded = " ".join(text.split())
        return super().__new__(cls, folded if len(folded) <= most else f"{folded[: most - 1]}…")


type Parts = tuple[str | Since | Until, ...]

ERROR = 200  # characters of an error; the steps have all of it
_LATE = {
    Overdue.YES: gettext_lazy("%(state)s, longer than usual"),
    Overdue.VERY: gettext_lazy("%(state)s, far longer than usual"),
}
# Where Northflank's word for a run in flight says what it does, its step says it better.
AT_WORK = {"running", "waiting", "retrying", "async_wait", "approval_wait"}
_WITHOUT_STEP: dict[str, Promise] = {
    "retrying": gettext_lazy("a step failed and is being tried again"),
    "async_wait": gettext_lazy("a step waits for an answer from outside Northflank"),
    "approval_wait": gettext_lazy("waits for people to approve a step"),
}


def of(
    run: Run,
    root: Node | None,
    timing: StageTiming | None,
    *,
    before: int = 0,
    behind: int = 0,
    dropped: str = "",
) -> Parts:
    """Say in a sentence or two where `run` is and how it stands.

    `before` and `behind` are how many runs it waits for, and how many wait for it; `dropped` says
    whether it was dropped for another, and how many were in its time.
    """
    if run.concluded:
        said = _ended(run, root, timing)
    elif run.gone_at is not None:
        said = _gone(run, root)
    elif run.status == "aborting":
        said = _aborting(run, root)
    else:
        said = _under_way(run, root, timing, before)
    waiting = ""
    if behind and run.in_flight:
        waiting = ngettext("%(n)d run waits behind it.", "%(n)d runs wait behind it.", behind)
        waiting %= {"n": behind}
    return fill(
        _("%(pipeline)s / %(stage)s: %(said)s"),
        pipeline=Name(str(run.stage.pipeline)),
        stage=run.stage.name,
        said=together(said, waiting, dropped),
    )


def short(run: Run, clocks: Iterable[Clock]) -> Parts:
    """Say at which step a run is, for its row; empty: at none that is known.

    A row says by itself for how long all of the run has gone on, or waited for its turn. `clocks`
    are the run's, from which this knows what is usual.
    """
    if not run.in_flight or not run.step:
        return ()
    step = Name(run.step)
    if run.step_since is None or run.status == "aborting":
        return (step,)
    said: Parts = fill(_("%(step)s, %(since)s"), step=step, since=Since(run.step_since))
    known = {clock.why: clock.usual for clock in clocks}
    # Under its bar a row says what is usual of all of it, or of people: nothing is said twice.
    usual, of_all = known.get(Why.STEP), known.get(Why.RUN)
    if usual and of_all and durations.usually(usual) == durations.usually(of_all):
        return said
    return _usually(said, usual)


def text(parts: Parts, now: datetime) -> str:
    """Write parts as they read at a time."""
    return "".join(part if isinstance(part, str) else in_words(part, now) for part in parts)


def in_words(part: Since | Until, now: datetime) -> str:
    """Write a time as it reads at another."""
    if isinstance(part, Since):
        return _("for %(time)s") % {"time": durations.so_far(now - part.at)}
    if part.at <= now:
        return _("due now")
    return _("in %(time)s") % {"time": durations.so_far(part.at - now)}


# --- Under way ----------------------------------------------------------------------------------


def _under_way(run: Run, root: Node | None, timing: StageTiming | None, before: int) -> Parts:
    at = steps.current(root) if root is not None else None
    told: Why | None = Why.STEP  # what the state is about
    usual: Usual | None = None
    state: Parts
    besides, count = "", 0
    if run.status in NOT_STARTED:
        told, usual = Why.QUEUE, timing.usual_queue if timing else None
        state = _since(_waits(run), run.created_at)
        count = before
        besides = ngettext(
            "%(state)s: %(n)d run before it", "%(state)s: %(n)d runs before it", count
        )
    elif at is not None and (steps.for_people(at) or run.status != "approval_wait"):
        told = Why.APPROVAL if steps.for_people(at) else Why.STEP
        usual = overdue.usual_of(at, timing) if at.started_at else None
        state = _as_sent(run, _at(at))
        count = _beside(root, at)
        besides = ngettext(
            "%(state)s, and %(n)d more at the same time",
            "%(state)s, and %(n)d more at the same time",
            count,
        )
    elif run.status in _WITHOUT_STEP:
        told = Why.APPROVAL if run.status == "approval_wait" else Why.STEP
        usual = timing.usual_approval() if timing and told is Why.APPROVAL else None
        state = _since(str(_WITHOUT_STEP[run.status]), _in_status(run))
    elif run.status in AT_WORK:
        told, usual = Why.RUN, timing.usual_run if timing else None
        state = _since(_("under way"), run.started_at)
    else:
        told = None
        # One that is said to have ended has not been doing so for a time.
        lasts = run.status not in statuses.RUN or run.status == "unknown"
        state = _since(_sent(run), _in_status(run) if lasts else None)
    tried = _attempts(at) if at is not None and told is Why.STEP else ()
    late = _LATE.get(Overdue(run.overdue)) if usual and run.overdue_why == told else None
    more = ""
    if run.overdue and not late and not (tried and run.overdue_why == Why.ATTEMPTS):
        clocks = overdue.clocks(run, root, timing)
        story = overdue_messages.of(run.overdue, run.overdue_why, clocks)
        more = story.sentence if story else ""
    state = _usually(state, usual)
    if late:
        state = fill(str(late), state=state)
    if count:
        state = fill(besides, state=state, n=count)
    return together(_sentence(state), tried, more)


def _sentence(state: Parts) -> Parts:
    return fill(_("%(state)s."), state=state)


def _waits(run: Run) -> str:
    return _("waits for its turn") if run.status == "queued" else _("waits to start")


def _since(state: str | Parts, at: datetime | None) -> Parts:
    """Say for how long something has been so, where that is known."""
    if at is None:
        return (state,) if isinstance(state, str) else state
    # Translators: “waits for its turn” and “for 18 min”.
    return fill(_("%(state)s %(since)s"), state=state, since=Since(at))


def _at(at: Node) -> Parts:
    """Say at which step a run is, and for how long."""
    if steps.for_people(at):
        template = _("waits for people to approve “%(step)s”")
    elif at.status == "async_wait":
        template = _("step “%(step)s” waits for an answer from outside Northflank")
    else:
        template = _("step “%(step)s”") if at.started_at else _("at step “%(step)s”")
    return _since(fill(template, step=_called(at)), at.started_at)


def _beside(root: Node | None, at: Node) -> int:
    """Return how many other steps are under way."""
    return sum(
        steps.under_way(node) and node is not at and not node.steps
        for _depth, node in (steps.walk(root) if root is not None else ())
        if node.kind not in steps.CONTAINERS
    )


def _attempts(at: Node) -> Parts:
    """Say how often a step was tried, when it is tried again, and what it last failed with."""
    count, most = at.attempts or 0, at.max_attempts or 0
    retrying = at.status == "retrying"
    if count < 1 or (count == 1 and not retrying):
        return ()
    attempt = _("Attempt %(n)d of %(most)d") if most >= count else _("Attempt %(n)d")
    attempt %= {"n": count, "most": most}
    said: Parts
    if count >= most > 1:
        said = fill(_("%(attempt)s, the last."), attempt=attempt)
    elif retrying and at.next_attempt_at is not None:
        # Translators: “in 40 s” or “due now” is behind “next”.
        template = _("%(attempt)s, next %(until)s.")
        said = fill(template, attempt=attempt, until=Until(at.next_attempt_at))
    else:
        said = fill(_("%(attempt)s."), attempt=attempt)
    error = _error(at)
    return together(said, fill(_("The last error: %(error)s."), error=error) if error else "")


def _usually(state: Parts, usual: Usual | None) -> Parts:
    """Say what is usual, where that is known."""
    if not usual:
        return state
    return fill(_("%(state)s (%(usual)s)"), state=state, usual=durations.usually(usual))


def _as_sent(run: Run, state: Parts) -> Parts:
    """Say what Northflank says of a run in flight, where that says little, before a state."""
    if run.status in AT_WORK:
        return state
    return fill(_("%(sent)s; %(state)s"), sent=_sent(run), state=state)


def _sent(run: Run) -> Parts:
    if run.status == "unknown":
        return (_("Northflank gives its status as unknown"),)
    if run.status in statuses.RUN:
        said = _("Northflank says “%(status)s”, but not that it has concluded")
        return (said % {"status": statuses.within(run.status)},)
    return _says(run)


def _says(run: Run) -> Parts:
    if not run.status.strip():
        return (_("Northflank gives no status"),)
    return fill(_("Northflank says “%(status)s”"), status=Name(statuses.within(run.status)))


def _in_status(run: Run) -> datetime | None:
    # One that we have only ever seen with this status may have had it for longer.
    return run.status_since if run.status_since > run.first_seen_at else None


# --- Ending, ended, gone ------------------------------------------------------------------------


def _aborting(run: Run, root: Node | None) -> Parts:
    begun = abort_clock.begun(run)
    # Translators: “aborting at least” and “for 18 min”.
    state = _since(_("aborting at least") if begun.at_least else _("aborting"), begun.at)
    return _sentence(_at_step(state, steps.current(root) if root is not None else None))


def _gone(run: Run, root: Node | None) -> Parts:
    if not run.status.strip():
        return (_("Northflank no longer knows this run."),)
    template = _("Northflank no longer knows this run; it last said “%(status)s”")
    state: Parts = fill(template, status=Name(statuses.within(run.status)))
    return _sentence(_at_step(state, steps.current(root) if root is not None else None))


def _ended(run: Run, root: Node | None, timing: StageTiming | None) -> Parts:
    gone = _("Northflank no longer knows it.") if run.gone_at is not None else ""
    took = _took(run)
    time = {"time": durations.in_words(took)} if took is not None else {}
    state: Parts
    match run.status:
        case "success":
            state = _succeeded(took, root, timing)
        case "failure":
            state = _culprit((_("failed after %(time)s") % time if time else _("failed"),), root)
        case "aborted":
            aborted = _("was aborted after %(time)s") % time if time else _("was aborted")
            state = _at_step((aborted,), stopped_step(root))
        case "skipped":
            state = (_("was skipped: Northflank did not carry it out"),)
        case "unknown" if time:
            said = _("ended after %(time)s, and Northflank gives its outcome as unknown")
            state = (said % time,)
        case "unknown":
            state = (_("ended, and Northflank gives its outcome as unknown"),)
        case _:
            ended = _("ended after %(time)s") % time if time else _("ended")
            state = fill(_("%(state)s; %(sent)s"), state=ended, sent=_says(run))
    return together(_sentence(state), gone)


def _succeeded(took: timedelta | None, root: Node | None, timing: StageTiming | None) -> Parts:
    if took is None:
        return (_("succeeded"),)
    waited = steps.waited(root) if root is not None else timedelta()
    if not timedelta() < waited <= took:
        waited = timedelta()  # what clocks say that are off
    said = _("succeeded in %(time)s") % {"time": durations.in_words(took - waited)}
    state = _usually((said,), timing.usual_run if timing else None)
    if not waited:
        return state
    besides = _("%(state)s, not counting %(time)s of waiting for people")
    return fill(besides, state=state, time=durations.roughly(waited))


def failed_step(root: Node | None) -> Node | None:
    """Return the step that a run failed at: the first that failed without one inside it."""
    return _innermost(root, {"failure", "invalid"})


def stopped_step(root: Node | None) -> Node | None:
    """Return the step at which a run was aborted."""
    return _innermost(root, {"aborted", "aborting"})


def _innermost(root: Node | None, within: set[str]) -> Node | None:
    """Return the first step of these statuses that has none of them inside it."""
    for _depth, node in steps.walk(root) if root is not None else ():
        if node.status not in within:
            continue
        inside = (inner for _depth, inner in steps.walk(node) if inner is not node)
        if not any(inner.status in within for inner in inside):
            return node
    return None


def _culprit(state: Parts, root: Node | None) -> Parts:
    """Say at which step a run failed, and why."""
    node = failed_step(root)
    if node is None:
        return state
    count, most = node.attempts or 0, node.max_attempts or 0
    if count > 1:
        template = (
            _("%(state)s, at step “%(step)s” on attempt %(n)d of %(most)d")
            if most >= count
            else _("%(state)s, at step “%(step)s” on attempt %(n)d")
        )
        state = fill(template, state=state, step=_called(node), n=count, most=most)
    else:
        state = _at_step(state, node)
    error = _error(node)
    return fill(_("%(state)s: %(error)s"), state=state, error=error) if error else state


def _at_step(state: Parts, node: Node | None) -> Parts:
    if node is None:
        return state
    return fill(_("%(state)s, at step “%(step)s”"), state=state, step=_called(node))


def _took(run: Run) -> timedelta | None:
    began = run.started_at or run.created_at
    return max(run.concluded_at - began, timedelta()) if run.concluded_at else None


def _error(node: Node) -> Parts:
    if node.error_message and node.error_message.strip():
        return fill(_("“%(error)s”"), error=Name(node.error_message, ERROR))
    return (_("code %(code)s") % {"code": node.error_code},) if node.error_code is not None else ()


def _called(node: Node) -> Name:
    return Name(node.label if node.label.strip() else node.kind)
