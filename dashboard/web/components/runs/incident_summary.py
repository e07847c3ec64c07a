"""The incident summary of a run: plain text to paste into a chat for the next on call. Pure.

It begins with the run's summary as of now. All other times are absolute and include the time zone,
so that the text stays correct after it was pasted.
"""

from collections.abc import Iterable, Iterator, Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.models import Abort, Acknowledgement, Run, StageTiming
from dashboard.northflank import Node
from dashboard.runs import statuses, steps
from dashboard.runs import summary as run_summary
from dashboard.runs.concurrency import RelatedRuns
from dashboard.texts import durations
from dashboard.texts.local_time import format_full
from dashboard.texts.rich_text import ExternalText, Link, RichText

MAX_LISTED = 5  # runs or acknowledgements; the others are only counted
MAX_ERROR_LENGTH = 500  # characters of an error
MAX_REASON_LENGTH = 300  # characters of a reason, an abort message or a timeline entry


def build(
    run: Run,
    root: Node | None,
    timing: StageTiming | None,
    headline: RichText,
    related: RelatedRuns,
    aborts: Iterable[Abort],
    acknowledgements: Iterable[Acknowledgement] = (),
    *,
    url: str,
) -> RichText:
    """Return the text as rich text.

    `headline` is the run's summary; `aborts` are the run's aborts with their events, latest first;
    `acknowledgements` are the active and ended ones, in the order of their creation.
    """
    lines = [
        *_fact_lines(run, root, timing),
        *_acknowledgement_lines(acknowledgements),
        *_related_run_lines(related, run),
        *_abort_lines(run, aborts),
    ]
    return (headline, "\n\n", "\n".join(lines), "\n\n", Link(url))


def _fact_lines(run: Run, root: Node | None, timing: StageTiming | None) -> Iterator[str]:
    stage = run.stage
    yield _("Run: %(run)s") % {"run": _run_name(run)}
    yield _("Location: %(project)s / %(pipeline)s / %(stage)s") % {
        "project": ExternalText(str(stage.pipeline.project)),
        "pipeline": ExternalText(str(stage.pipeline)),
        "stage": stage.name,
    }
    status = (
        _("Status: %(status)s, concluded, as of %(time)s")
        if run.concluded
        else _("Status: %(status)s, not concluded, as of %(time)s")
    )
    yield status % {
        "status": ExternalText(statuses.for_run(run.status).label),
        "time": format_full(run.synced_at),
    }
    for template, time in (
        (_("Removed from Northflank: %(time)s"), run.removed_at),
        (_("Created: %(time)s"), run.created_at),
        (_("Started: %(time)s"), run.started_at),
        (_("Concluded: %(time)s"), run.concluded_at),
    ):
        if time is not None:
            yield template % {"time": format_full(time)}
    if timing and (typical := timing.typical_run):
        typical_text = durations.format_range(typical.median, typical.p95)
        template = (
            _("Typical duration: %(time)s excl. approvals")
            if timing.approval_keys
            else _("Typical duration: %(time)s")
        )
        yield template % {"time": typical_text}
    step = _relevant_step(run, root)
    if step is not None:
        yield _step_line(step)
        if step.error_message and step.error_message.strip():
            yield _("Error: %(error)s") % {
                "error": ExternalText(step.error_message, MAX_ERROR_LENGTH)
            }


def _step_line(node: Node) -> str:
    step = ExternalText(steps.describe(node))
    if node.started_at is None:
        return _("Step: %(step)s") % {"step": step}
    return _("Step: %(step)s, started %(time)s") % {
        "step": step,
        "time": format_full(node.started_at),
    }


def _acknowledgement_lines(acknowledgements: Iterable[Acknowledgement]) -> Iterator[str]:
    acknowledgements = list(acknowledgements)
    if len(acknowledgements) > MAX_LISTED:
        yield _("%(n)d acknowledgements; the latest:") % {"n": len(acknowledgements)}
    for acknowledgement in acknowledgements[-MAX_LISTED:]:
        params = {
            "who": ExternalText(acknowledgement.username),
            "since": format_full(acknowledgement.acknowledged_at),
        }
        if acknowledgement.ended_at is None:
            yield _("Acknowledged by %(who)s since %(since)s") % params
            continue
        params |= {
            "until": format_full(acknowledgement.ended_at),
            "by": ExternalText(acknowledgement.reassigned_to),
        }
        template = (
            _("Acknowledged by %(who)s from %(since)s to %(until)s; reassigned to %(by)s")
            if acknowledgement.reassigned_to
            else _("Acknowledged by %(who)s from %(since)s to %(until)s")
        )
        yield template % params


def _relevant_step(run: Run, root: Node | None) -> Node | None:
    """Return the step that the run's summary is about, or None."""
    if root is None:
        return None
    if not run.concluded:
        return steps.current(root)
    if run.status == "success":
        return None  # a failed step did not affect the result
    return (
        run_summary.aborted_step(root) if run.status == "aborted" else run_summary.failed_step(root)
    )


def _related_run_lines(related: RelatedRuns, run: Run) -> Iterator[str]:
    for label, runs in (
        (_("Queued ahead"), related.queued_ahead),
        (_("Queued behind"), related.queued_behind),
        (str(related.skipped_text).rstrip("."), related.skipped_meanwhile),
    ):
        if runs:
            yield _("%(what)s: %(runs)s") % {"what": label, "runs": _list_runs(runs)}
    if related.superseded_by is not None:
        label = str(related.superseded_text).rstrip(".")
        yield _("%(what)s: %(runs)s") % {"what": label, "runs": _run_name(related.superseded_by)}
    last_success = related.last_success
    if last_success is not None and last_success.pk != run.pk:
        params = {
            "run": _run_name(last_success),
            "time": format_full(last_success.concluded_at) if last_success.concluded_at else "",
        }
        template = (
            _("Latest success in this stage: %(run)s, concluded %(time)s")
            if last_success.concluded_at
            else _("Latest success in this stage: %(run)s")
        )
        yield template % params


def _list_runs(runs: Sequence[Run]) -> str:
    names = ", ".join(_run_name(run) for run in runs[:MAX_LISTED])
    more = len(runs) - MAX_LISTED
    if more <= 0:
        return names
    return ngettext("%(runs)s and %(n)d more", "%(runs)s and %(n)d more", more) % {
        "runs": names,
        "n": more,
    }


def _abort_lines(run: Run, aborts: Iterable[Abort]) -> Iterator[str]:
    aborts = list(aborts)
    if abort_messages.is_external(aborts[0] if aborts else None, run):
        yield _("Abort: %(story)s") % {"story": abort_messages.describe_external(run).dated_text}
    for abort in aborts:
        message = ExternalText(abort_messages.describe(abort, run).dated_text, MAX_REASON_LENGTH)
        yield _("Abort: %(story)s") % {"story": message}
        template = (
            _("Requested by %(who)s, %(time)s: “%(reason)s”")
            if abort.reason
            else _("Requested by %(who)s, %(time)s, no reason given")
        )
        params = {"who": ExternalText(abort.username), "time": format_full(abort.requested_at)}
        yield "  " + template % {**params, "reason": ExternalText(abort.reason, MAX_REASON_LENGTH)}
        for entry in abort_timeline.entries(abort, abort.events.all()):
            yield f"  {format_full(entry.at)} {ExternalText(entry.text, MAX_REASON_LENGTH)}"


def _run_name(run: Run) -> str:
    return (
        f"{ExternalText(run.name)} ({ExternalText(run.run_id)})"
        if run.name.strip()
        else ExternalText(run.run_id)
    )
