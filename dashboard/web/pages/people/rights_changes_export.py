"""Changes of rights as CSV and JSON downloads, for administrators."""

from dataclasses import dataclass
from functools import partial

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_GET

from dashboard.models import RightsChange
from dashboard.web.components.lists import export
from dashboard.web.components.lists.export import utc_text
from dashboard.web.components.rights import changes as component
from dashboard.web.http.administrators import for_administrators


@require_GET
@for_administrators
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all changes that match the query string as CSV."""
    return _export(request, "csv")


@require_GET
@for_administrators
def export_json(request: HttpRequest) -> HttpResponseBase:
    """Download all changes that match the query string as JSON."""
    return _export(request, "json")


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
    before: object  # the state; None: it did not exist
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


def _export(request: HttpRequest, extension: str) -> HttpResponseBase:
    change_filter = component.parse(request.GET)
    load = partial(component.load_changes, change_filter)
    content = export.stream(extension, load, _record, list(Record.__dataclass_fields__))
    return export.respond("rights-changes", extension, change_filter.warnings, content)
