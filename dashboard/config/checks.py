"""System checks: reject invalid settings at startup, each with an id and a hint."""

import re
import unicodedata
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from string import Formatter
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from dashboard.models.append_only import MIN_ACCESS_LOG_DAYS
from dashboard.models.catalog import StageName

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BASE_URL = re.compile(r"https?://[^\s/?#@]+(/[\w.~-]+)*", re.ASCII)
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_DOMAIN = re.compile(r"[\w-]+(\.[\w-]+)+")
MIN_SECRET_KEY_LENGTH = 32  # characters; sessions and tokens of forms depend on it
_PERCENTAGE = re.compile(r"\d{1,3}(\.\d+)?%")

# At least what pages show as recent; at most what dates can express.
MIN_RETENTION_DAYS, MAX_RETENTION_DAYS = 7, 36_500


def register_all() -> None:
    """Register this module's checks with Django."""
    register(check_settings)


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return an error or warning, with id and hint, for each invalid setting."""
    return [
        *_invalid_settings(),
        *_northflank(),
        *_aborts(),
        *_auth_proxy(),
        *_oidc(),
        *_sign_in(),
        *_overdue(),
        *_retention(),
        *_web(),
    ]


_HINTS = {
    "DATABASE_URL": "Set postgres://user:password@host/name, or leave it empty for SQLite.",
    "LANGUAGE_CODE": "Set a language code such as en or pt-br.",
    "TIME_ZONE": "Set a name such as UTC or Europe/Berlin.",
    "LOG_FORMAT": "Set LOG_FORMAT=text or LOG_FORMAT=json.",
    "LOG_LEVEL": "Set LOG_LEVEL to DEBUG, INFO, WARNING or ERROR.",
    "ABORT_WARN_AFTER": "Set a number of seconds, such as 180.",
    "ABORT_CRITICAL_AFTER": "Set a number of seconds, such as 600.",
    "OVERDUE_FACTOR": "Set a multiple of the typical duration, such as 1.5.",
    "OVERDUE_CRITICAL_FACTOR": "Set a multiple of the typical duration, such as 3.",
    "OVERDUE_MIN_SECONDS": "Set a number of seconds, such as 60.",
    "OVERDUE_RUN_AFTER": "Set a number of seconds, such as 3600.",
    "OVERDUE_QUEUED_AFTER": "Set a number of seconds, such as 900.",
    "OVERDUE_APPROVAL_AFTER": "Set a number of seconds, such as 14400.",
    "OIDC_GROUP_MAP": "Set pairs such as oncall=On-call,leads=Release managers: each group of the "
    "provider once, with the group here.",
    "AUTH_PROXY_GROUP_MAP": "Set external=Group here, separated by commas, each name once.",
    "RETENTION_DAYS": "Set a number of days, such as 365.",
    "STEPS_RETENTION_DAYS": "Set a number of days, such as 90.",
    "ACCESS_LOG_DAYS": "Set a number of days, such as 400.",
    "API_REQUESTS_PER_MINUTE": "Set a number of requests per minute and token, such as 60.",
    "SESSION_MAX_AGE": "Set a number of seconds, such as 1209600.",
    "SESSION_IDLE_TIMEOUT": "Set a number of seconds, such as 28800, or leave it empty.",
}


def _invalid_settings() -> Iterator[CheckMessage]:
    for name, text in settings.INVALID_SETTINGS.items():
        yield Error(
            f"{name} has an invalid value: {text!r}.",
            hint=_HINTS.get(name, f"Set {name}=true or {name}=false."),
            id="dashboard.E001",
        )


def _northflank() -> Iterator[CheckMessage]:
    token = settings.NORTHFLANK_API_TOKEN
    if not token.isascii() or any(c.isspace() or not c.isprintable() for c in token):
        yield Error(
            "NORTHFLANK_API_TOKEN contains invalid characters.",
            hint="Copy the token again, without quotes, spaces or line breaks.",
            id="dashboard.E002",
        )
    if not _is_web_address(settings.NORTHFLANK_API_BASE_URL) or re.search(
        r"[?#]|/v1$", settings.NORTHFLANK_API_BASE_URL
    ):
        yield Error(
            f"NORTHFLANK_API_BASE_URL is not a valid URL: {settings.NORTHFLANK_API_BASE_URL!r}.",
            hint="Leave it empty for Northflank's own API, or set https://host without /v1.",
            id="dashboard.E003",
        )
    elif token and not _is_encrypted_or_local(settings.NORTHFLANK_API_BASE_URL):
        yield Error(
            f"NORTHFLANK_API_BASE_URL would send the token unencrypted: "
            f"{settings.NORTHFLANK_API_BASE_URL!r}.",
            hint="Set an https:// address; http:// is only for this machine.",
            id="dashboard.E016",
        )
    if settings.NORTHFLANK_TEAM_ID and not _SLUG.fullmatch(settings.NORTHFLANK_TEAM_ID):
        yield Error(
            f"NORTHFLANK_TEAM_ID is not a valid team ID: {settings.NORTHFLANK_TEAM_ID!r}.",
            hint="Set the part after /t/ in the URL of your team's page on Northflank.",
            id="dashboard.E004",
        )
    for project in settings.NORTHFLANK_PROJECTS:
        if not project.strip() or "/" in project:
            yield Error(
                f"NORTHFLANK_PROJECTS contains an invalid project ID: {project!r}.",
                hint="Set project IDs separated by commas, such as shop,billing.",
                id="dashboard.E005",
            )
    reserve = settings.NORTHFLANK_REQUEST_RESERVE
    if not (reserve.isdecimal() or (_PERCENTAGE.fullmatch(reserve) and float(reserve[:-1]) <= 90)):
        yield Error(
            f"NORTHFLANK_REQUEST_RESERVE has an invalid value: {reserve!r}.",
            hint="Set a number of requests, such as 100, or a share up to 90%, such as 10%.",
            id="dashboard.E006",
        )
    template = settings.NORTHFLANK_RUN_URL_TEMPLATE
    if template:
        parts = dict.fromkeys(("team", "project", "pipeline", "stage", "run"), "x")
        try:
            field_names = {
                name for _, name, _, _ in Formatter().parse(template) if name is not None
            }
            is_valid = field_names <= set(parts) and _is_web_address(template.format_map(parts))
        except (LookupError, ValueError, AttributeError, TypeError):
            is_valid = False
        if not is_valid:
            yield Error(
                f"NORTHFLANK_RUN_URL_TEMPLATE does not give a valid URL: {template!r}.",
                hint="Use only the placeholders {team}, {project}, {pipeline}, {stage} and {run}.",
                id="dashboard.E007",
            )
    for secret in settings.NORTHFLANK_WEBHOOK_SECRET:
        if not re.fullmatch(r"[!-~]{16,}", secret):
            yield Error(
                "NORTHFLANK_WEBHOOK_SECRET is too short or contains characters not allowed in HTTP "
                "headers.",
                hint="Set at least 16 characters without spaces for each secret: openssl rand -hex "
                "32",
                id="dashboard.E011",
            )


def _aborts() -> Iterator[CheckMessage]:
    for stage in settings.ABORT_REASON_REQUIRED:
        if stage not in StageName.values:
            yield Error(
                f"ABORT_REASON_REQUIRED contains an unknown stage: {stage!r}.",
                hint=f"Set any of {', '.join(StageName.values)}, separated by commas, or none.",
                id="dashboard.E012",
            )
    if settings.ABORT_CRITICAL_AFTER < settings.ABORT_WARN_AFTER:
        yield Error(
            "ABORT_CRITICAL_AFTER is less than ABORT_WARN_AFTER.",
            hint="Both are seconds since the abort was requested: first a warning, then critical.",
            id="dashboard.E013",
        )


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
    if sign_out_url and not is_path and not _is_web_address(sign_out_url):
        yield Error(
            f"AUTH_PROXY_SIGN_OUT_URL is not a valid address: {sign_out_url!r}.",
            hint="Set a URL, or a path of the proxy, such as /oauth2/sign_out.",
            id="dashboard.E034",
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


def _overdue() -> Iterator[CheckMessage]:
    if settings.OVERDUE_CRITICAL_FACTOR < settings.OVERDUE_FACTOR:
        yield Error(
            "OVERDUE_CRITICAL_FACTOR is less than OVERDUE_FACTOR.",
            hint="Both are multiples of the typical duration: a run is first overdue, then far "
            "overdue.",
            id="dashboard.E015",
        )


def _retention() -> Iterator[CheckMessage]:
    for name, minimum in (
        ("RETENTION_DAYS", MIN_RETENTION_DAYS),
        ("STEPS_RETENTION_DAYS", MIN_RETENTION_DAYS),
        ("ACCESS_LOG_DAYS", MIN_ACCESS_LOG_DAYS),
    ):
        if not minimum <= getattr(settings, name) <= MAX_RETENTION_DAYS:
            yield Error(
                f"{name} is not between {minimum} and {MAX_RETENTION_DAYS} days.",
                hint=_HINTS[name],
                id="dashboard.E040",
            )
    if settings.STEPS_RETENTION_DAYS > settings.RETENTION_DAYS:
        yield Error(
            "STEPS_RETENTION_DAYS is more than RETENTION_DAYS.",
            hint="Steps are deleted with their runs, or earlier.",
            id="dashboard.E041",
        )


def _web() -> Iterator[CheckMessage]:
    base_url = settings.BASE_URL
    if base_url and not (_is_web_address(base_url) and _BASE_URL.fullmatch(base_url)):
        yield Error(
            f"BASE_URL is not a valid site URL: {base_url!r}.",
            hint="Set the URL that users open, such as https://releases.example.com or "
            "https://example.com/releases",
            id="dashboard.E008",
        )
    for host in settings.ALLOWED_HOSTS:
        if "/" in host:
            yield Error(
                f"ALLOWED_HOSTS contains an invalid host name: {host!r}.",
                hint="Set host names without scheme or path, such as releases.example.com.",
                id="dashboard.E010",
            )
    if len(settings.SECRET_KEY) < MIN_SECRET_KEY_LENGTH:
        yield Error(
            f"SECRET_KEY is shorter than {MIN_SECRET_KEY_LENGTH} characters.",
            hint="Set a random one, such as that of openssl rand -hex 32, or leave it empty.",
            id="dashboard.E017",
        )
    is_shared_database = settings.DATABASES["default"]["ENGINE"] != "django.db.backends.sqlite3"
    if settings.SECRET_KEY_IS_LOCAL and is_shared_database:
        yield checks.Warning(
            "SECRET_KEY is not set: each machine generates its own.",
            hint="Set the same SECRET_KEY for all processes that share the database.",
            id="dashboard.W001",
        )


def _oidc() -> Iterator[CheckMessage]:
    issuer = settings.OIDC_ISSUER
    if not issuer:
        return
    if not _is_issuer(issuer):
        yield Error(
            f"OIDC_ISSUER is not a valid issuer: {issuer!r}.",
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


def _is_issuer(text: str) -> bool:
    if (
        not _is_web_address(text)
        or not re.fullmatch(r"[!-~]{1,200}", text)
        or set("?#") & set(text)
    ):
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


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        has_valid_port = parts.port != 0  # raises for one that is no number up to 65535
    except ValueError:
        return False
    is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
    return is_web and has_valid_port and not parts.username and not re.search(r"\s", text)


def _is_encrypted_or_local(address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
