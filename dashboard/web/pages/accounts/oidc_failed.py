"""The page of a failed sign-in through the identity provider: why, and what to do."""

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from dashboard.accounts.authentication import oidc_attempts
from dashboard.accounts.authentication.oidc_claims import OIDCFailure, Reason
from dashboard.db.threads import now
from dashboard.web.http.client_address import client_address


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
        gettext_lazy("Try again in a minute. If this continues, tell an administrator."),
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


def render_failure(request: HttpRequest, failure: OIDCFailure, next_url: str) -> HttpResponse:
    """Record a failure, and render the page; `next_url` is where a sign-in goes then."""
    oidc_attempts.record_failure(failure, now(), client_address(request))
    explanation = _EXPLANATIONS[failure.reason]
    response = render_explanation(request, next_url, explanation.reason, explanation.advice)
    response.status_code = explanation.status
    response._has_been_logged = True  # type: ignore[attr-defined]  # with the access log's event
    return response


def render_explanation(
    request: HttpRequest, next_url: str, reason: str | Promise, advice: str | Promise = ""
) -> HttpResponse:
    """Render the page with a reason; `next_url` is where a sign-in goes then."""
    template_context = {
        "reason": reason,
        "advice": advice,
        "sign_in_url": reverse("login", query={"next": next_url} if next_url else None),
    }
    return render(request, "pages/accounts/oidc_failed.html", template_context)
