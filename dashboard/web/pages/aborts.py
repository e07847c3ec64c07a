"""The audit: every abort that was ever asked for here, as a page and for download."""

from collections.abc import AsyncIterator, Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_safe

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter
from dashboard.web.components import abort_log, empty_states, tab_title
from dashboard.web.components import bulk_abort_list as abort_lists
from dashboard.web.components.abort_log import AuditFilter
from dashboard.web.components.in_flight import Flights
from dashboard.web.http import keys, site_context
from dashboard.web.live import region as live_region
from dashboard.web.pages import aborts_export


@require_safe
def aborts(request: HttpRequest) -> HttpResponse:
    """Show the acts that the address asks for, newest first, a page of them."""
    may = permissions.rights(request.user)
    version = ChangeCounter.latest()
    asked = abort_log.read(request, may)
    shown = abort_log.page(asked)
    as_of = live_region.as_of_list(abort_log.newest(may))
    under_way = shown.under_way > 0
    terms = live_region.of(
        request,
        may,
        "aborts",
        version,
        shown.versions,  # by these it knows whether it has changed
        any_change=False,
        in_flight=False,
        aborting=under_way,
        as_of=as_of,
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    parts = {
        "nav": "aborts",
        "title": tab_title.aborts(
            shown.under_way,
            Flights(aborting=shown.aborting),
            blind=site_context.of(request).blind,
        ),
        "filter": asked,
        "acts": abort_log.of_page(shown),
        "older_url": shown.older_url,
        "empty": empty_states.aborts(
            filtered=bool(asked.wanted),
            past_the_end=asked.before is not None,
            sees_all=may.sees_all,
        ),
        "as_of": as_of,
    }
    return live_region.answer(request, "audit.html", terms, parts)


@require_safe
def lists(request: HttpRequest) -> HttpResponse:
    """Show the lists that were aborted by one press, newest first, a page of them."""
    may = permissions.rights(request.user)
    version = ChangeCounter.latest()
    before = keys.read(request.GET.get("before", ""))
    shown = abort_lists.page(may, before)
    as_of = live_region.as_of_list(abort_lists.page(may, None))
    under_way = shown.under_way > 0
    terms = live_region.of(
        request,
        may,
        "lists",
        version,
        shown,
        any_change=False,
        in_flight=False,
        aborting=under_way,
        as_of=as_of,
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    parts = {
        "nav": "aborts",
        "title": tab_title.lists(shown.under_way, blind=site_context.of(request).blind),
        "lists": shown.rows,
        "older_url": shown.older_url,
        "before": before,
        "empty": empty_states.lists(past_the_end=before is not None, sees_all=may.sees_all),
        "as_of": as_of,
    }
    return live_region.answer(request, "lists.html", terms, parts)


@require_GET
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all acts that the address asks for as CSV."""
    return _export(request, aborts_export.as_csv, "csv", "text/csv; charset=utf-8")


@require_GET
def export_json(request: HttpRequest) -> HttpResponseBase:
    """Download all acts that the address asks for as JSON, each with its trail."""
    return _export(request, aborts_export.as_json, "json", "application/json")


def _export(
    request: HttpRequest,
    written: Callable[[AuditFilter, str], AsyncIterator[bytes]],
    ending: str,
    content_type: str,
) -> HttpResponseBase:
    asked = abort_log.read(request, permissions.rights(request.user))
    if asked.ignored:
        # A page can say what it left out of account; a file would pass for what was asked.
        text = "\n".join(asked.ignored)
        return HttpResponse(f"{text}\n", status=400, content_type="text/plain; charset=utf-8")
    name = f"aborts-{timezone.localdate().isoformat()}.{ending}"
    return StreamingHttpResponse(
        written(asked, request.build_absolute_uri("/").rstrip("/")),
        content_type=content_type,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Accel-Buffering": "no",  # nginx would hold it back
        },
    )
