"""The access log as CSV and JSON downloads, for holders of its permission."""

from dataclasses import dataclass
from functools import partial

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_GET

from dashboard.models import AccessEvent
from dashboard.web.components import access_log as component
from dashboard.web.components.lists import export
from dashboard.web.components.lists.export import utc_text
from dashboard.web.http.access_log import require_view_permission


@require_GET
@require_view_permission
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all events that match the query string as CSV."""
    return _export(request, "csv")


@require_GET
@require_view_permission
def export_json(request: HttpRequest) -> HttpResponseBase:
    """Download all events that match the query string as JSON."""
    return _export(request, "json")


@dataclass(frozen=True, slots=True)
class Record:
    """An exported event. Field order is CSV column order; times are ISO 8601 in UTC."""

    id: int
    occurred_at: str | None
    kind: str
    username: str
    changed_by: str
    address: str
    token: str
    detail: str


def _record(event: AccessEvent) -> Record:
    return Record(
        id=event.pk,
        occurred_at=utc_text(event.occurred_at),
        kind=event.kind,
        username=event.username,
        changed_by=event.changed_by,
        address=event.client_address or "",
        token=event.token_name,
        detail=event.detail,
    )


def _export(request: HttpRequest, extension: str) -> HttpResponseBase:
    access_filter = component.parse(request.GET)
    load = partial(component.load_events, access_filter)
    content = export.stream(extension, load, _record, list(Record.__dataclass_fields__))
    return export.respond("access-log", extension, access_filter.warnings, content)
