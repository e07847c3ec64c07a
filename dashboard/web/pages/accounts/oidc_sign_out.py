"""Sign out, and at the identity provider too (docs/sign-in.md)."""

from typing import Any

from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse

from dashboard.web.http.authentication import oidc_adapter
from dashboard.web.pages.accounts.oidc_forward import forward


class OIDCSignOutView(LogoutView):
    """Django's sign-out, continued at the provider if the session is from there."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        url = oidc_adapter.sign_out_url(request)
        response = super().post(request, *args, **kwargs)
        return forward(request, url) if url else response
