"""Everything needs a session; who has none comes back to the very page after signing in."""

import contextlib
from typing import Any

from django.contrib import messages
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import Resolver404, resolve, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.csrf import csrf_failure

from dashboard.web.http.htmx import is_htmx, text_response

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class SignInMiddleware(LoginRequiredMiddleware):
    """Django's, but a fragment's request is answered 401: a login page must not be swapped in.

    Whoever sent a form is told that nothing was done, and led to a page that asks again: signing in
    never repeats what was sent.
    """

    def handle_no_permission(  # type: ignore[override]  # the stubs allow redirects only
        self, request: HttpRequest, view_func: Any
    ) -> HttpResponseBase:
        is_unsafe = request.method not in _SAFE_METHODS
        message = (
            _("You are signed out. Nothing was changed.") if is_unsafe else _("You are signed out.")
        )
        if is_htmx(request):
            return text_response(message, 401)
        if not is_unsafe:
            return super().handle_no_permission(request, view_func)
        messages.warning(request, message)
        return redirect_to_login(return_url(request))


def return_url(request: HttpRequest) -> str:
    """Return the page that a form was about: that of a run, or the first for all others."""
    match = request.resolver_match
    if match is None:  # answered before its view was looked for
        with contextlib.suppress(Resolver404):
            match = resolve(request.path_info)
    if match is not None and match.url_name in {"abort", "dismiss"}:
        return reverse("run", kwargs=match.kwargs)
    if match is not None and match.url_name == "run_lookup_retry":
        return reverse("run_lookup", kwargs=match.kwargs)
    return reverse("now")


class SignInForm(AuthenticationForm):
    """Django's form with a shorter error."""

    error_messages = AuthenticationForm.error_messages | {
        "invalid_login": gettext_lazy("Wrong user name or password.")
    }


class SignInView(LoginView):
    """Django's sign-in page; who is signed in already is led on."""

    authentication_form = SignInForm
    template_name = "pages/sign_in.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        template_context = super().get_context_data(**kwargs)
        del template_context["site"]  # Django's, which would hide ours
        return template_context

    def get_redirect_url(self, request: HttpRequest | None = None) -> str:
        url: str = super().get_redirect_url(request)
        return "" if url == self.request.path else url  # round and round


def handle_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    """Answer a form without its proof that it came from here; the sign-in form is asked anew.

    Who opened several links while signed out has several sign-in pages, and signing in on one of
    them makes the others' forms worthless: there it leads on, wherever that page would have led.
    """
    if request.path == reverse("login"):
        return redirect(request.get_full_path())
    return csrf_failure(request, reason, template_name="errors/403_csrf.html")


def signed_in_user(request: HttpRequest) -> User:
    """Return who asks; only for what needs a session."""
    assert isinstance(request.user, User)  # noqa: S101 - the middleware has seen to it
    return request.user
