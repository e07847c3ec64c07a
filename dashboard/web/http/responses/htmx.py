"""Responses to htmx: a part of a page instead of the whole page, or plain text."""

from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.template.backends.django import Template
from django.template.context import make_context
from django.template.loader import get_template
from django.utils.cache import patch_vary_headers
from django.utils.safestring import SafeString


def is_htmx(request: HttpRequest) -> bool:
    """Return whether htmx sent the request."""
    return request.headers.get("HX-Request") == "true"


def render_page(
    request: HttpRequest, template: str, partial: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """Render a template or, for htmx, the partial of that name alone."""
    name = f"{template}#{partial}" if is_htmx(request) else template
    response = HttpResponse(_render(request, name, context), status=status)
    patch_vary_headers(response, ["HX-Request"])
    return response


def _render(request: HttpRequest, name: str, values: dict[str, Any]) -> SafeString:
    """As Django's `render_to_string`, but the page's data is freed at once.

    A context refers to itself, so that Python would keep it until it looks for such circles.
    """
    context = make_context(values, request)
    markup = cast("Template", get_template(name)).template.render(context)
    context.dicts.clear()
    return markup


def text_response(text: str, status: int, *, field: str = "") -> HttpResponse:
    """Return plain text, which static/dialog.js shows as a notice or in the open dialog.

    `field` names the field of the dialog's form that the text is about; empty: its first.
    """
    headers = {"X-Field": field} if field else {}
    return HttpResponse(
        text, status=status, content_type="text/plain; charset=utf-8", headers=headers
    )
