"""Changes of rights, for administrators: as a page, and as CSV and JSON downloads."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe

from dashboard.models import RightsChange
from dashboard.web.components.lists import empty_states, export
from dashboard.web.components.lists.export import utc_text
from dashboard.web.components.rights import changes as component
from dashboard.web.http.administrators import for_administrators


@require_safe
@for_administrators
def rights_changes(request: HttpRequest) -> HttpResponse:
    """Show one page of the changes that match the query string, newest first."""
    change_filter = component.parse(request.GET)
    page = component.load_page(change_filter)
    context = {
        "nav": "status",
        "tab": "changes",
        "filter": change_filter,
        "changes": page,
        "has_pager": bool(page.older_url or change_filter.before_pk),
        "empty": empty_states.rights_changes(is_filtered=bool(request.GET)),
    }
    return render(request, "pages/rights_changes.html", context)


@require_GET
@for_administrators
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all changes that match the query string as CSV."""
    columns = list(Record.__dataclass_fields__)
    return _export(request, "csv", partial(export.stream_csv, columns=columns), _text_record)


@require_GET
@for_administrators
def export_json(request: HttpRequest) -> HttpResponseBase:
    """Download all changes that match the query string as JSON."""
    return _export(request, "json", export.stream_json, _record)


@dataclass(frozen=True, slots=True)
class Record:
    """An exported change. Field order is CSV column order; times are ISO 8601 in UTC."""

    id: int
    occurred_at: str | None
    changed_by: str
    address: str
    kind: str
    subject: str
    detail: str
    before: object
    after: object


def _record(change: RightsChange) -> Record:
    return Record(
        id=change.pk,
        occurred_at=utc_text(change.occurred_at),
        changed_by=change.changed_by,
        address=change.client_address or "",
        kind=change.subject_kind,
        subject=change.subject,
        detail=change.detail,
        before=change.before,
        after=change.after,
    )


def _text_record(change: RightsChange) -> Record:
    """Return a change with its states as JSON text; an empty one did not exist."""
    record = _record(change)
    texts = [
        "" if state is None else msgspec.json.encode(state).decode()
        for state in (record.before, record.after)
    ]
    return Record(*[getattr(record, name) for name in Record.__dataclass_fields__][:-2], *texts)


def _export(
    request: HttpRequest,
    extension: str,
    write_rows: Callable[..., AsyncIterator[bytes]],
    record: Callable[[RightsChange], Record],
) -> HttpResponseBase:
    change_filter = component.parse(request.GET)
    if change_filter.warnings:
        # A page can show which parameters it ignored; a file would pass for the requested data.
        text = "\n".join(change_filter.warnings)
        return HttpResponse(f"{text}\n", status=400, content_type="text/plain; charset=utf-8")
    load = partial(component.load_changes, change_filter)
    content = write_rows(load, record=record, chunk_size=export.CHUNK_SIZE)
    return export.download("rights-changes", extension, content)
