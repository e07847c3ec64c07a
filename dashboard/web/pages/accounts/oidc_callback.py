"""Where the identity provider sends the browser back to: end the sign-in (docs/sign-in.md)."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from dashboard.accounts.authentication.oidc_claims import OIDCFailure
from dashboard.web.http.authentication import known_browsers, oidc_adapter
from dashboard.web.pages.accounts.oidc_failed import render_failure


@login_not_required
@require_GET
def oidc_callback(request: HttpRequest) -> HttpResponse:
    """Sign in the user whom the provider sends back, and redirect to the page they asked for."""
    next_url = oidc_adapter.pending_url(request)
    try:
        response = oidc_adapter.complete(request)
    except OIDCFailure as failure:
        return render_failure(request, failure, next_url)
    known_browsers.remember(request, response, request.user.get_username())
    return response
