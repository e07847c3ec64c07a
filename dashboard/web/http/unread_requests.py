"""Requests that the handler (asgi.py) could not read, by their headers or the body's size."""

from collections.abc import Callable
from typing import cast

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csp import ContentSecurityPolicyMiddleware

from dashboard.web.http import errors

ERROR = "read_error"  # key in a request's scope of the exception that the handler met


def refuse_unread(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: refuse, at every address, a request that the handler could not read."""
    # The page has the policy of others, whose middleware comes later.
    refuse = XFrameOptionsMiddleware(ContentSecurityPolicyMiddleware(_refuse))

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if ERROR in getattr(request, "scope", {}):  # only the handler's requests have a scope
            return cast("HttpResponseBase", refuse(request))
        return get_response(request)

    return middleware


def _refuse(request: HttpRequest) -> HttpResponseBase:
    error = request.scope[ERROR]  # type: ignore[attr-defined]
    if isinstance(error, RequestDataTooBig):
        return errors.too_large(request)
    return errors.bad_request(request, error)
