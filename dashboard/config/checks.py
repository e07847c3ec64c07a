"""System checks: reject invalid settings at startup, each with an id and a hint."""

import difflib
import re
from collections.abc import Iterator
from ipaddress import ip_network
from string import Formatter
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from dashboard.config.sign_in_checks import check_sign_in
from dashboard.config.web_addresses import is_encrypted_or_local, is_web_address, quote_address
from dashboard.models.append_only import MIN_ACCESS_LOG_DAYS
from dashboard.models.catalog import StageName
from dashboard.northflank import find_environment_error

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BASE_URL = re.compile(r"https?://[^\s/?#@]+(/[\w.~-]+)*", re.ASCII)
_ORIGIN = re.compile(r"https?://[^\s/?#@]+")
MIN_SECRET_KEY_LENGTH = 50  # characters; Django warns of a shorter one at each start
# From which on a name counts as a misspelt setting. One wrong letter of nine gives 0.889;
# DATABASE_USER, of other software, has 0.88 to DATABASE_URL.
MIN_SIMILARITY = 0.885
_PERCENTAGE = re.compile(r"\d{1,3}(\.\d+)?%")

# At least what pages show as recent; at most what dates can express.
MIN_RETENTION_DAYS, MAX_RETENTION_DAYS = 7, 36_500


