"""Requests to the OpenID provider, and the verification of what it answers.

Nothing is cached: a sign-in takes five short requests, and a changed key or address counts at once.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import jwt
import requests
from django.conf import settings

from dashboard.accounts.authentication.oidc_claims import Claims, OIDCFailure, Reason

TIMEOUT = (3, 5)  # seconds to connect, and between two parts of an answer
LEEWAY = 60  # seconds by which clocks may differ
# Signed with the provider's private key. HS256 would be signed with our own secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
REQUIRED_CLAIMS = ["iss", "sub", "aud", "exp", "iat"]
MAX_SUBJECT_LENGTH = 191  # of allauth's column; the standard allows 255, which nobody uses
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_FAILURES: list[tuple[tuple[type[jwt.PyJWTError], ...], Reason]] = [
    ((jwt.ExpiredSignatureError, jwt.ImmatureSignatureError), Reason.CLOCK),
    ((jwt.InvalidAudienceError,), Reason.AUDIENCE),
    ((jwt.InvalidIssuerError,), Reason.ISSUER),
    ((jwt.InvalidSignatureError, jwt.PyJWKSetError), Reason.SIGNATURE),
]


class ProviderClient(requests.Session):
    """Sends requests whose answer is a JSON object; raises OIDCFailure for any other answer."""

    def request(  # type: ignore[override]  # as it is called
        self, method: str, url: str, **options: Any
    ) -> requests.Response:
        endpoint = f"{method} {url.partition('?')[0]}"
        # The file of certificates that requests to Northflank use, too.
        options |= {"timeout": TIMEOUT, "verify": settings.SSL_CERT_FILE or True}
        options["allow_redirects"] = False  # one would send the client secret elsewhere
        try:
            response = super().request(method, url, **options)
        except requests.RequestException as error:
            raise OIDCFailure(Reason.UNREACHABLE, f"{endpoint}: {type(error).__name__}.") from error
        try:
            answer = response.json()
            json.dumps(answer, ensure_ascii=False).encode()  # fails for half a surrogate pair
        except (ValueError, RecursionError):  # also for a number or nesting beyond Python's limits
            answer = None
        if response.status_code != 200 or not isinstance(answer, dict):
            code = answer.get("error") if isinstance(answer, dict) else "no JSON object"
            raise OIDCFailure(
                Reason.PROVIDER, f"{endpoint}: {response.status_code}, {error_code(code)}."
            )
        response.headers["Content-Type"] = "application/json"  # whatever it was called
        return response

    def get_json(self, url: str, **options: Any) -> dict[str, Any]:
        """Return the JSON object at a URL."""
        answer: dict[str, Any] = self.request("GET", url, **options).json()
        return answer


def error_code(code: object) -> str:
    """Return an error code of OAuth 2.0 in a form that is safe to log."""
    return (
        code if isinstance(code, str) and re.fullmatch(r"[\w .-]{1,64}", code) else "no error code"
    )


def load_configuration() -> dict[str, Any]:
    """Return the discovery document; raise OIDCFailure if it cannot be read or is not usable."""
    issuer = settings.OIDC_ISSUER
    try:
        with ProviderClient() as client:
            document = client.get_json(f"{issuer}/.well-known/openid-configuration")
    except OIDCFailure as failure:
        if failure.reason is Reason.PROVIDER:
            raise OIDCFailure(Reason.DISCOVERY, str(failure)) from failure
        raise
    if str(document.get("issuer")).rstrip("/") != issuer:
        raise OIDCFailure(Reason.DISCOVERY, "It names another issuer than OIDC_ISSUER.")
    for name in _ENDPOINTS:
        if not _is_endpoint(document.get(name)):
            raise OIDCFailure(Reason.DISCOVERY, f"It has no valid {name}.")
    for name in ("userinfo_endpoint", "end_session_endpoint"):  # optional
        if not _is_endpoint(document.get(name)):
            document[name] = ""
    methods = document.get("token_endpoint_auth_methods_supported")
    if not isinstance(methods, list):  # then the standard's default; without a secret none
        methods = ["client_secret_basic" if settings.OIDC_CLIENT_SECRET else "client_secret_post"]
    document["token_endpoint_auth_methods_supported"] = methods
    return document


def _is_endpoint(url: object) -> bool:
    # With https for the issuer, nothing is sent without it.
    schemes = {"https", urlsplit(settings.OIDC_ISSUER).scheme}
    try:
        return isinstance(url, str) and urlsplit(url).scheme in schemes and "#" not in url
    except ValueError:
        return False


def load_claims(configuration: Mapping[str, Any], id_token: object, access_token: str) -> Claims:
    """Return the claims of a verified ID token and of the userinfo endpoint, if there is one.

    Raise OIDCFailure if one cannot be read or verified. The nonce is not checked here.
    """
    with ProviderClient() as client:
        keys = client.get_json(configuration["jwks_uri"])
        verified = _verify(id_token, keys, configuration["issuer"])
        userinfo: dict[str, Any] = {}
        if url := configuration["userinfo_endpoint"]:
            headers = {"Authorization": f"Bearer {access_token}".encode()}
            userinfo = client.get_json(url, headers=headers)
            if userinfo.get("sub") != verified["sub"]:
                raise OIDCFailure(Reason.TOKEN, "The userinfo is about another subject.")
    return Claims(verified, userinfo)


def _verify(id_token: object, keys: dict[str, Any], issuer: str) -> dict[str, Any]:
    if not isinstance(id_token, str):
        raise OIDCFailure(Reason.TOKEN, "The token endpoint returned none.")
    try:
        key_id = jwt.get_unverified_header(id_token).get("kid")
        found = [
            key
            for key in jwt.PyJWKSet.from_dict(keys).keys
            if key.public_key_use in (None, "sig") and key_id in (None, key.key_id)
        ]
        if len(found) != 1:
            raise OIDCFailure(Reason.SIGNATURE, f"{len(found)} keys match.")
        claims: dict[str, Any] = jwt.decode(
            id_token,
            found[0],
            algorithms=ALGORITHMS,
            audience=settings.OIDC_CLIENT_ID,
            issuer=issuer,
            leeway=LEEWAY,
            options={"require": REQUIRED_CLAIMS},
        )
    except jwt.PyJWTError as error:
        for errors, reason in _FAILURES:
            if isinstance(error, errors):
                raise OIDCFailure(reason) from error
        raise OIDCFailure(Reason.TOKEN, f"{type(error).__name__}.") from error
    if claims.get("azp", settings.OIDC_CLIENT_ID) != settings.OIDC_CLIENT_ID:
        raise OIDCFailure(Reason.AUDIENCE)
    subject = claims["sub"]
    if not (subject and subject.isprintable() and len(subject) <= MAX_SUBJECT_LENGTH):
        raise OIDCFailure(Reason.TOKEN, "The subject is empty, too long or not printable.")
    return claims
