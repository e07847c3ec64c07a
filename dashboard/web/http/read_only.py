"""Read-only mode of the admin: READ_ONLY rejects its changes, as the banner promises."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from dashboard.accounts import permissions
from dashboard.web.http import errors
from dashboard.web.http.methods import SAFE_METHODS


class ReadOnlyMiddleware:
    """Reject unsafe admin requests in read-only mode; other views check READ_ONLY themselves."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: Any) -> HttpResponse | None:
        match = request.resolver_match
        if not settings.READ_ONLY or request.method in SAFE_METHODS or match is None:
            return None
        if match.app_name != "admin":
            return None
        return errors.forbidden(request, str(permissions.read_only_reason()))
