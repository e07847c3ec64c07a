"""The access log, newest first, and its downloads; for holders of its permission."""

from collections.abc import Mapping
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_safe

from dashboard.models import AccessEvent
from dashboard.models.accounts.access import AccessKind
from dashboard.texts.rich_text import MessageTable
from dashboard.web.components.lists import empty_states, export, record_pages
from dashboard.web.components.lists.record_pages import MAX_QUOTED, RecordFilter
from dashboard.web.http.administrators import for_log_readers

PER_PAGE = 100
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
_WARNINGS = {
    AccessKind.BREAK_GLASS,
    AccessKind.SIGN_IN_FAILED,
    AccessKind.PASSWORD_REFUSED,
    AccessKind.TOKEN_REFUSED,
}
_text = MessageTable({"unknown_kind": gettext_lazy("Unknown kind “%(kind)s” ignored.")})


@require_safe
@for_log_readers
def access_log(request: HttpRequest) -> HttpResponse:
    """Show one page of the events that match the query string, newest first."""
    access_filter = _parse(request.GET)
    events = AccessEvent.objects.all()
    context = {
        "filter": access_filter,
        "kinds": AccessKind.choices,
        "page": record_pages.load_page(access_filter, events, _row, PER_PAGE),
        "empty": empty_states.log("access_log", access_filter),
    }
    return render(request, "pages/accounts/access_log.html", context)


@require_GET
@for_log_readers
def access_log_export(request: HttpRequest, extension: str) -> HttpResponseBase:
    """Download all events that match the query string; `extension` is csv or json."""
    access_filter, events = _parse(request.GET), AccessEvent.objects.all()
    return export.respond("access-log", extension, access_filter, events, COLUMNS)


def _parse(query: Mapping[str, str]) -> RecordFilter:
    """Return the filter in a query string; ignore invalid parameters and add warnings."""
    access_filter = RecordFilter()
    values = access_filter.read(query, ("username", "kind"))
    if username := values["username"]:
        access_filter.narrow("username", username, Q(username=username))
    if (kind := values["kind"]) in AccessKind.values:
        access_filter.narrow("kind", kind, Q(kind=kind))
    elif kind:
        access_filter.warnings.append(_text("unknown_kind", kind=kind[:MAX_QUOTED]))
    return access_filter


def _row(event: AccessEvent) -> dict[str, Any]:
    kind = AccessKind(event.kind)
    return {"event": event, "label": kind.label, "is_warning": kind in _WARNINGS}
