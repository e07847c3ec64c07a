"""Signing out, at the identity provider or the proxy too."""

from typing import Any

from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from dashboard.accounts.authentication import auth_proxy


class SignOutView(LogoutView):
    """Django's, which redirects to the sign-in page.

    It is continued at the provider if the session is from there. Users whom the proxy has signed in
    learn that it would do so again.
    """

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        url = ""
        if settings.OIDC_ISSUER:
            from dashboard.web.http.authentication import oidc_adapter  # installed only then
            from dashboard.web.pages.accounts.oidc_sign_in import forward

            url = oidc_adapter.sign_out_url(request)
        response = super().post(request, *args, **kwargs)
        if url:
            return forward(request, url)
        if auth_proxy.user_of(request) is None:
            return response
        # Not a redirect: any page would begin a new session.
        context = {"sign_out_url": settings.AUTH_PROXY_SIGN_OUT_URL}
        return render(request, "pages/accounts/sign_out.html", context)
