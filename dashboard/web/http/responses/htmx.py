"""Responses to htmx: a part of a page instead of the whole page, or plain text."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers


def is_htmx(request: HttpRequest) -> bool:
    """Return whether htmx sent the request."""
    return request.headers.get("HX-Request") == "true"


def render_page(
    request: HttpRequest, template: str, partial: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """Render a template or, for htmx, the partial of that name alone; no cache keeps either."""
    name = f"{template}#{partial}" if is_htmx(request) else template
    response = render(request, name, context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def text_response(text: str, status: int, *, field: str = "") -> HttpResponse:
    """Return plain text, which static/dialog.js shows as a notice or in the open dialog.

    `field` names the field of the dialog's form that the text is about; empty: its first.
    """
    headers = {"X-Field": field} if field else {}
    return HttpResponse(
        text, status=status, content_type="text/plain; charset=utf-8", headers=headers
    )
