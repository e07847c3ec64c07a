"""Signing out: users whom the proxy has signed in learn that it would do so again."""

from typing import Any

from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from dashboard.accounts.authentication import auth_proxy


class SignOutView(LogoutView):
    """Django's, which redirects to the sign-in page; the proxy's users get a page of their own."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().post(request, *args, **kwargs)
        if auth_proxy.user_of(request) is None:
            return response
        # Not a redirect: any page would begin a new session.
        context = {"sign_out_url": settings.AUTH_PROXY_SIGN_OUT_URL}
        return render(request, "pages/accounts/sign_out.html", context)
