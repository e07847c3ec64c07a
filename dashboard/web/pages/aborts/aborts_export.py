"""The abort log as CSV and JSON downloads."""

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_GET

from dashboard.aborts import categories
from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts import permissions
from dashboard.models import Abort
from dashboard.web.components.aborts import abort_log
from dashboard.web.components.lists import export
from dashboard.web.http import links


@require_GET
def aborts_export(request: HttpRequest, extension: str) -> HttpResponseBase:
    """Download all aborts that match the query string; `extension` is csv or json.

    JSON has the timeline of each.
    """
    abort_filter = abort_log.parse(request, permissions.for_user(request.user))
    base_url = request.build_absolute_uri("/").rstrip("/")
    columns = csv_columns(base_url)
    if extension == "json":
        columns |= {"timeline": _timeline}
    aborts = abort_log.with_details(Abort.every.all())
    return export.respond("aborts", extension, abort_filter, aborts, columns)


def csv_columns(base_url: str) -> export.Columns[Abort]:
    """Return the columns; `base_url` is the dashboard's address without a trailing slash."""
    return {
        "id": "pk",
        "requested_at": "requested_at",
        "username": "username",
        "via": "via",
        "token": "token_name",
        "address": lambda abort: abort.client_address or "",
        "reason": "reason",
        "project": "run.stage.pipeline.project.slug",
        "pipeline": "run.stage.pipeline.slug",
        "stage": "run.stage.name",
        "run_id": "run.run_id",
        "run_name": "run.name",
        "run_url": lambda abort: base_url + links.run_url(abort.run),
        "work_kind": lambda abort: abort.work.kind if abort.work else "",
        "work_id": lambda abort: abort.work.work_id if abort.work else "",
        "work_name": lambda abort: abort.work.name if abort.work else "",
        "state": lambda abort: categories.category(abort, abort.run),
        "sent_at": "sent_at",
        "send_count": "send_count",
        "responded_at": "responded_at",
        "response_status": "response_status",
        "response": "response",
        "error_id": "error_id",
        "outcome": "outcome",
        "settled_at": "settled_at",
        "duration_seconds": _duration_seconds,
        "message": lambda abort: abort_messages.describe(abort, abort.run).plain_text,
        "again_of": "again_of_id",
        "bulk_abort": "bulk_abort_id",
    }


def _duration_seconds(abort: Abort) -> float | None:
    """From the request until the end, see `Abort.duration`."""
    duration = abort.duration(abort.target)
    return None if duration is None else round(duration.total_seconds(), 3)


def _timeline(abort: Abort) -> list[dict[str, str]]:
    """Return all events; `event_type` is machine-readable, `text` is for people."""
    events = list(abort.events.all())
    return [
        {
            "at": export.utc_text(line.at),
            "event_type": event.event_type,
            "detail": event.detail,
            "text": line.text,
        }
        for event, line in zip(events, abort_timeline.entries(abort, events), strict=True)
    ]
