"""Sign in through the identity provider (docs/sign-in.md)."""

from functools import partial

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from dashboard.accounts.authentication import oidc_attempts
from dashboard.accounts.authentication.oidc_claims import OIDCFailure
from dashboard.db.threads import now
from dashboard.web.http.authentication import known_browsers, oidc_adapter
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses import retry_later
from dashboard.web.pages.accounts.oidc_failed import render_explanation, render_failure
from dashboard.web.pages.accounts.oidc_forward import forward


@login_not_required
def oidc_sign_in(request: HttpRequest) -> HttpResponseBase:
    """Forward to the provider; other methods than POST get the sign-in page."""
    next_url = LoginView(request=request).get_redirect_url()
    if request.user.is_authenticated:
        return redirect(next_url or reverse("now"))
    if request.method != "POST":
        return redirect_to_login(next_url or reverse("now"))
    browser = known_browsers.browser_id(request)
    if wait := oidc_attempts.begin(client_address(request), browser, now()):
        return retry_later.refuse_throttled(partial(render_explanation, request, next_url), wait)
    try:
        return forward(request, oidc_adapter.authorization_url(request, next_url))
    except OIDCFailure as failure:
        return render_failure(request, failure, next_url)
