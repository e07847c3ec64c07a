"""System checks of the settings for signing in; see config/checks.py."""

import re
import unicodedata
from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error

from dashboard.config.web_addresses import is_web_address, quote_address

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_DOMAIN = re.compile(r"[\w-]+(\.[\w-]+)+")


def check_sign_in() -> Iterator[CheckMessage]:
    """Yield an error or warning for each invalid setting."""
    yield from _auth_proxy()
    yield from _oidc()
    yield from _sign_in()


def _auth_proxy() -> Iterator[CheckMessage]:
    header, groups_header = settings.AUTH_PROXY_HEADER, settings.AUTH_PROXY_GROUPS_HEADER
    for name in ("AUTH_PROXY_HEADER", "AUTH_PROXY_GROUPS_HEADER"):
        text = getattr(settings, name)
        if text and not _HEADER.fullmatch(text):
            yield Error(
                f"{name} is not a valid header name: {text!r}.",
                hint="Set a name of letters, digits and hyphens, such as X-Forwarded-User.",
                id="dashboard.E030",
            )
    if header and header.lower() == groups_header.lower():
        yield Error(
            "AUTH_PROXY_GROUPS_HEADER is the same as AUTH_PROXY_HEADER.",
            hint="Set the header with the user's groups, such as X-Forwarded-Groups.",
            id="dashboard.E030",
        )
    dependent = {
        "AUTH_PROXY_GROUPS_HEADER": header,
        "AUTH_PROXY_TRUSTED": header,
        "AUTH_PROXY_SIGN_OUT_URL": header,
        "AUTH_PROXY_GROUP_MAP": groups_header,
    }
    for name, required in dependent.items():
        if getattr(settings, name) and not required:
            yield Error(
                f"{name} is set, but nothing uses it.",
                hint="Set AUTH_PROXY_HEADER, and AUTH_PROXY_GROUPS_HEADER for groups.",
                id="dashboard.E031",
            )
    if header and not settings.AUTH_PROXY_TRUSTED:
        yield Error(
            "AUTH_PROXY_HEADER is set without AUTH_PROXY_TRUSTED: anybody could send it.",
            hint="Set the address of the proxy, as the dashboard sees it, such as 127.0.0.1.",
            id="dashboard.E032",
        )
    for text in settings.AUTH_PROXY_TRUSTED:
        if not _is_network(text):
            yield Error(
                f"AUTH_PROXY_TRUSTED contains an invalid address: {text!r}.",
                hint="Set addresses or networks, such as 127.0.0.1,10.1.0.0/16; not all of them.",
                id="dashboard.E033",
            )
    sign_out_url = settings.AUTH_PROXY_SIGN_OUT_URL
    is_path = re.fullmatch(r"/([^/\\\s][^\\\s]*)?", sign_out_url)
    if sign_out_url and not is_path and not is_web_address(sign_out_url):
        yield Error(
            f"AUTH_PROXY_SIGN_OUT_URL is not a valid address: {quote_address(sign_out_url)}.",
            hint="Set a URL, or a path of the proxy, such as /oauth2/sign_out.",
            id="dashboard.E034",
        )


def _oidc() -> Iterator[CheckMessage]:
    issuer = settings.OIDC_ISSUER
    if not issuer:
        return
    if not _is_issuer(issuer):
        yield Error(
            f"OIDC_ISSUER is not a valid issuer: {quote_address(issuer)}.",
            hint="Set the provider’s https:// URL without query, up to 200 characters, such as "
            "https://id.example.com. http:// is accepted for this machine only.",
            id="dashboard.E020",
        )
    if not settings.OIDC_CLIENT_ID:
        yield Error(
            "OIDC_ISSUER is set, but OIDC_CLIENT_ID is not.",
            hint="Register the dashboard as a client of the provider, and set the id it got.",
            id="dashboard.E021",
        )
    if "openid" not in settings.OIDC_SCOPES:
        yield Error(
            "OIDC_SCOPES does not contain openid.",
            hint="Set scopes separated by spaces, such as openid profile email.",
            id="dashboard.E022",
        )
    for domain in settings.OIDC_ALLOWED_DOMAINS:
        if not _DOMAIN.fullmatch(domain):
            yield Error(
                f"OIDC_ALLOWED_DOMAINS contains an invalid domain: {domain!r}.",
                hint="Set domains without @, separated by commas, such as example.com.",
                id="dashboard.E023",
            )
    if settings.OIDC_GROUP_MAP and not settings.OIDC_GROUPS_CLAIM:
        yield Error(
            "OIDC_GROUP_MAP is set, but OIDC_GROUPS_CLAIM is not.",
            hint="Set the claim that lists the groups, such as groups, or remove the map.",
            id="dashboard.E024",
        )


def _sign_in() -> Iterator[CheckMessage]:
    header, oidc_issuer = settings.AUTH_PROXY_HEADER, settings.OIDC_ISSUER
    if header and oidc_issuer:
        yield Error(
            "Both AUTH_PROXY_HEADER and OIDC_ISSUER are set.",
            hint="Set one of them: only one can decide who a user is, and their groups.",
            id="dashboard.E035",
        )
    if not settings.PASSWORD_SIGN_IN and not header and not oidc_issuer:
        yield Error(
            "PASSWORD_SIGN_IN=false leaves no way to sign in.",
            hint="Set OIDC_ISSUER or AUTH_PROXY_HEADER, or PASSWORD_SIGN_IN=true.",
            id="dashboard.E036",
        )
    account = settings.BREAK_GLASS_ACCOUNT
    if account and not _is_username(account):
        yield Error(
            f"BREAK_GLASS_ACCOUNT is not a valid user name: {account!r}.",
            hint="Set the name of one account, such as break-glass.",
            id="dashboard.E037",
        )
    if not settings.PASSWORD_SIGN_IN and not account:
        yield checks.Warning(
            "PASSWORD_SIGN_IN=false without BREAK_GLASS_ACCOUNT: while the provider is down, "
            "nobody can sign in.",
            hint="Set the name of an account with a password, for emergencies (docs/access.md).",
            id="dashboard.W002",
        )


def _is_issuer(text: str) -> bool:
    if not is_web_address(text) or not re.fullmatch(r"[!-~]{1,200}", text) or set("?#") & set(text):
        return False
    parts = urlsplit(text)
    return parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}


def _is_network(text: str) -> bool:
    try:
        return ip_network(text).prefixlen > 0
    except ValueError:
        return False


def _is_username(text: str) -> bool:
    is_normal = unicodedata.normalize("NFKC", text) == text  # as the sign-in form has it
    return is_normal and text.isprintable() and len(text) <= 150
