"""Sign in and out through the OpenID provider (docs/sign-in.md).

The provider is reached by a page that forwards at once, not by the redirect of a form: browsers
apply `form-action` to all redirects after a form, and a provider may use hosts other than the
issuer's.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, LogoutView, redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from dashboard.accounts.authentication import oidc_attempts
from dashboard.accounts.authentication.oidc_claims import OIDCFailure, Reason
from dashboard.db.threads import now
from dashboard.web.http.authentication import known_browsers, oidc_adapter
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses import retry_later


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the page of a failed sign-in says, and its status."""

    status: int
    reason: str | Promise
    advice: str | Promise


_TRY_AGAIN = gettext_lazy("Sign in again. If that fails, tell an administrator.")
_TELL_ADMINISTRATOR = gettext_lazy("Tell an administrator. The access log has the details.")

_EXPLANATIONS = {
    Reason.DENIED: Explanation(
        403,
        gettext_lazy("The sign-in was declined at the identity provider."),
        gettext_lazy("Sign in again and accept, or ask an administrator for access."),
    ),
    Reason.STATE: Explanation(
        400,
        gettext_lazy("This sign-in has expired, was used before, or began in another browser."),
        gettext_lazy("Sign in again. Cookies must be allowed."),
    ),
    Reason.UNREACHABLE: Explanation(
        503,
        gettext_lazy("The identity provider does not answer."),
        gettext_lazy("Try again in a minute. If it lasts, tell an administrator."),
    ),
    Reason.PROVIDER: Explanation(
        502, gettext_lazy("The identity provider answered with an error."), _TRY_AGAIN
    ),
    Reason.DISCOVERY: Explanation(
        502,
        gettext_lazy("The identity provider’s discovery document is invalid."),
        gettext_lazy("Tell an administrator to check OIDC_ISSUER. The access log has the details."),
    ),
    Reason.CLOCK: Explanation(
        502,
        gettext_lazy("The clocks of the identity provider and of the dashboard differ."),
        gettext_lazy("Tell an administrator to set both clocks."),
    ),
    Reason.AUDIENCE: Explanation(
        502,
        gettext_lazy("The identity provider’s answer is for another application."),
        gettext_lazy("Tell an administrator to check OIDC_CLIENT_ID."),
    ),
    Reason.ISSUER: Explanation(
        502,
        gettext_lazy("The answer is from another identity provider."),
        gettext_lazy("Tell an administrator to check OIDC_ISSUER."),
    ),
    Reason.SIGNATURE: Explanation(
        502,
        gettext_lazy("The answer is not signed with a key of the identity provider."),
        _TRY_AGAIN,
    ),
    Reason.NONCE: Explanation(
        400, gettext_lazy("The identity provider’s answer belongs to another sign-in."), _TRY_AGAIN
    ),
    Reason.TOKEN: Explanation(
        502, gettext_lazy("The identity provider’s answer is invalid."), _TELL_ADMINISTRATOR
    ),
    Reason.DOMAIN: Explanation(
        403,
        gettext_lazy("You have no verified e-mail address of a domain that may sign in."),
        gettext_lazy("Verify your address at the identity provider, or sign in as somebody else."),
    ),
    Reason.INACTIVE: Explanation(
        403,
        gettext_lazy("Your account is inactive."),
        gettext_lazy("Ask an administrator to activate it."),
    ),
    Reason.RESERVED: Explanation(
        403,
        gettext_lazy("Your account here is the break-glass account."),
        gettext_lazy("Ask an administrator to name another account in BREAK_GLASS_ACCOUNT."),
    ),
}


@login_not_required
@never_cache
def sign_in(request: HttpRequest) -> HttpResponseBase:
    """Forward to the provider; other methods than POST get the sign-in page."""
    next_url = LoginView(request=request).get_redirect_url()
    if request.user.is_authenticated:
        return redirect(next_url or reverse("now"))
    if request.method != "POST":
        return redirect_to_login(next_url or reverse("now"))
    browser = known_browsers.browser_id(request)
    if wait := oidc_attempts.begin(client_address(request), browser, now()):
        return retry_later.refuse_throttled(partial(_render_explanation, request, next_url), wait)
    try:
        return _forward(request, oidc_adapter.authorization_url(request, next_url))
    except OIDCFailure as failure:
        return _render_failure(request, failure, next_url)


@login_not_required
@never_cache
@require_GET
def callback(request: HttpRequest) -> HttpResponse:
    """Sign in the user whom the provider sends back, and redirect to the page they asked for."""
    next_url = oidc_adapter.pending_url(request)
    try:
        response = oidc_adapter.complete(request)
    except OIDCFailure as failure:
        return _render_failure(request, failure, next_url)
    known_browsers.remember(request, response, request.user.get_username())
    return response


class ProviderSignOutView(LogoutView):
    """Django's sign-out, continued at the provider if the session is from there."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        url = oidc_adapter.sign_out_url(request)
        response = super().post(request, *args, **kwargs)
        return _forward(request, url) if url else response


def _forward(request: HttpRequest, url: str) -> HttpResponse:
    host = urlsplit(settings.OIDC_ISSUER).netloc
    return render(request, "pages/accounts/oidc_forward.html", {"url": url, "host": host})


def _render_failure(request: HttpRequest, failure: OIDCFailure, next_url: str) -> HttpResponse:
    oidc_attempts.record_failure(failure, now(), client_address(request))
    explanation = _EXPLANATIONS[failure.reason]
    response = _render_explanation(request, next_url, explanation.reason, explanation.advice)
    response.status_code = explanation.status
    response._has_been_logged = True  # type: ignore[attr-defined]  # with the access log's event
    return response


def _render_explanation(
    request: HttpRequest, next_url: str, reason: str | Promise, advice: str | Promise = ""
) -> HttpResponse:
    template_context = {
        "reason": reason,
        "advice": advice,
        "sign_in_url": reverse("login", query={"next": next_url} if next_url else None),
    }
    return render(request, "pages/accounts/oidc_failed.html", template_context)
