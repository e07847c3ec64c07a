"""The access log as CSV and JSON downloads, for holders of its permission."""

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_GET

from dashboard.models import AccessEvent
from dashboard.web.components import access_log as component
from dashboard.web.components.lists import export
from dashboard.web.http.administrators import for_log_readers

COLUMNS: export.Columns[AccessEvent] = {
    "id": "pk",
    "occurred_at": "occurred_at",
    "kind": "kind",
    "username": "username",
    "changed_by": "changed_by",
    "address": lambda event: event.client_address or "",
    "token": "token_name",
    "detail": "detail",
}


@require_GET
@for_log_readers
def access_log_export(request: HttpRequest, extension: str) -> HttpResponseBase:
    """Download all events that match the query string; `extension` is csv or json."""
    access_filter = component.parse(request.GET)
    return export.respond("access-log", extension, access_filter, component.load_events, COLUMNS)
