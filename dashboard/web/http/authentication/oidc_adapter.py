"""django-allauth's flow of OpenID Connect, with our provider, rules and failures.

Of allauth we use the state, PKCE, the exchange of the code, and the table of accounts by issuer and
subject. Its sign-up, its e-mail addresses and its pages are not reachable: `pre_social_login` ends
the flow before them.
"""

import secrets
from typing import Any, Never

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.base import AuthError, AuthProcess
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.http import urlencode

from dashboard.accounts.authentication import oidc_account, oidc_provider
from dashboard.accounts.authentication.oidc_claims import OIDCFailure, Reason
from dashboard.db.threads import now
from dashboard.web.http import links
from dashboard.web.http.client_address import client_address

STATE_MAX_AGE = 600  # seconds for which allauth keeps the state of an attempt
MAX_ID_TOKEN_LENGTH = 4096  # of one that is kept for the sign-out, as part of an address
_SESSION_KEY = "oidc"
_BACKEND = f"{oidc_account.__name__}.{oidc_account.OIDCBackend.__name__}"


class ProviderAdapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]  # allauth has no types
    """allauth's requests to the provider, all answers verified."""

    @cached_property
    def openid_config(self) -> dict[str, Any]:
        return oidc_provider.load_configuration()

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        return absolute_url(request, "oidc_callback")

    def parse_token(self, data: dict[str, Any]) -> SocialToken:
        return SocialToken(token=str(data["access_token"]))  # used once, and not stored

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> SocialLogin:
        """Return the user's claims, for `pre_social_login`."""
        id_token = kwargs["response"].get("id_token")
        claims = oidc_provider.load_claims(self.openid_config, id_token, token.token)
        sociallogin = SocialLogin(
            account=SocialAccount(provider=settings.OIDC_ISSUER, uid=claims.subject)
        )
        sociallogin.claims = claims  # used now, and not stored
        sociallogin.session_data = {  # for the sign-out
            "end_session_endpoint": self.openid_config["end_session_endpoint"],
            "id_token": id_token if len(id_token) <= MAX_ID_TOKEN_LENGTH else "",
        }
        return sociallogin


class Provider(OpenIDConnectProvider):  # type: ignore[misc]
    """The provider of the settings."""

    oauth2_adapter_class = ProviderAdapter


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """What allauth calls for the provider, for requests, after a sign-in and after a failure."""

    def get_provider(
        self, request: HttpRequest, provider: str, client_id: str | None = None
    ) -> Provider:
        app = SocialApp(
            provider=Provider.id,
            provider_id=settings.OIDC_ISSUER,  # so another issuer's subjects open other accounts
            name=settings.OIDC_ISSUER,
            client_id=settings.OIDC_CLIENT_ID,
            secret=settings.OIDC_CLIENT_SECRET,
            settings={"oauth_pkce_enabled": True, "scope": settings.OIDC_SCOPES},
        )
        return Provider(request, app=app)

    def get_requests_session(self) -> oidc_provider.ProviderClient:
        return oidc_provider.ProviderClient()

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> Never:
        """Sign the user in, and end allauth's flow with the redirect to where they came from."""
        claims, state = sociallogin.claims, sociallogin.state
        if claims.id_token.get("nonce") != state["nonce"]:
            raise OIDCFailure(Reason.NONCE)
        user = oidc_account.identify(claims, now(), client_address(request))
        login(request, user, backend=_BACKEND)
        request.session[_SESSION_KEY] = sociallogin.session_data
        raise ImmediateHttpResponse(redirect(state.get("next") or reverse("now")))

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Provider,
        error: str | None = None,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> Never:
        """Raise OIDCFailure: the view renders the page."""
        state = (extra_context or {}).get("state")
        if state is None:
            raise OIDCFailure(Reason.STATE)
        if isinstance(exception, OIDCFailure):
            failure = exception
        elif error == AuthError.CANCELLED:
            failure = OIDCFailure(Reason.DENIED)
        else:
            code = oidc_provider.error_code(request.GET.get("error"))
            failure = OIDCFailure(Reason.PROVIDER, f"Sign-in: {code}.")
        failure.next_url = state.get("next") or ""
        raise failure


def authorization_url(request: HttpRequest, next_url: str) -> str:
    """Begin an attempt; return the provider's address to which the browser is to go.

    Raise OIDCFailure if the provider's endpoints cannot be read.
    """
    nonce = secrets.token_urlsafe(32)
    request.session.set_expiry(STATE_MAX_AGE)  # strangers can begin any number
    response = (
        SocialAccountAdapter(request)
        .get_provider(request, settings.OIDC_ISSUER)
        .redirect(
            request,
            process=AuthProcess.LOGIN,
            next_url=next_url,
            nonce=nonce,
            auth_params={"nonce": nonce},
        )
    )
    return _merge_queries(response.url)


def complete(request: HttpRequest) -> HttpResponse:
    """Sign in the user whom the provider has sent back; return the redirect to their page.

    Raise OIDCFailure if they are not signed in.
    """
    response: HttpResponse = OAuth2CallbackView.adapter_view(
        ProviderAdapter(request, settings.OIDC_ISSUER)
    )(request)
    return response


def sign_out_url(request: HttpRequest) -> str:
    """Return where to sign out at the provider; empty if this session is not from it."""
    data = request.session.get(_SESSION_KEY)
    if not data or not data["end_session_endpoint"]:
        return ""
    parameters = {
        "client_id": settings.OIDC_CLIENT_ID,
        "post_logout_redirect_uri": absolute_url(request, "login"),
        **({"id_token_hint": data["id_token"]} if data["id_token"] else {}),
    }
    return _merge_queries(f"{data['end_session_endpoint']}?{urlencode(parameters)}")


def _merge_queries(url: str) -> str:
    # An endpoint may have a query of its own. In ours a question mark is escaped.
    address, _, query = url.partition("?")
    return f"{address}?{query.replace('?', '&')}"


def absolute_url(request: HttpRequest, name: str) -> str:
    """Return the absolute URL of one of our addresses, as registered with the provider."""
    return request.build_absolute_uri(links.absolute_url(reverse(name)))
