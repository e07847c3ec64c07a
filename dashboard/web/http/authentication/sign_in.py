"""Sign-in: every page requires a session; after signing in the user returns to the same page."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext_lazy

from dashboard.accounts import sessions
from dashboard.db.threads import now
from dashboard.models.accounts.sessions import is_session_key
from dashboard.texts.rich_text import MessageTable
from dashboard.web.http import links
from dashboard.web.http.methods import SAFE_METHODS
from dashboard.web.http.responses.htmx import is_htmx, text_response

_text = MessageTable(
    {
        "signed_out": gettext_lazy("You are signed out."),
        "signed_out_unsaved": gettext_lazy("You are signed out. Nothing was changed."),
    }
)


class SignInMiddleware(LoginRequiredMiddleware):
    """Django's, but htmx requests get a 401: a login page must not be swapped into a page.

    A form that was posted without a session gets a response that it had no effect, with a link to a
    page that asks for confirmation again: signing in never resubmits it.
    """

    def process_view(
        self, request: HttpRequest, view_func: Any, *arguments: Any
    ) -> HttpResponseBase | None:
        response: HttpResponseBase | None = super().process_view(request, view_func, *arguments)
        if response is None and getattr(view_func, "login_required", True):
            record_session_use(request)
        return response

    def handle_no_permission(  # type: ignore[override]  # the stubs allow redirects only
        self, request: HttpRequest, view_func: Any
    ) -> HttpResponseBase:
        is_unsafe = request.method not in SAFE_METHODS
        message = str(_text("signed_out_unsaved" if is_unsafe else "signed_out"))
        if is_htmx(request):
            return text_response(message, 401)
        if not is_unsafe:
            return super().handle_no_permission(request, view_func)
        messages.warning(request, message)
        return redirect_to_login(links.form_page_url(request))


def record_session_use(request: HttpRequest) -> None:
    """Record that the session of a signed-in user is used, unless their page asks by itself."""
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    # Who has just been signed in by the proxy may have sent any cookie.
    if is_session_key(session_key) and not (is_htmx(request) and request.method in SAFE_METHODS):
        sessions.record_use(session_key, now())


def signed_in_user(request: HttpRequest) -> User:
    """Return the signed-in user; for views that require a session only."""
    assert isinstance(request.user, User)  # noqa: S101 - ensured by SignInMiddleware
    return request.user
