"""The abort log: every abort requested here, as a page and as CSV and JSON downloads."""

from collections.abc import AsyncIterator, Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_safe

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter
from dashboard.web.components import abort_log, empty_states, tab_title
from dashboard.web.components import bulk_abort_list as abort_lists
from dashboard.web.components.abort_log import AbortFilter
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.http import keys, site_context
from dashboard.web.live import region
from dashboard.web.pages import aborts_export


@require_safe
def aborts(request: HttpRequest) -> HttpResponse:
    """Show one page of the aborts that match the query string, newest first."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    abort_filter = abort_log.parse(request, user_permissions)
    page = abort_log.load_page(abort_filter)
    data_age = region.list_data_age(abort_log.newest_page(user_permissions))
    has_open_aborts = page.under_way_count > 0
    live_region = region.build_region(
        request,
        user_permissions,
        "aborts",
        version,
        page.versions,  # the page has changed if these have
        follows_all_changes=False,
        in_flight=False,
        aborting=has_open_aborts,
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    page_context = {
        "nav": "aborts",
        "tab_title": tab_title.aborts(
            page.under_way_count,
            InFlightTotals(abort_severity=page.abort_severity),
            upstream_down=site_context.for_request(request).upstream_down,
        ),
        "filter": abort_filter,
        "abort_rows": abort_log.load_rows(page),
        "older_url": page.older_url,
        "empty": empty_states.aborts(
            is_filtered=bool(abort_filter.parameters),
            is_past_end=abort_filter.before_pk is not None,
            sees_all=user_permissions.can_view_all,
        ),
        "data_age": data_age,
    }
    return region.render_page(request, "pages/aborts.html", live_region, page_context)


@require_safe
def bulk_aborts(request: HttpRequest) -> HttpResponse:
    """Show one page of bulk aborts, newest first."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    before = keys.parse_pk(request.GET.get("before", ""))
    page = abort_lists.load_page(user_permissions, before)
    data_age = region.list_data_age(abort_lists.load_page(user_permissions, None))
    has_open_aborts = page.under_way_count > 0
    live_region = region.build_region(
        request,
        user_permissions,
        "bulk_aborts",
        version,
        page,
        follows_all_changes=False,
        in_flight=False,
        aborting=has_open_aborts,
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    page_context = {
        "nav": "aborts",
        "tab_title": tab_title.bulk_aborts(
            page.under_way_count, upstream_down=site_context.for_request(request).upstream_down
        ),
        "bulk_aborts": page.rows,
        "older_url": page.older_url,
        "before": before,
        "empty": empty_states.bulk_aborts(
            is_past_end=before is not None, sees_all=user_permissions.can_view_all
        ),
        "data_age": data_age,
    }
    return region.render_page(request, "pages/bulk_aborts.html", live_region, page_context)


@require_GET
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """Download all aborts that match the query string as CSV."""
    return _export(request, aborts_export.as_csv, "csv", "text/csv; charset=utf-8")


@require_GET
def export_json(request: HttpRequest) -> HttpResponseBase:
    """Download all aborts that match the query string as JSON, each with its timeline."""
    return _export(request, aborts_export.as_json, "json", "application/json")


def _export(
    request: HttpRequest,
    write_rows: Callable[[AbortFilter, str], AsyncIterator[bytes]],
    extension: str,
    content_type: str,
) -> HttpResponseBase:
    abort_filter = abort_log.parse(request, permissions.for_user(request.user))
    if abort_filter.warnings:
        # A page can show which parameters it ignored; a file would pass for the requested data.
        text = "\n".join(abort_filter.warnings)
        return HttpResponse(f"{text}\n", status=400, content_type="text/plain; charset=utf-8")
    name = f"aborts-{timezone.localdate().isoformat()}.{extension}"
    return StreamingHttpResponse(
        write_rows(abort_filter, request.build_absolute_uri("/").rstrip("/")),
        content_type=content_type,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Accel-Buffering": "no",  # else nginx buffers the stream
        },
    )
