"""System checks: reject invalid settings at startup, each with an id and a hint."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from string import Formatter
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from dashboard.models.append_only import MIN_ACCESS_LOG_DAYS
from dashboard.models.catalog import StageName
from dashboard.northflank import find_environment_error

MIN_SECRET_KEY_LENGTH = 50  # characters; Django warns of a shorter one at each start
# At least what pages show as recent; at most what dates can express.
MIN_RETENTION_DAYS, MAX_RETENTION_DAYS = 7, 36_500

# Their values are in no message.
_SECRETS = {
    "METRICS_TOKEN",
    "NORTHFLANK_API_TOKEN",
    "NORTHFLANK_LOGS_TOKEN",
    "NORTHFLANK_WEBHOOK_SECRET",
    "NOTIFY_URLS",
    "SECRET_KEY",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting has to be. An empty text or list is not tested, others one by one."""

    name: str
    is_valid: Callable[[Any], object]
    hint: str  # what to set
    id: str  # of an error, or of a warning if it begins with W
    message: str = ""  # where “… has an invalid value” does not say it


def register_all() -> None:
    """Register this module's checks with Django."""
    register(check_settings)
    register(check_encryption, deploy=True)


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return an error or warning, with id and hint, for each invalid setting."""
    messages: list[CheckMessage] = [
        Error(_invalid(name, repr(text)), hint, id="dashboard.E001")
        for name, (text, hint) in settings.INVALID_SETTINGS.items()
    ]
    messages += _broken_rules()
    if not settings.NORTHFLANK_API_TOKEN or any(message.is_serious() for message in messages):
        return messages
    if reason := find_environment_error(settings.NORTHFLANK_API_BASE_URL):
        text = f"The environment's proxy or certificates cannot be used for Northflank: {reason}"
        hint = (
            "Set HTTPS_PROXY=http://host:port, and SSL_CERT_FILE to a PEM file of certificates, or "
            "unset them."
        )
        messages.append(Error(text, hint, id="dashboard.E018"))
    return messages


def check_encryption(**_: Any) -> list[CheckMessage]:
    """Return a warning if other machines reach the dashboard, and not by https.

    With an http:// address in BASE_URL that is meant, and only said. It stands for Django's W004,
    W008, W011 and W016, which are silenced then (settings.py).
    """
    is_local = all(_is_encrypted_or_local(f"http://{host}") for host in settings.ALLOWED_HOSTS)
    if settings.HTTPS or is_local:
        return []
    return [
        CheckMessage(
            checks.INFO if settings.BASE_URL else checks.WARNING,
            "BASE_URL is not https://: passwords and sessions are sent unencrypted.",
            hint="Set the https:// address of a proxy before the dashboard (docs/run/proxy.md), or "
            "an http:// address if that is meant.",
            id="dashboard.W003",
        )
    ]


def _broken_rules() -> Iterator[CheckMessage]:
    reported: set[str] = set()  # of a setting the first broken rule
    for rule in _RULES:
        setting = getattr(settings, rule.name)
        values = setting if isinstance(setting, list) else [setting]
        invalid = [value for value in values if value not in ("", {}) and not rule.is_valid(value)]
        if not invalid or rule.name in reported:
            continue
        reported.add(rule.name)
        quoted = ", ".join(_quote_address(str(value)) for value in invalid)
        yield (checks.Warning if rule.id.startswith("W") else Error)(
            rule.message or _invalid(rule.name, quoted),
            hint=f"Set {rule.hint}.",
            id=f"dashboard.{rule.id}",
        )


def _invalid(name: str, value: str) -> str:
    return f"{name} has an invalid value{'' if name in _SECRETS else f': {value}'}."


def _matches(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern, re.ASCII).fullmatch


def _is_web_address(text: str) -> bool:
    """Return whether a text is an http or https address with a host, without a user."""
    try:
        parts = urlsplit(text)
        has_valid_port = parts.port != 0  # raises for one that is no number up to 65535
    except ValueError:
        return False
    is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
    return is_web and has_valid_port and "@" not in parts.netloc and not re.search(r"\s", text)


def _quote_address(text: str) -> str:
    """Return a text that should be a web address, in quotes, without a user and password in it."""
    # Up to the last "@": a password may contain a "/" that is not encoded.
    return repr(re.sub(r"(\w+://)?.*@", r"\1…@", text, count=1, flags=re.DOTALL))


def _is_encrypted_or_local(address: str) -> bool:
    """Return whether nobody on the way can read what is sent to a web address."""
    try:
        parts = urlsplit(address)
        if parts.scheme == "https" or parts.hostname == "localhost":
            return True
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _is_api_address(text: str) -> bool:
    return _is_web_address(text) and not re.search(r"[?#]|/v1$", text)


def _is_reserve(text: str) -> bool:
    is_percentage = re.fullmatch(r"\d{1,3}(\.\d+)?%", text)
    return bool(text.isdecimal() or (is_percentage and float(text[:-1]) <= 90))


def _is_run_url_template(template: str) -> bool:
    parts = dict.fromkeys(("team", "project", "pipeline", "stage", "run"), "x")
    try:
        names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        return names <= set(parts) and _is_web_address(template.format_map(parts))
    except ValueError:
        return False


def _is_base_url(text: str) -> bool:
    is_plain = re.fullmatch(r"https?://[^\s/?#@]+(/[\w.~-]+)*", text, re.ASCII)
    return bool(is_plain) and _is_web_address(text)


def _is_host(text: str) -> bool:
    has_port = ":" in text.rpartition("]")[2]  # of an IPv6 address, after its brackets
    is_pattern = "*" in text and text != "*"
    return not ("/" in text or has_port or is_pattern) and _is_web_address(f"http://{text}")


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _is_address_or_path(text: str) -> bool:
    return bool(re.fullmatch(r"/([^/\\\s][^\\\s]*)?", text)) or _is_web_address(text)


def _is_issuer(text: str) -> bool:
    if not _is_web_address(text) or not re.fullmatch(r"[!-\"$->@-~]{1,200}", text):
        return False
    parts = urlsplit(text)
    return parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}


_RULES = (
    *(
        Rule(name, _matches("[!-~]+"), "the token without quotes, spaces or line breaks", "E002")
        for name in ("NORTHFLANK_API_TOKEN", "NORTHFLANK_LOGS_TOKEN")
    ),
    Rule("NORTHFLANK_API_BASE_URL", _is_api_address,
         "https://host without /v1, or nothing for Northflank's own API", "E003"),
    Rule("NORTHFLANK_API_BASE_URL",
         lambda url: not settings.NORTHFLANK_API_TOKEN or _is_encrypted_or_local(url),
         "an https:// address; http:// is only for this machine", "E016",
         "NORTHFLANK_API_BASE_URL would send the token unencrypted."),
    Rule("NORTHFLANK_TEAM_ID", _matches("[A-Za-z0-9][A-Za-z0-9._-]*"),
         "the part after /t/ in the URL of your team's page on Northflank", "E004"),
    *(
        Rule(name, _is_reserve,
             "a number of requests, such as 100, or a share up to 90%, such as 10%", "E006")
        for name in ("NORTHFLANK_REQUEST_RESERVE", "NORTHFLANK_LOG_REQUESTS")
    ),
    Rule("NORTHFLANK_RUN_URL_TEMPLATE", _is_run_url_template,
         "a URL with no other placeholders than {team}, {project}, {pipeline}, {stage} and {run}",
         "E007"),
    Rule("NORTHFLANK_WEBHOOK_SECRET", _matches("[!-~]{16,}"),
         "16 characters or more without spaces, each secret by openssl rand -hex 32", "E011"),
    Rule("METRICS_TOKEN", _matches("[!-~]{16,}"),
         "16 characters or more without spaces, such as from: openssl rand -hex 32", "E041"),
    Rule("METRICS_ALLOW", _is_network,
         "addresses or networks, such as 10.0.0.5,10.1.0.0/16", "E042"),
    Rule("ABORT_REASON_REQUIRED", lambda stage: stage in StageName.values,
         f"any of {', '.join(StageName.values)}, separated by commas, or none", "E012"),
    Rule("OVERDUE_CRITICAL_FACTOR", lambda factor: factor >= settings.OVERDUE_FACTOR,
         "at least OVERDUE_FACTOR: a run is overdue first, then by this factor", "E015",
         "OVERDUE_CRITICAL_FACTOR is less than OVERDUE_FACTOR."),
    *(
        Rule(name, _matches("[A-Za-z][A-Za-z0-9-]*"),
             "letters, digits and hyphens, such as X-Forwarded-User", "E030")
        for name in ("AUTH_PROXY_HEADER", "AUTH_PROXY_GROUPS_HEADER")
    ),
    Rule("AUTH_PROXY_HEADER", lambda _: settings.AUTH_PROXY_TRUSTED,
         "AUTH_PROXY_TRUSTED to the proxy's address as the dashboard sees it, such as 127.0.0.1",
         "E032", "AUTH_PROXY_HEADER is set without AUTH_PROXY_TRUSTED: anybody could send it."),
    Rule("AUTH_PROXY_HEADER", lambda _: not settings.OIDC_ISSUER,
         "only one of them: one decides who a user is, and their groups", "E035",
         "Both AUTH_PROXY_HEADER and OIDC_ISSUER are set."),
    *(
        Rule(name, lambda _: settings.AUTH_PROXY_HEADER, "AUTH_PROXY_HEADER too, or unset it",
             "E031", f"{name} is set, but AUTH_PROXY_HEADER is not.")
        for name in ("AUTH_PROXY_GROUPS_HEADER", "AUTH_PROXY_TRUSTED", "AUTH_PROXY_SIGN_OUT_URL")
    ),
    Rule("AUTH_PROXY_GROUP_MAP", lambda _: settings.AUTH_PROXY_GROUPS_HEADER,
         "AUTH_PROXY_GROUPS_HEADER too, or unset it", "E031",
         "AUTH_PROXY_GROUP_MAP is set, but AUTH_PROXY_GROUPS_HEADER is not."),
    Rule("AUTH_PROXY_TRUSTED", lambda text: _is_network(text) and ip_network(text).prefixlen > 0,
         "addresses or networks, such as 127.0.0.1,10.1.0.0/16; not all of them", "E033"),
    Rule("AUTH_PROXY_SIGN_OUT_URL", _is_address_or_path,
         "a URL, or a path of the proxy, such as /oauth2/sign_out", "E034"),
    Rule("OIDC_ISSUER", _is_issuer,
         "the provider's https:// URL without query, up to 200 characters; http:// is accepted for "
         "this machine only", "E020"),
    Rule("OIDC_ISSUER", lambda _: settings.OIDC_CLIENT_ID,
         "OIDC_CLIENT_ID to the id that the provider gave to the dashboard", "E021",
         "OIDC_ISSUER is set, but OIDC_CLIENT_ID is not."),
    Rule("OIDC_ALLOWED_DOMAINS", re.compile(r"[\w-]+(\.[\w-]+)+").fullmatch,
         "domains without @, separated by commas, such as example.com", "E023"),
    Rule("OIDC_GROUP_MAP", lambda _: settings.OIDC_GROUPS_CLAIM,
         "OIDC_GROUPS_CLAIM to the claim that lists the groups, such as groups", "E024",
         "OIDC_GROUP_MAP is set, but OIDC_GROUPS_CLAIM is not."),
    Rule("PASSWORD_SIGN_IN",
         lambda is_on: is_on or settings.AUTH_PROXY_HEADER or settings.OIDC_ISSUER,
         "OIDC_ISSUER or AUTH_PROXY_HEADER, or PASSWORD_SIGN_IN=true", "E036",
         "PASSWORD_SIGN_IN=false leaves no way to sign in."),
    Rule("PASSWORD_SIGN_IN", lambda is_on: is_on or settings.BREAK_GLASS_ACCOUNT,
         "BREAK_GLASS_ACCOUNT to an account with a password, for emergencies (docs/run/sign-in.md)",
         "W002",
         "PASSWORD_SIGN_IN=false without BREAK_GLASS_ACCOUNT: while the provider is down, nobody "
         "can sign in."),
    *(
        Rule(name, range(minimum, MAX_RETENTION_DAYS + 1).__contains__,
             f"{minimum} to {MAX_RETENTION_DAYS} days", "E040")
        for name, minimum in (
            ("RETENTION_DAYS", MIN_RETENTION_DAYS),
            ("STEPS_RETENTION_DAYS", MIN_RETENTION_DAYS),
            ("ACCESS_LOG_DAYS", MIN_ACCESS_LOG_DAYS),
        )
    ),
    Rule("BASE_URL", _is_base_url,
         "the URL that users open, such as https://releases.example.com or "
         "https://example.com/releases", "E008"),
    Rule("ALLOWED_HOSTS", _is_host,
         "host names without scheme, port or path, such as releases.example.com, or .example.com "
         "with its subdomains", "E010"),
    Rule("CSRF_TRUSTED_ORIGINS", _matches(r"https?://[^\s/?#@]+"),
         "a scheme and a host without a slash or path after it, such as https://old.example.com",
         "E009"),
    Rule("FORWARDED_ALLOW_IPS",
         lambda text: settings.FORWARDED_ALLOW_IPS == ["*"] or _is_network(text),
         "addresses or networks of the proxy, such as 10.0.0.5,10.1.0.0/16, or * alone; host names "
         "are not looked up", "E019"),
    Rule("SECRET_KEY", lambda key: len(key) >= MIN_SECRET_KEY_LENGTH,
         f"{MIN_SECRET_KEY_LENGTH} characters or more, such as those of openssl rand -hex 32, or "
         "nothing", "E017"),
    Rule("SECRET_KEY_IS_LOCAL",
         lambda is_local: not is_local or "sqlite" in settings.DATABASES["default"]["ENGINE"],
         "the same SECRET_KEY for all processes that share the database", "W001",
         "SECRET_KEY is not set: each machine generates its own."),
    Rule("DATABASE_IS_NAMED", bool,
         "postgres://user:password@host/name or sqlite:////path/to/file, or nothing for SQLite",
         "E014", "DATABASE_URL names no database, or one in memory."),
)  # fmt: skip
