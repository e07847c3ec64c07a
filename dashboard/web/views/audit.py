"""The audit: every abort that was ever asked for here, as a page and for download."""

from collections.abc import AsyncIterator, Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_safe

from dashboard import access
from dashboard.models import ChangeCounter
from dashboard.web import audit, audit_export, context, empty, keys, live, titles
from dashboard.web import lists as abort_lists
from dashboard.web.audit import AuditFilter
from dashboard.web.overview import Flights


@require_safe
def aborts(request: HttpRequest) -> HttpResponse:
    """Show the acts that the address asks for, newest first, a page of them."""
    may = access.rights(request.user)
    version = ChangeCounter.latest()
    asked = audit.read(request, may)
    shown = audit.page(asked)
    as_of = live.as_of_list(audit.newest(may))
    under_way = shown.under_way > 0
    terms = live.of(
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
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    parts = {
        "nav": "aborts",
        "title": titles.aborts(
            shown.under_way,
            Flights(aborting=shown.aborting),
            blind=context.of(request).blind,
        ),
        "filter": asked,
        "acts": audit.of_page(shown),
        "older_url": shown.older_url,
        "empty": empty.aborts(
            filtered=bool(asked.wanted),
            past_the_end=asked.before is not None,
            sees_all=may.sees_all,
        ),
        "as_of": as_of,
    }
    return live.answer(request, "audit.html", terms, parts)


@require_safe
def lists(request: HttpRequest) -> HttpResponse:
    """Show the lists that were aborted by one press, newest first, a page of them."""
    may = access.rights(request.user)
    version = ChangeCounter.latest()
    before = keys.read(request.GET.get("before", ""))
    shown = abort_lists.page(may, before)
    as_of = live.as_of_list(abort_lists.page(may, None))
    under_way = shown.under_way > 0
    terms = live.of(
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
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    parts = {
        "nav": "aborts",
        "title": titles.lists(shown.under_way, blind=context.of(request).blind),
        "lists": shown.rows,
        "older_url": shown.older_url,
        "before": before,
        "empty": empty.lists(past_the_end=before is not None, sees_all=may.sees_all),
        "as_of": as_of,
    }
    return live.answer(request, "lists.html", terms, parts)


@require_GET
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all acts that the address asks for as CSV."""
    return _export(request, audit_export.as_csv, "csv", "text/csv; charset=utf-8")


@require_GET
def export_json(request: HttpRequest) -> HttpResponseBase:
    """Download all acts that the address asks for as JSON, each with its trail."""
    return _export(request, audit_export.as_json, "json", "application/json")


def _export(
    request: HttpRequest,
    written: Callable[[AuditFilter, str], AsyncIterator[bytes]],
    ending: str,
    content_type: str,
) -> HttpResponseBase:
    asked = audit.read(request, access.rights(request.user))
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
