"""Support request to Northflank about an abort that does not end, ready to be sent."""

from datetime import UTC, datetime

from dashboard.models import Abort, Run
from dashboard.runs import abort_clock


def build(run: Run, abort: Abort | None, *, team: str, now: datetime) -> str:
    """Return ids, times (UTC), status and Northflank's response as plain text.

    Leaves out the reason and user names. `abort` is None if the abort was requested elsewhere.
    """
    stage = run.stage
    lines = [
        "A release flow run has not ended after an abort.",
        "",
        f"Team: {team or '(unknown)'}",
        f"Project: {stage.pipeline.project.slug}",
        f"Pipeline: {stage.pipeline.slug}",
        f"Stage: {stage.name}",
        f"Run: {run.run_id}",
        "",
    ]
    if abort is not None:
        lines += [
            f"Abort requested: {_format_utc(abort.requested_at)}",
            f"Abort sent: {_format_utc(abort.sent_at)}",
            f"Response: {_response_text(abort)}",
        ]
        if abort.error_id:
            lines.append(f"Error ID: {abort.error_id}")
    else:
        start = abort_clock.northflank_start(run)
        label = "First seen aborting" if start.is_approximate else "Aborting since"
        lines.append(f"{label}: {_format_utc(start.at)}")
    concluded = "concluded" if run.concluded else "not concluded"
    lines.append(f"Status: {run.status}, {concluded}, as of {_format_utc(run.synced_at)}")
    if run.step:
        lines.append(f"Step: {run.step}")
    lines.append(f"Report created: {_format_utc(now)}")
    return "\n".join(lines)


def _response_text(abort: Abort) -> str:
    if abort.responded_at is None:
        return f"none ({abort.response})" if abort.response else "none"
    return f"{abort.response_status} {abort.response} at {_format_utc(abort.responded_at)}"


def _format_utc(when: datetime | None) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if when else "–"
