"""Changes of rights as CSV and JSON downloads, for administrators."""

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_GET

from dashboard.models import RightsChange
from dashboard.web.components.lists import export
from dashboard.web.components.rights import changes as component
from dashboard.web.http.administrators import for_administrators

COLUMNS: export.Columns[RightsChange] = {
    "id": "pk",
    "occurred_at": "occurred_at",
    "changed_by": "changed_by",
    "address": lambda change: change.client_address or "",
    "kind": "subject_kind",
    "subject": "subject",
    "detail": "detail",
    "before": "before",  # the state; None: it did not exist
    "after": "after",
}


@require_GET
@for_administrators
def rights_changes_export(request: HttpRequest, extension: str) -> HttpResponseBase:
    """Download all changes that match the query string; `extension` is csv or json."""
    change_filter = component.parse(request.GET)
    return export.respond(
        "rights-changes", extension, change_filter, component.load_changes, COLUMNS
    )
