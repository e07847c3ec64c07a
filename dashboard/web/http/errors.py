"""Error pages: 400, 403, 404, 413, 500 and 503."""

import sys
from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views import defaults

from dashboard.db import health as db_health
from dashboard.web.http import database_outage
from dashboard.web.http.lookup import PageNotFound
from dashboard.web.http.responses.htmx import is_htmx, text_response
from dashboard.web.http.responses.json_responses import ApiError, error_response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Return a 400 for an invalid request."""
    # Else the page's own check of CSRF would read the form again, and fail by it.
    request._mark_post_parse_error()  # type: ignore[attr-defined]  # as Django does for others
    return defaults.bad_request(request, exception, template_name="errors/400.html")


def too_large(request: HttpRequest) -> HttpResponse:
    """Return a 413 in the form of the address's other errors; Django logs it."""
    if request.path_info.startswith("/api/"):
        response = error_response(ApiError("too_large"))
        response._has_been_logged = False  # type: ignore[attr-defined]
        return response
    if is_htmx(request) or request.path_info.startswith("/hooks/"):
        return text_response(_("Request too large."), 413)
    return HttpResponse(render_to_string("errors/413.html"), status=413)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return a 404 with the requested object and links to continue."""
    template_context: dict[str, Any] = {}
    if isinstance(exception, PageNotFound):
        template_context = {"message": exception.message, "links": exception.links}
    return render(request, "errors/404.html", template_context, status=404)


def forbidden(
    request: HttpRequest, reason: str, links: Sequence[tuple[str, str]] = ()
) -> HttpResponse:
    """403, with the reason and who has the permission, and links (label, URL) to continue."""
    if is_htmx(request):
        return text_response(reason, 403)
    template_context = {"reason": reason, "links": links}
    return render(request, "errors/403.html", template_context, status=403)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return a 403 for a PermissionDenied raised by Django."""
    return forbidden(request, str(exception))


def internal_error(request: HttpRequest) -> HttpResponse:
    """Return a 503 during a database outage, else a 500."""
    error = sys.exc_info()[1]
    if error is not None and db_health.record_failure(error):
        return database_outage.unavailable_response(request)
    return defaults.server_error(request, template_name="errors/500.html")
