"""The incident summary of a run: plain text to paste into a chat for the next on call. Pure.

It begins with the run's summary as of now. All other times are absolute and include the time zone,
so that the text stays correct after it was pasted.
"""

from collections.abc import Iterable, Iterator, Sequence

from django.utils.translation import gettext_lazy, ngettext

from dashboard.aborts import left_running
from dashboard.aborts import messages as abort_messages
from dashboard.models import Abort, Acknowledgement, Run, Work
from dashboard.northflank import Node
from dashboard.runs import statuses, steps, waiting_for
from dashboard.runs import summary as run_summary
from dashboard.runs.concurrency import RelatedRuns
from dashboard.runs.waiting_for import WaitingFor
from dashboard.texts.local_time import format_full
from dashboard.texts.rich_text import (
    ExternalText,
    Link,
    Message,
    MessageTable,
    RichText,
    join_texts,
)

MAX_LISTED = 5  # runs; the others are only counted
MAX_ERROR_LENGTH = 500  # characters of an error
_text = MessageTable(
    {
        "run": gettext_lazy("Run: %(run)s"),
        "location": gettext_lazy("Location: %(project)s / %(pipeline)s / %(stage)s"),
        "concluded": gettext_lazy("Status: %(status)s, ended, as of %(time)s"),
        "not_concluded": gettext_lazy("Status: %(status)s, not ended, as of %(time)s"),
        "removed_at": gettext_lazy("Removed from Northflank: %(time)s"),
        "created_at": gettext_lazy("Created: %(time)s"),
        "started_at": gettext_lazy("Started: %(time)s"),
        "concluded_at": gettext_lazy("Ended: %(time)s"),
        "step": gettext_lazy("Step: %(step)s"),
        "step_started": gettext_lazy("Step: %(step)s, started %(time)s"),
        "error": gettext_lazy("Error: %(error)s"),
        "acknowledged": gettext_lazy("Acknowledged by %(who)s since %(since)s"),
        "blocks": gettext_lazy("Blocks: %(runs)s"),
        "more": lambda n: ngettext("%(runs)s and %(n)d more", "%(runs)s and %(n)d more", n),
        "last_success": gettext_lazy("Latest success in this stage: %(run)s, ended %(time)s"),
    }
)


def build(
    run: Run,
    root: Node | None,
    headline: RichText,
    related: RelatedRuns,
    aborts: Sequence[Abort],
    acknowledgements: Iterable[Acknowledgement] = (),
    waiting: WaitingFor | None = None,
    left: Iterable[Work] = (),
    *,
    url: str,
) -> RichText:
    """Return the text as rich text.

    `headline` is the run's summary; `aborts` are the run's aborts, latest first;
    `acknowledgements` are the active and ended ones; `left` is what the abort has left running.
    """
    lines = join_texts(
        *_fact_lines(run, root),
        *waiting_for.dated_lines(run, waiting),
        *map(left_running.dated_line, left),
        *_acknowledgement_lines(acknowledgements),
        *_related_run_lines(related, run),
        *abort_messages.dated_lines(run, aborts),
        separator="\n",
    )
    return (headline, "\n\n", lines, "\n\n", Link(url))


def _fact_lines(run: Run, root: Node | None) -> Iterator[Message]:
    stage = run.stage
    yield _text("run", run=_run_name(run))
    yield _text(
        "location",
        project=_line(str(stage.pipeline.project)),
        pipeline=_line(str(stage.pipeline)),
        stage=stage.name,
    )
    yield _text(
        "concluded" if run.concluded else "not_concluded",
        status=_line(str(statuses.for_run(run.status).label)),
        time=format_full(run.synced_at),
    )
    for key in ("removed_at", "created_at", "started_at", "concluded_at"):
        if (time := getattr(run, key)) is not None:
            yield _text(key, time=format_full(time))
    step = _relevant_step(run, root)
    if step is not None:
        yield _step_line(step)
        if step.error_message and step.error_message.strip():
            yield _text("error", error=_line(step.error_message, MAX_ERROR_LENGTH))
    elif run.failed_step:  # its steps were deleted
        yield _text("step", step=_line(run.failed_step))
        if run.failed_step_error:
            yield _text("error", error=_line(run.failed_step_error, MAX_ERROR_LENGTH))


def _step_line(node: Node) -> Message:
    step = _line(steps.describe(node))
    if node.started_at is None:
        return _text("step", step=step)
    return _text("step_started", step=step, time=format_full(node.started_at))


def _acknowledgement_lines(acknowledgements: Iterable[Acknowledgement]) -> Iterator[Message]:
    for acknowledgement in acknowledgements:
        if acknowledgement.ended_at is None:
            who, since = acknowledgement.username, format_full(acknowledgement.acknowledged_at)
            yield _text("acknowledged", who=_line(who), since=since)


def _relevant_step(run: Run, root: Node | None) -> Node | None:
    """Return the step that the run's summary is about, or None."""
    if root is None:
        return None
    if not run.concluded:
        return steps.current(root, run.status)
    if run.status == "success":
        return None  # a failed step did not affect the result
    return (
        run_summary.aborted_step(root) if run.status == "aborted" else run_summary.failed_step(root)
    )


def _related_run_lines(related: RelatedRuns, run: Run) -> Iterator[Message]:
    if related.blocks:
        yield _text("blocks", runs=_list_runs(related.blocks))
    success = related.last_success
    if success is not None and success.pk != run.pk and success.concluded_at is not None:
        time = format_full(success.concluded_at)
        yield _text("last_success", run=_run_name(success), time=time)


def _list_runs(runs: Sequence[Run]) -> Message | str:
    names = ", ".join(_run_name(run) for run in runs[:MAX_LISTED])
    more = len(runs) - MAX_LISTED
    return _text("more", runs=names, n=more) if more > 0 else names


def _run_name(run: Run) -> str:
    return f"{_line(run.name)} ({_line(run.run_id)})" if run.name.strip() else _line(run.run_id)


def _line(text: str, max_length: int = 80) -> str:
    # Plain: in a chat nothing isolates it.
    return str(ExternalText(text, max_length))
