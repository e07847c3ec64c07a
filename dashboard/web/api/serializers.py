"""Runs and aborts as JSON, for the API and the commands.

A contract: fields are added, never renamed or removed. Times are UTC, in texts too.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from dashboard.aborts import left_running as left_running_rules
from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from dashboard.models.severity import Severity
from dashboard.runs import acknowledgements, attention, steps
from dashboard.runs import waiting_for as waiting_rules
from dashboard.runs.overdue import OverdueReason
from dashboard.sync.log_reader import LogView
from dashboard.sync.reports.report import Report
from dashboard.texts.rich_text import to_text
from dashboard.web.components.runs import row_queries
from dashboard.web.http import links


def runs(runs: Collection[Run], permissions: Permissions | None = None) -> list[dict[str, Any]]:
    """Return runs with their latest aborts; with `permissions`, also what the caller may do."""
    latest_aborts = row_queries.latest_aborts(runs)
    attention_severities = attention.severities(runs, db_threads.now())
    return [
        _run(
            run,
            latest_aborts.get(run.pk),
            permissions,
            needs_attention=run.pk in attention_severities,
        )
        for run in runs
    ]


def run(run: Run, permissions: Permissions | None = None) -> dict[str, Any]:
    """Return a run, like `runs`."""
    return runs([run], permissions)[0]


def _run(
    run: Run,
    latest_abort: Abort | None,
    permissions: Permissions | None,
    *,
    needs_attention: bool,
) -> dict[str, Any]:
    pipeline = run.stage.pipeline
    fields = {
        "run_id": run.run_id,
        "name": run.name,
        "project": pipeline.project.slug,
        "pipeline": pipeline.slug,
        "stage": run.stage.name,
        "status": run.status,
        "concluded": run.concluded,
        "in_flight": run.in_flight,
        "step": run.step if run.in_flight else "",
        "step_number": run.step_number if run.in_flight else None,
        "step_count": run.step_count if run.in_flight else None,
        "failed_step": run.failed_step,
        "failure": run.failed_step_error,
        "overdue": overdue(run),
        "needs_attention": needs_attention,
        "created_at": _utc(run.created_at),
        "started_at": _utc(run.started_at),
        "concluded_at": _utc(run.concluded_at),
        "synced_at": _utc(run.synced_at),
        "removed_at": _utc(run.removed_at),
        "url": links.absolute_url(links.run_url(run)),
        "abort": abort(latest_abort, run) if latest_abort is not None else None,
    }
    if permissions is not None:
        fields["may_abort"] = run.in_flight and permissions.abort_permission(run.stage).allowed
    return fields


def overdue(run: Run) -> dict[str, str] | None:
    """Return how overdue a run is, and which part of it; None if it is not overdue."""
    if not run.overdue_severity:
        return None
    reason = OverdueReason(run.overdue_reason or OverdueReason.RUN)
    return {
        "severity": Severity(run.overdue_severity).name.lower(),
        "reason": reason.name.lower(),
    }


def abort(abort: Abort, run: Run) -> dict[str, Any]:
    """Return an abort in its current state."""
    return {
        "id": abort.pk,
        "state": abort.state,
        "message": _utc_message(abort, run),
        "username": abort.username,
        "via": abort.via,
        "token": abort.token_name,
        "reason": abort.reason,
        "requested_at": _utc(abort.requested_at),
        "sent_at": _utc(abort.sent_at),
        "send_count": abort.send_count,
        "responded_at": _utc(abort.responded_at),
        "response": abort.response,
        "response_status": abort.response_status,
        "error_id": abort.error_id,
        "retry_at": _utc(abort.retry_at),
        "outcome": abort.outcome,
        "settled_at": _utc(abort.settled_at),
    }


def aborts(run: Run) -> list[dict[str, Any]]:
    """Return all aborts of a run itself, newest first, each with its timeline."""
    return _with_timelines(run, run.aborts.order_by("-pk").prefetch_related("events"))


def left_running(run: Run) -> list[dict[str, Any]]:
    """Return what the abort of a run has left running, as last read, each with its aborts."""
    found = left_running_rules.load(run, steps.decode(run.steps))
    return [
        {
            "kind": left.work.kind,
            "id": left.work.work_id,
            "name": left.work.name,
            "status": left.work.status,
            "running": left.work.in_flight,
            "started_at": _utc(left.work.started_at),
            "ended_at": _utc(left.work.ended_at),
            "synced_at": _utc(left.work.synced_at),
            "error": left.work.error,
            "aborts": _with_timelines(run, left.aborts),
        }
        for left in (found.works if found is not None else ())
    ]


def _with_timelines(run: Run, abort_rows: Iterable[Abort]) -> list[dict[str, Any]]:
    return [
        abort(abort_row, run)
        | {
            "timeline": [
                {"at": _utc(timeline_line.at), "text": timeline_line.text}
                for timeline_line in abort_timeline.entries(abort_row, abort_row.events.all())
            ]
        }
        for abort_row in abort_rows
    ]


def acknowledgement_entries(run: Run) -> list[dict[str, Any]]:
    """Return the acknowledgements of a run, oldest first."""
    return [
        {
            "username": acknowledgement.username,
            "acknowledged_at": _utc(acknowledgement.acknowledged_at),
            "ended_at": _utc(acknowledgement.ended_at),
            "taken_over_by": acknowledgement.taken_over_by,
        }
        for acknowledgement in acknowledgements.history(run)
    ]


def waiting_for(run: Run) -> dict[str, Any] | None:
    """Return what a run waits for, or failed in, as last read; None if no job run or build is.

    `run` with its steps.
    """
    waiting = waiting_rules.load(run, steps.decode(run.steps))
    if waiting is None:
        return None
    _node, ref, work = waiting
    if work is None:
        return {"kind": ref.kind, "name": "", "id": ref.id, "status": "", "silent_since": None}
    return {
        "kind": work.kind,
        "name": work.name,
        "id": work.work_id,
        "status": work.status,
        "silent_since": None if work.concluded else _utc(work.last_line_at),
        "probable": work.is_probable,
        "started_at": _utc(work.started_at),
        "ended_at": _utc(work.ended_at),
    }


def log(view: LogView) -> dict[str, Any]:
    """Return a look at a log, with its newest lines, the newest last."""
    return {
        "lines": [{"at": _utc(at), "text": line.text} for at, line in view.lines or ()],
        "problem": to_text(view.problem),
        "read_at": _utc(view.read_at),
        "next_read_at": _utc(view.next_read_at),
    }


def coverage(report: Report) -> dict[str, Any]:
    """Return whether the listed stages have all been read, and how many have not."""
    return {
        "complete": report.is_complete,
        "coverage": {
            "stages": report.stages,
            "unread": report.unread,
            "failing": report.total("unread_failing"),
            "unlisted": report.unlisted,
            "message": report.incomplete_text,
        },
    }


def dismissals(run: Run) -> list[dict[str, Any]]:
    """Return the dismissals of a removed run, oldest first."""
    return [
        {
            "username": dismissal.username,
            "dismissed_at": _utc(dismissal.dismissed_at),
            "restored_at": _utc(dismissal.restored_at),
            "restored_by": dismissal.restored_by,
        }
        for dismissal in run.dismissals.all()
    ]


def _utc_message(abort: Abort, run: Run) -> str:
    with timezone.override(UTC):
        return abort_messages.describe(abort, run).dated_text


def _utc(time: datetime | None) -> datetime | None:
    return time.astimezone(UTC) if time else None
