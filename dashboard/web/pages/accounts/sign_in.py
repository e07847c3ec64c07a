"""The sign-in page: check a user name and password, and return to the page that was asked for."""

from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy
from django.views.csrf import csrf_failure

from dashboard.accounts.authentication import auth_proxy, sign_in
from dashboard.accounts.authentication.sign_in import Attempt
from dashboard.config.logging import cut_value
from dashboard.web.http.authentication import password_checks
from dashboard.web.http.client_address import client_address

log = structlog.get_logger(__name__)


class SignInForm(AuthenticationForm):
    """Django's form without the check of the password, which waits for its turn (SignInView)."""

    error_messages = AuthenticationForm.error_messages | {
        "invalid_login": gettext_lazy("Wrong user name or password.")
    }

    def clean(self) -> dict[str, Any]:
        return self.cleaned_data


class SignInView(LoginView):
    """Django's sign-in page; the password is checked in a queue that holds up no page.

    A wrong password gets 200 and the form. A throttled attempt gets 429, and one that finds the
    queue full 503, both with Retry-After and the same in words. Users who are signed in are
    redirected.
    """

    authentication_form = SignInForm
    template_name = "pages/accounts/sign_in.html"
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Queue the check of the password; the response waits for it without a thread."""
        attempt = Attempt(form.cleaned_data["username"], client_address(self.request))
        password = form.cleaned_data["password"]
        return password_checks.check_attempt(
            attempt,
            partial(sign_in.check_password, self.request, attempt, password),
            then=self._sign_in,
            wrong=lambda: self._refuse(form, form.get_invalid_login_error()),
            render=partial(self._refuse, form),
        )

    def _sign_in(self, user: User) -> HttpResponse:
        login(self.request, user)
        response = HttpResponseRedirect(self.get_success_url())
        password_checks.save_session(self.request, response)
        return response

    def _refuse(self, form: AuthenticationForm, error: str | ValidationError) -> HttpResponse:
        form.add_error(None, error)
        # Django renders the response of a view, but not that of a deferred one.
        return cast("TemplateResponse", self.form_invalid(form)).render()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        template_context = super().get_context_data(**kwargs)
        del template_context["site"]  # Django's `site`, which would hide ours
        is_emergency = "emergency" in self.request.GET and bool(settings.BREAK_GLASS_ACCOUNT)
        is_submitted = template_context["form"].is_bound
        has_form = settings.PASSWORD_SIGN_IN or is_emergency or is_submitted
        has_link = settings.BREAK_GLASS_ACCOUNT and not has_form
        parameters = {"emergency": "1", "next": self.get_redirect_url()}
        provider = {}
        if settings.OIDC_ISSUER:
            query = {"next": next_url} if (next_url := self.get_redirect_url()) else None
            url = reverse("oidc_sign_in", query=query)
            provider = {"host": urlsplit(settings.OIDC_ISSUER).netloc, "url": url}
        return template_context | {
            "is_emergency": is_emergency,
            "has_form": has_form,
            "emergency_url": reverse("login", query=parameters) if has_link else "",
            "has_proxy": bool(settings.AUTH_PROXY_HEADER),
            "provider": provider,
        }

    def get_redirect_url(self, request: HttpRequest | None = None) -> str:
        url: str = super().get_redirect_url(request)
        return "" if url == self.request.path else url  # else a redirect loop


def handle_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return a 403 for a failed CSRF check: for the sign-in form this page, with a new form.

    A user who opened several links while signed out has several sign-in pages, and signing in on
    one invalidates the CSRF tokens of the others. Whoever is signed in is therefore redirected to
    the page's `next`.
    """
    match = request.resolver_match
    if match is None or match.view_name not in {"login", "oidc_sign_in"}:
        return csrf_failure(request, reason, template_name="errors/403_csrf.html")
    # By the proxy's header somebody is signed in at the next page view.
    if request.user.is_authenticated or auth_proxy.user_of(request) is not None:
        return redirect(reverse("login", query=request.GET))
    why = cut_value(reason)  # it contains the header Origin
    log.warning("sign_in.form_refused", why=why, client_address=client_address(request))
    # None at the page's own address: with one, the browser drops the fragment of an alert's link.
    form_url = "" if match.view_name == "login" else reverse("login", query=request.GET)
    view = SignInView()
    view.setup(request)
    template_context = view.get_context_data(
        form=SignInForm(request), has_expired=True, form_url=form_url
    )
    response = render(request, view.template_name, template_context, status=403)
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response
