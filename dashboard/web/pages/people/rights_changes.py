"""Changes of rights and of notice rules, newest first, and their downloads; for administrators."""

from collections.abc import Mapping

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_safe

from dashboard.models import RightsChange
from dashboard.models.accounts.rights_changes import SubjectKind
from dashboard.texts.rich_text import MessageTable
from dashboard.web.components.lists import empty_states, export
from dashboard.web.components.lists.record_pages import MAX_QUOTED, RecordFilter
from dashboard.web.components.rights import changes
from dashboard.web.http import keys
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
_text = MessageTable({"unknown_subject": gettext_lazy("Unknown subject “%(subject)s” ignored.")})


@require_safe
@for_administrators
def rights_changes(request: HttpRequest) -> HttpResponse:
    """Show one page of the changes that match the query string, newest first."""
    change_filter = _parse(request.GET)
    context = {
        "filter": change_filter,
        "changes": changes.load_page(change_filter),
        "empty": empty_states.log("rights_changes", change_filter),
    }
    return render(request, "pages/people/rights_changes.html", context)


@require_GET
@for_administrators
def rights_changes_export(request: HttpRequest, extension: str) -> HttpResponseBase:
    """Download all changes that match the query string; `extension` is csv or json."""
    change_filter, records = _parse(request.GET), RightsChange.objects.all()
    return export.respond("rights-changes", extension, change_filter, records, COLUMNS)


def _parse(query: Mapping[str, str]) -> RecordFilter:
    """Return the filter in a query string; ignore invalid parameters and add warnings."""
    change_filter = RecordFilter()
    values = change_filter.read(query, ("name", "subject"))
    if name := values["name"]:
        change_filter.narrow("name", name, Q(subject=name))
    if subject := values["subject"]:  # a `Subject.id`
        kind, _dash, digits = subject.partition("-")
        key = keys.parse_pk(digits)
        if kind in SubjectKind.values and key is not None:
            change_filter.narrow("subject", subject, Q(subject_kind=kind, subject_key=key))
        else:
            text = _text("unknown_subject", subject=subject[:MAX_QUOTED])
            change_filter.warnings.append(text)
    return change_filter
