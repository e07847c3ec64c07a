"""What people see when there is nothing, when they may not, and when we failed."""

import sys
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.defaults import server_error

from dashboard.db import health as db_health
from dashboard.web.http import database_outage
from dashboard.web.http.lookup import NothingHere


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404: say what was looked for, and where to go on."""
    parts: dict[str, Any] = {}
    if isinstance(exception, NothingHere):
        parts = {"looked_for": exception.looked_for, "onward": exception.onward}
        parts |= exception.more
    return render(request, "404.html", parts, status=404)


def forbidden(request: HttpRequest, why: str) -> HttpResponse:
    """403: say why, and who may."""
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(why, status=403, content_type="text/plain; charset=utf-8")
    return render(request, "403.html", {"why": why}, status=403)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403, raised by Django itself."""
    return forbidden(request, str(exception))


def failed(request: HttpRequest) -> HttpResponse:
    """503 where the database is away, else 500: a fault of ours."""
    error = sys.exc_info()[1]
    if error is not None and db_health.failed(error):
        return database_outage.answer(request)
    return server_error(request)
