"""The provider's pages: those of django-oauth-toolkit, a sign-in, and the controls of tests."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider.models import Application
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauth2_provider.settings import oauth2_settings

from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET

# What tests have chosen: claims by user name, overridden claims of the ID token, and answers by the
# end of a path: a status, "hang", "drip", or the values of a JSON object.
state: dict[str, Any] = {"claims": {}, "id_token": {}, "answers": {}}


class Validator(OAuth2Validator):  # type: ignore[misc]
    """Issues the claims that a test has chosen."""

    oidc_claim_scope = None

    def get_additional_claims(self, request: Any) -> dict[str, Any]:
        claims: dict[str, Any] = state["claims"].get(request.user.username, {})
        return claims

    def get_id_token_dictionary(self, token: Any, token_handler: Any, request: Any) -> Any:
        claims, expires_at = super().get_id_token_dictionary(token, token_handler, request)
        return claims | state["id_token"], expires_at


def use_new_key() -> None:
    """Sign with a new key from now on; the key set contains only that."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    oauth2_settings.OIDC_RSA_PRIVATE_KEY = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def fail(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponseBase]:
    """Middleware: give the answer that a test has chosen for a path."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        for end, answer in state["answers"].items():
            if not request.path.endswith(end):
                continue
            if answer == "hang":
                threading.Event().wait()
            if answer == "drip":
                return StreamingHttpResponse(drip(), content_type="application/json")
            if isinstance(answer, dict):
                return JsonResponse(json.loads(get_response(request).content) | answer)
            return HttpResponse(f"status {answer}", status=answer)
        return get_response(request)

    return middleware


def drip() -> Iterator[str]:
    """Send a space now and then until the test ends the fault."""
    while state["answers"]:
        yield " "
        time.sleep(0.2)
    yield "{}"


def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in as anybody, by name."""
    if request.method == "POST":
        user, _ = User.objects.get_or_create(username=request.POST["username"])
        login(request, user)
        return redirect(request.GET["next"])
    return HttpResponse(
        '<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,">'
        '<form method="post">'
        f'<input name="csrfmiddlewaretoken" value="{get_token(request)}" hidden>'
        '<label>Name at the provider <input name="username"></label><button>Next</button></form>'
    )


def signed_in_name(request: HttpRequest) -> HttpResponse:
    """Tell who is signed in here."""
    return HttpResponse(f"signed in: {request.user.get_username() or 'nobody'}")


@csrf_exempt
def control(request: HttpRequest) -> HttpResponse:
    """Change the state, register the dashboard's address, or change the key."""
    changes = json.loads(request.body)
    if client := changes.pop("client", None):
        Application.objects.get_or_create(
            client_id=CLIENT_ID,
            defaults={
                "name": "Release flows",
                "client_secret": CLIENT_SECRET,
                "client_type": Application.CLIENT_CONFIDENTIAL,
                "authorization_grant_type": Application.GRANT_AUTHORIZATION_CODE,
                "algorithm": Application.RS256_ALGORITHM,
                "redirect_uris": f"{client}/accounts/oidc/callback/",
                "post_logout_redirect_uris": f"{client}/accounts/login/",
            },
        )
    if changes.pop("new_key", False):
        use_new_key()
    state.update(changes)
    return JsonResponse({})


urlpatterns = [
    path("control/", control),
    path("sign-in/", sign_in),
    path("name/", signed_in_name),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]
