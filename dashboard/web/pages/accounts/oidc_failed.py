"""The page of a failed sign-in through the identity provider: why, and what to do."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy

from dashboard.accounts import access_log
from dashboard.accounts.authentication import throttle
from dashboard.accounts.authentication.oidc_account import SOURCE
from dashboard.accounts.authentication.oidc_claims import OIDCFailure, Reason
from dashboard.accounts.authentication.throttle import Counter
from dashboard.db.threads import now
from dashboard.models.accounts.access import AccessKind
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.http.client_address import client_address

_text = MessageTable(
    {
        # Why.
        "denied": gettext_lazy("The sign-in was declined at the identity provider."),
        "state": gettext_lazy(
            "This sign-in has expired, was used before, or began in another browser."
        ),
        "unreachable": gettext_lazy("The identity provider does not respond."),
        "provider": gettext_lazy("The identity provider responded with an error."),
        "invalid": gettext_lazy("The identity provider’s response is invalid."),
        "domain": gettext_lazy("You have no verified e-mail address of a domain that may sign in."),
        "inactive": gettext_lazy("Your account is inactive."),
        "reserved": gettext_lazy("Your account here is the break-glass account."),
        # What to do.
        "accept": gettext_lazy("Sign in again and accept, or ask an administrator for access."),
        "allow_cookies": gettext_lazy("Sign in again. Cookies must be allowed."),
        "wait": gettext_lazy("Try again in a minute. If this continues, tell an administrator."),
        "retry": gettext_lazy("Sign in again. If that fails, tell an administrator."),
        "tell": gettext_lazy("Tell an administrator. The access log has the details."),
        "verify_address": gettext_lazy(
            "Verify your address at the identity provider, or sign out there to switch accounts."
        ),
        "activate": gettext_lazy("Ask an administrator to activate it."),
        "name_another": gettext_lazy(
            "Ask an administrator to name another account in BREAK_GLASS_ACCOUNT."
        ),
    }
)
# The status of the page, why, and what to do.
_ANSWERS = {
    Reason.DENIED: (403, "denied", "accept"),
    Reason.STATE: (400, "state", "allow_cookies"),
    Reason.UNREACHABLE: (503, "unreachable", "wait"),
    Reason.PROVIDER: (502, "provider", "retry"),
    Reason.DOMAIN: (403, "domain", "verify_address"),
    Reason.INACTIVE: (403, "inactive", "activate"),
    Reason.RESERVED: (403, "reserved", "name_another"),
}
_INVALID = (502, "invalid", "tell")  # only the administrator can do something about it


def render_failure(request: HttpRequest, failure: OIDCFailure, next_url: str) -> HttpResponse:
    """Record a failure unless there were many from this address, and render the page."""
    at, address = now(), client_address(request)
    counters = [Counter(throttle.OIDC_FAILURES, throttle.network(address))]
    if not throttle.remaining_wait(counters, at):
        throttle.count(counters, at)
        access_log.record(
            AccessKind.SIGN_IN_FAILED,
            at,
            user=failure.user,
            client_address=address,
            detail=f"{SOURCE}: {failure}",
        )
    status, reason, advice = _ANSWERS.get(failure.reason, _INVALID)
    response = render_explanation(request, next_url, _text(reason), _text(advice))
    response.status_code = status
    response._has_been_logged = True  # type: ignore[attr-defined]  # with the access log's event
    return response


def render_explanation(
    request: HttpRequest, next_url: str, reason: Message | str, advice: Message | str = ""
) -> HttpResponse:
    """Render the page with a reason; `next_url` is where a sign-in goes then."""
    template_context = {
        "reason": reason,
        "advice": advice,
        "sign_in_url": reverse("login", query={"next": next_url} if next_url else None),
    }
    return render(request, "pages/accounts/oidc_failed.html", template_context)
