"""The abort log as CSV and JSON downloads (components/lists/export.py)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from functools import partial

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_GET

from dashboard.aborts import categories
from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts import permissions
from dashboard.models import Abort
from dashboard.web.components.aborts import abort_log
from dashboard.web.components.aborts.abort_log import AbortFilter
from dashboard.web.components.lists import export
from dashboard.web.components.lists.export import utc_text
from dashboard.web.http import links


@require_GET
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all aborts that match the query string as CSV."""
    return _export(request, "csv")


@require_GET
def export_json(request: HttpRequest) -> HttpResponseBase:
    """Download all aborts that match the query string as JSON, each with its timeline."""
    return _export(request, "json")


def _export(request: HttpRequest, extension: str) -> HttpResponseBase:
    abort_filter = abort_log.parse(request, permissions.for_user(request.user))
    base_url = request.build_absolute_uri("/").rstrip("/")
    content = stream(extension, abort_filter, base_url)
    return export.respond("aborts", extension, abort_filter.warnings, content)


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One event of an abort's timeline; `event_type` is machine-readable, `text` is for people."""

    at: str
    event_type: str
    detail: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """An exported abort. Field order is CSV column order; times are ISO 8601 in UTC."""

    id: int
    requested_at: str | None
    username: str
    via: str
    token: str
    address: str
    reason: str
    project: str
    pipeline: str
    stage: str
    run_id: str
    run_name: str
    run_url: str
    state: str
    sent_at: str | None
    send_count: int
    answered_at: str | None
    answer_status: int | None
    answer: str
    error_id: str
    outcome: str
    settled_at: str | None
    duration_seconds: float | None  # from the request until the end, see `Abort.duration`
    message: str
    retry_of: int | None
    bulk_abort: int | None
    timeline: list[TimelineEvent]  # JSON only


COLUMNS = [field.name for field in fields(Record) if field.name != "timeline"]


def stream(
    extension: str,
    abort_filter: AbortFilter,
    base_url: str,
    *,
    chunk_size: int = export.CHUNK_SIZE,
) -> AsyncIterator[bytes]:
    """Yield the matching aborts as CSV, or as JSON with the same names, plus each timeline.

    `base_url` is the dashboard's address without a trailing slash.
    """
    load, record = partial(_load, abort_filter), partial(_record, base_url=base_url)
    return export.stream(extension, load, record, COLUMNS, chunk_size)


def _load(abort_filter: AbortFilter, before_pk: int | None, limit: int) -> list[Abort]:
    return list(abort_log.with_details(abort_log.matching_aborts(abort_filter, before_pk))[:limit])


def _record(abort: Abort, base_url: str) -> Record:
    run, stage = abort.run, abort.run.stage
    duration = abort.duration(run)
    events = list(abort.events.all())
    lines = abort_timeline.entries(abort, events)
    return Record(
        id=abort.pk,
        requested_at=utc_text(abort.requested_at),
        username=abort.username,
        via=abort.via,
        token=abort.token_name,
        address=abort.client_address or "",
        reason=abort.reason,
        project=stage.pipeline.project.slug,
        pipeline=stage.pipeline.slug,
        stage=stage.name,
        run_id=run.run_id,
        run_name=run.name,
        run_url=base_url + links.run_url(abort.run),
        state=categories.category(abort, run),
        sent_at=utc_text(abort.sent_at),
        send_count=abort.send_count,
        answered_at=utc_text(abort.answered_at),
        answer_status=abort.answer_status,
        answer=abort.answer,
        error_id=abort.error_id,
        outcome=abort.outcome,
        settled_at=utc_text(abort.settled_at),
        duration_seconds=None if duration is None else round(duration.total_seconds(), 3),
        message=abort_messages.describe(abort, run).plain_text,
        retry_of=abort.retry_of_id,
        bulk_abort=abort.bulk_abort_id,
        timeline=[
            TimelineEvent(utc_text(line.at) or "", event.event_type, event.detail, line.text)
            for event, line in zip(events, lines, strict=True)
        ],
    )