def register_all() -> None:
    """Register this module's checks with Django."""
    register(check_settings)
    register(check_encryption, deploy=True)


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return an error or warning, with id and hint, for each invalid setting."""
    return [
        *_misspelt_settings(),
        *_invalid_settings(),
        *_northflank_api(),
        *_northflank(),
        *_aborts(),
        *check_sign_in(),
        *_overdue(),
        *_retention(),
        *_web(),
        *_database(),
    ]


def check_encryption(**_: Any) -> list[CheckMessage]:
    """Return a warning if other machines reach the dashboard, and not by https.

    It stands for Django's W004, W008, W011 and W016, which are silenced then (settings.py).
    """
    is_local = all(is_encrypted_or_local(f"http://{host}") for host in settings.ALLOWED_HOSTS)
    if settings.HTTPS or is_local:
        return []
    return [
        checks.Warning(
            "BASE_URL is not https://: passwords and sessions are sent unencrypted.",
            hint="Set the https:// address of a proxy before the dashboard: docs/proxy.md.",
            id="dashboard.W003",
        )
    ]


_HINTS = {
    "DATABASE_URL": "Set postgres://user:password@host/name, with special characters of the "
    "password percent-encoded, such as %2F for /, or leave it empty for SQLite.",
    "TIME_ZONE": "Set a name such as UTC or Europe/Berlin.",
    "LOG_FORMAT": "Set LOG_FORMAT=text or LOG_FORMAT=json.",
    "LOG_LEVEL": "Set LOG_LEVEL to DEBUG, INFO, WARNING or ERROR.",
    "OVERDUE_FACTOR": "Set a multiple of the typical duration, such as 1.5.",
    "OVERDUE_CRITICAL_FACTOR": "Set a multiple of the typical duration, such as 3.",
    "OIDC_GROUP_MAP": "Set pairs such as oncall=On-call,leads=Release managers: each group of the "
    "provider once, with the group here.",
    "AUTH_PROXY_GROUP_MAP": "Set external=Group here, separated by commas, each name once.",
    "RETENTION_DAYS": "Set a number of days, such as 365.",
    "STEPS_RETENTION_DAYS": "Set a number of days, such as 90.",
    "ACCESS_LOG_DAYS": "Set a number of days, such as 400.",
    "SESSION_MAX_AGE": "Set a number of seconds, such as 1209600.",
    "SESSION_IDLE_TIMEOUT": "Set a number of seconds, such as 28800, or leave it empty.",
}


def _misspelt_settings() -> Iterator[CheckMessage]:
    for name in sorted(settings.VARIABLE_NAMES - settings.SETTING_NAMES):
        if any(
            name.startswith(f"{setting}_") or name.endswith(f"_{setting}")
            for setting in settings.SETTING_NAMES
        ):
            continue  # another name with a word more, such as DATABASE_URL_RO: not misspelt
        similar_names = difflib.get_close_matches(
            name.upper(), settings.SETTING_NAMES, n=1, cutoff=MIN_SIMILARITY
        )
        for setting in similar_names:
            yield checks.Warning(
                f"{name} is not a setting. Did you mean {setting}?",
                hint="It has no effect. Rename it, or remove it unless another program reads it.",
                id="dashboard.W004",
            )


def _invalid_settings() -> Iterator[CheckMessage]:
    for name, text in settings.INVALID_SETTINGS.items():
        yield Error(
            f"{name} has an invalid value: {text!r}.",
            hint=_HINTS.get(name, f"Set {name}=true or {name}=false."),
            id="dashboard.E001",
        )


def _northflank_api() -> Iterator[CheckMessage]:
    token = settings.NORTHFLANK_API_TOKEN
    if not token.isascii() or any(c.isspace() or not c.isprintable() for c in token):
        yield Error(
            "NORTHFLANK_API_TOKEN contains invalid characters.",
            hint="Copy the token again, without quotes, spaces or line breaks.",
            id="dashboard.E002",
        )
    if not is_web_address(settings.NORTHFLANK_API_BASE_URL) or re.search(
        r"[?#]|/v1$", settings.NORTHFLANK_API_BASE_URL
    ):
        yield Error(
            "NORTHFLANK_API_BASE_URL is not a valid URL: "
            f"{quote_address(settings.NORTHFLANK_API_BASE_URL)}.",
            hint="Leave it empty for Northflank's own API, or set https://host without /v1.",
            id="dashboard.E003",
        )
    elif token and not is_encrypted_or_local(settings.NORTHFLANK_API_BASE_URL):
        yield Error(
            f"NORTHFLANK_API_BASE_URL would send the token unencrypted: "
            f"{settings.NORTHFLANK_API_BASE_URL!r}.",
            hint="Set an https:// address; http:// is only for this machine.",
            id="dashboard.E016",
        )
    elif token and (reason := find_environment_error(settings.NORTHFLANK_API_BASE_URL)):
        yield Error(
            f"The environment's proxy or certificates cannot be used for Northflank: {reason}",
            hint="Set HTTPS_PROXY=http://host:port, and SSL_CERT_FILE to a PEM file of "
            "certificates, or unset them.",
            id="dashboard.E018",
        )


def _northflank() -> Iterator[CheckMessage]:
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
            is_valid = field_names <= set(parts) and is_web_address(template.format_map(parts))
        except (LookupError, ValueError, AttributeError, TypeError):
            is_valid = False
        if not is_valid:
            yield Error(
                "NORTHFLANK_RUN_URL_TEMPLATE does not give a valid URL: "
                f"{quote_address(template)}.",
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
    if base_url and not (is_web_address(base_url) and _BASE_URL.fullmatch(base_url)):
        yield Error(
            f"BASE_URL is not a valid site URL: {quote_address(base_url)}.",
            hint="Set the URL that users open, such as https://releases.example.com or "
            "https://example.com/releases",
            id="dashboard.E008",
        )
    for host in settings.ALLOWED_HOSTS:
        has_port = ":" in host.rpartition("]")[2]  # of an IPv6 address, after its brackets
        is_pattern = "*" in host and host != "*"
        if "/" in host or has_port or is_pattern or not is_web_address(f"http://{host}"):
            yield Error(
                f"ALLOWED_HOSTS contains an invalid host name: {host!r}.",
                hint="Set host names without scheme, port or path, such as releases.example.com, "
                "or .example.com with its subdomains.",
                id="dashboard.E010",
            )
    for origin in settings.CSRF_TRUSTED_ORIGINS:
        if not _ORIGIN.fullmatch(origin):
            yield Error(
                f"CSRF_TRUSTED_ORIGINS contains an invalid origin: {quote_address(origin)}.",
                hint="Set a scheme and a host without a slash or path after it, such as "
                "https://old.example.com.",
                id="dashboard.E009",
            )
    for text in settings.FORWARDED_ALLOW_IPS:
        if settings.FORWARDED_ALLOW_IPS != ["*"] and not _is_network(text):
            yield Error(
                f"FORWARDED_ALLOW_IPS contains an invalid address: {text!r}.",
                hint="Set addresses or networks of the proxy, separated by commas, such as "
                "10.0.0.5,10.1.0.0/16, or * alone. Host names are not looked up.",
                id="dashboard.E019",
            )
    if len(settings.SECRET_KEY) < MIN_SECRET_KEY_LENGTH:
        yield Error(
            f"SECRET_KEY is shorter than {MIN_SECRET_KEY_LENGTH} characters.",
            hint="Set a random one, such as that of openssl rand -hex 32, or leave it empty.",
            id="dashboard.E017",
        )


def _database() -> Iterator[CheckMessage]:
    if not settings.DATABASE_IS_NAMED:
        yield Error(
            "DATABASE_URL names no database, or one in memory.",
            hint="Set postgres://user:password@host/name or sqlite:////path/to/file, or leave it "
            "empty for SQLite.",
            id="dashboard.E014",
        )
    is_shared_database = not settings.DATABASES["default"]["ENGINE"].endswith(".sqlite3")
    if settings.SECRET_KEY_IS_LOCAL and is_shared_database:
        yield checks.Warning(
            "SECRET_KEY is not set: each machine generates its own.",
            hint="Set the same SECRET_KEY for all processes that share the database.",
            id="dashboard.W001",
        )


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True
