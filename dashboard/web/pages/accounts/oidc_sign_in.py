"""Sign in through the identity provider: go there, and come back (docs/run/sign-in.md)."""

from functools import partial
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET

from dashboard.accounts.authentication import throttle
from dashboard.accounts.authentication.oidc_claims import OIDCFailure
from dashboard.accounts.authentication.throttle import Counter
from dashboard.db.threads import now
from dashboard.web.http.authentication import oidc_adapter
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses import retry_later
from dashboard.web.pages.accounts.oidc_failed import render_explanation, render_failure


@login_not_required
def oidc_sign_in(request: HttpRequest) -> HttpResponseBase:
    """Forward to the provider; other methods than POST get the sign-in page."""
    next_url = LoginView(request=request).get_redirect_url()
    if request.user.is_authenticated:
        return redirect(next_url or reverse("now"))
    if request.method != "POST":
        return redirect_to_login(next_url or reverse("now"))
    # Each attempt counts, so that strangers can neither flood the provider through us nor fill the
    # table of sessions.
    counters = [Counter(throttle.OIDC_ATTEMPTS, throttle.network(client_address(request)))]
    if wait := throttle.remaining_wait(counters, now()):
        return retry_later.refuse_throttled(partial(render_explanation, request, next_url), wait)
    throttle.count(counters, now())
    try:
        return forward(request, oidc_adapter.authorization_url(request, next_url))
    except OIDCFailure as failure:
        return render_failure(request, failure, next_url)


@login_not_required
@require_GET
def oidc_callback(request: HttpRequest) -> HttpResponse:
    """Sign in the user whom the provider sends back, and redirect to the page they asked for."""
    try:
        return oidc_adapter.complete(request)
    except OIDCFailure as failure:
        return render_failure(request, failure, failure.next_url)


def forward(request: HttpRequest, url: str) -> HttpResponse:
    """Render the page that forwards to an address of the provider at once.

    By a page, not by the redirect of a form: browsers apply `form-action` to all redirects after a
    form, and a provider may use hosts other than the issuer's.
    """
    host = urlsplit(settings.OIDC_ISSUER).netloc
    return render(request, "pages/accounts/oidc_sign_in.html", {"url": url, "host": host})
