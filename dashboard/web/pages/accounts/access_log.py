"""The access log, for holders of its permission: as a page, and as CSV and JSON downloads."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_safe

from dashboard.accounts import access_log as log
from dashboard.models import AccessEvent
from dashboard.web.components import access_log as component
from dashboard.web.components.lists import empty_states, export
from dashboard.web.components.lists.export import utc_text

type View = Callable[[HttpRequest], HttpResponseBase]


def _require_view_permission(view: View) -> View:
    @wraps(view)
    def wrapper(request: HttpRequest) -> HttpResponseBase:
        if not log.may_view(request.user):
            raise PermissionDenied(
                _("Only holders of the permission view_accessevent may view the access log.")
            )
        return view(request)

    return wrapper


@require_safe
@_require_view_permission
def access_log(request: HttpRequest) -> HttpResponse:
    """Show one page of the events that match the query string, newest first."""
    access_filter = component.parse(request.GET)
    context = {
        "nav": "status",
        "filter": access_filter,
        "page": component.load_page(access_filter),
        "empty": empty_states.access_log(
            is_filtered=bool(access_filter.parameters),
            is_past_end=access_filter.before_pk is not None,
        ),
    }
    response = render(request, "pages/accounts/access_log.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@_require_view_permission
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all events that match the query string as CSV."""
    return _export(request, "csv")


@require_GET
@_require_view_permission
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
