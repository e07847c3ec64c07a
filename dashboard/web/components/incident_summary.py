"""What to tell those who take over: a run's story as plain text for a channel. Pure.

It begins with the run's verdict as it reads now. All else is said by the clock, with its zone, so
that the text stays true where it is pasted.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.models import Abort, Looking, Run, StageTiming
from dashboard.northflank import Node
from dashboard.runs import durations, statuses, steps
from dashboard.runs import summary as run_summary
from dashboard.runs.concurrency import Around
from dashboard.runs.summary import Name, Parts

MOST = 5  # runs that are named
ERROR = 500  # characters of an error
REASON = 300  # characters of a reason, or of a line of an abort's trail


class Link(str):
    """An address; pages make it whole where they know their own better than the settings do."""

    __slots__ = ()


def of(
    run: Run,
    root: Node | None,
    timing: StageTiming | None,
    said: Parts,
    around: Around,
    aborts: Iterable[Abort],
    lookings: Iterable[Looking] = (),
    *,
    url: str,
) -> Parts:
    """Return the text, in parts as a verdict is.

    `said` is the run's verdict; `aborts` are the run's with their trails, the latest first;
    `lookings` tell who looks at it, or has.
    """
    lines = [
        *_facts(run, root, timing),
        *_lookings(lookings),
        *_neighbours(around, run),
        *_aborts(run, aborts),
    ]
    return (*said, "\n\n", "\n".join(lines), "\n\n", Link(url))


def _facts(run: Run, root: Node | None, timing: StageTiming | None) -> Iterator[str]:
    stage = run.stage
    yield _("Run: %(run)s") % {"run": _named(run)}
    yield _("Where: %(project)s / %(pipeline)s / %(stage)s") % {
        "project": Name(str(stage.pipeline.project)),
        "pipeline": Name(str(stage.pipeline)),
        "stage": stage.name,
    }
    status = (
        _("Status: %(status)s, concluded, as of %(time)s")
        if run.concluded
        else _("Status: %(status)s, not concluded, as of %(time)s")
    )
    yield status % {"status": Name(statuses.of_run(run.status).word), "time": _at(run.seen_at)}
    for said, when in (
        (_("Gone from Northflank: %(time)s"), run.gone_at),
        (_("Created: %(time)s"), run.created_at),
        (_("Started: %(time)s"), run.started_at),
        (_("Concluded: %(time)s"), run.concluded_at),
    ):
        if when is not None:
            yield said % {"time": _at(when)}
    if timing and (usual := timing.usual_run):
        usually = durations.between(usual.median, usual.p95)
        said = (
            _("A run here usually takes %(time)s of work")
            if timing.approvals
            else _("A run here usually takes %(time)s")
        )
        yield said % {"time": usually}
    at = _step(run, root)
    if at is not None:
        yield _its_step(at)
        if at.error_message and at.error_message.strip():
            yield _("Error: %(error)s") % {"error": Name(at.error_message, ERROR)}


def _its_step(at: Node) -> str:
    step = Name(steps.describe(at))
    if at.started_at is None:
        return _("Step: %(step)s") % {"step": step}
    return _("Step: %(step)s, started %(time)s") % {"step": step, "time": _at(at.started_at)}


def _lookings(lookings: Iterable[Looking]) -> Iterator[str]:
    lookings = list(lookings)
    if len(lookings) > MOST:
        yield _("Looked at by %(n)d; the latest:") % {"n": len(lookings)}
    for one in lookings[-MOST:]:
        told = {"who": Name(one.username), "since": _at(one.since)}
        if one.until is None:
            yield _("%(who)s is looking, since %(since)s") % told
            continue
        told |= {"until": _at(one.until), "by": Name(one.taken_over_by)}
        said = (
            _("%(who)s looked from %(since)s to %(until)s; %(by)s took over")
            if one.taken_over_by
            else _("%(who)s looked from %(since)s to %(until)s")
        )
        yield said % told


def _step(run: Run, root: Node | None) -> Node | None:
    """Return the step that the verdict is about."""
    if root is None:
        return None
    if not run.concluded:
        return steps.current(root)
    if run.status == "success":
        return None  # what failed on the way did no harm
    return (
        run_summary.stopped_step(root) if run.status == "aborted" else run_summary.failed_step(root)
    )


def _neighbours(around: Around, run: Run) -> Iterator[str]:
    for what, runs in (
        (_("Before it"), around.before),
        (_("Waiting behind it"), around.behind),
        (around.swallowed_in_words.rstrip("."), around.swallowed),
    ):
        if runs:
            yield _("%(what)s: %(runs)s") % {"what": what, "runs": _some(runs)}
    if around.dropped_for is not None:
        what = around.dropped_for_in_words.rstrip(".")
        yield _("%(what)s: %(runs)s") % {"what": what, "runs": _named(around.dropped_for)}
    good = around.last_good
    if good is not None and good.pk != run.pk:
        told = {"run": _named(good), "time": _at(good.concluded_at) if good.concluded_at else ""}
        said = (
            _("Last good in this stage: %(run)s, concluded %(time)s")
            if good.concluded_at
            else _("Last good in this stage: %(run)s")
        )
        yield said % told


def _some(runs: Sequence[Run]) -> str:
    named = ", ".join(_named(each) for each in runs[:MOST])
    more = len(runs) - MOST
    if more <= 0:
        return named
    return ngettext("%(runs)s and %(n)d more", "%(runs)s and %(n)d more", more) % {
        "runs": named,
        "n": more,
    }


def _aborts(run: Run, aborts: Iterable[Abort]) -> Iterator[str]:
    aborts = list(aborts)
    if abort_messages.is_elsewhere(aborts[0] if aborts else None, run):
        yield _("Abort: %(story)s") % {"story": abort_messages.elsewhere(run).by(_clock)}
    for abort in aborts:
        story = Name(abort_messages.of(abort, run).by(_clock), REASON)
        yield _("Abort: %(story)s") % {"story": story}
        asked = (
            _("Asked by %(who)s, %(time)s: “%(reason)s”")
            if abort.reason
            else _("Asked by %(who)s, %(time)s, without a reason")
        )
        told = {"who": Name(abort.username), "time": _at(abort.requested_at)}
        yield "  " + asked % {**told, "reason": Name(abort.reason, REASON)}
        for line in abort_timeline.lines(abort, abort.events.all()):
            yield f"  {_at(line.at)} {Name(line.text, REASON)}"


def _named(run: Run) -> str:
    return f"{Name(run.name)} ({Name(run.run_id)})" if run.name.strip() else Name(run.run_id)


def _at(when: datetime) -> str:
    local = timezone.localtime(when)
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}"


def _clock(said: abort_messages.At) -> str:
    return _at(said.at)
