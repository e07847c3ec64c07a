"""Everything needs a session; who has none comes back to the very page after signing in."""

from typing import Any

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.translation import gettext as _


class SignInMiddleware(LoginRequiredMiddleware):
    """Django's, but a fragment's request is answered 401: a login page must not be swapped in."""

    def handle_no_permission(  # type: ignore[override]  # the stubs allow redirects only
        self, request: HttpRequest, view_func: Any
    ) -> HttpResponseBase:
        if request.headers.get("HX-Request") == "true":
            return HttpResponse(_("You are signed out."), status=401, content_type="text/plain")
        return super().handle_no_permission(request, view_func)
