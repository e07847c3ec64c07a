"""What a run waits for, or failed in, and since when it is silent, in words."""

from collections.abc import Iterator
from typing import NamedTuple

from django.utils.translation import gettext_lazy

from dashboard.models import Run, Work
from dashboard.northflank import Node, WorkRef
from dashboard.runs import works
from dashboard.texts.local_time import format_full
from dashboard.texts.rich_text import ExternalText, Message, MessageTable

_text = MessageTable(
    {
        "job_run": gettext_lazy("job run %(name)s"),
        "build": gettext_lazy("build %(name)s"),
        "job_run_of": gettext_lazy("a job run of %(owner)s"),
        "build_of": gettext_lazy("a build of %(owner)s"),
        "waits": gettext_lazy("Waits for %(what)s"),
        "probably_waits": gettext_lazy("Probably waits for %(what)s"),
        "failed": gettext_lazy("Failed in %(what)s"),
        "probably_failed": gettext_lazy("Probably failed in %(what)s"),
        "status": gettext_lazy("%(waits)s: %(status)s"),
        "started": gettext_lazy("%(waits)s: %(status)s, started %(time)s"),
        "last_line": gettext_lazy("Last line of its log: %(time)s"),
    }
)


class WaitingFor(NamedTuple):
    """The step that a run waits on or failed at, what it has started, and its row if read."""

    node: Node
    ref: WorkRef
    work: Work | None


def load(run: Run, root: Node | None) -> WaitingFor | None:
    """Return what a run waits for or failed in, as last read; None: neither a job run nor build."""
    awaited = works.awaited_work(run, root)
    return WaitingFor(*awaited, works.stored(run, *awaited)) if awaited is not None else None


def describe(run: Run, ref: WorkRef, work: Work | None) -> Message:
    """Return what a run waits for, or failed in, by its name if that is known."""
    verb = "failed" if run.concluded else "waits"
    key = f"probably_{verb}" if work and work.is_probable else verb
    return _text(key, what=name(ref, work))


def name(ref: WorkRef, work: Work | None) -> Message:
    """Return what to call a job run or build; before it was read, whose it is."""
    if work is None:
        return _text(f"{ref.kind}_of", owner=ExternalText(ref.owner_id))
    return _text(ref.kind, name=ExternalText(work.name))


def dated_lines(run: Run, waiting: WaitingFor | None) -> Iterator[Message]:
    """Yield the same as lines of a plain text, with status and absolute times."""
    if waiting is None:
        return
    _node, ref, work = waiting
    waits = describe(run, ref, work)
    if work is None:
        yield waits
        return
    status = ExternalText(work.status)
    if work.started_at is None:
        yield _text("status", waits=waits, status=status)
    else:
        time = format_full(work.started_at)
        yield _text("started", waits=waits, status=status, time=time)
    if work.last_line_at is not None:
        yield _text("last_line", time=format_full(work.last_line_at))
