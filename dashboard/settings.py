"""All settings, read from the environment once, at startup.

The only module that reads the environment. `.env.example` lists each variable; `config/checks.py`
rejects invalid values with an id and a hint.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Collection
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import environ
from django.core.exceptions import ImproperlyConfigured
from django.utils.csp import CSP

from dashboard.config import logging as log_config
from dashboard.config import secret_key
from dashboard.config.env_file import read_env_file
from dashboard.config.secret_files import read_secret

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"  # default place for files the process writes; not in git

# The environment wins over the file.
ENV_FILE = BASE_DIR / ".env"
_inherited_names = frozenset(os.environ)
environ.Env.read_env(StringIO(read_env_file(ENV_FILE)))
# Names of the variables that only the file sets.
ENV_FILE_NAMES = frozenset(os.environ) - _inherited_names

# Values that could not be parsed: variable -> its text, and what to set. config/checks.py refuses
# to start with any.
INVALID_SETTINGS: dict[str, tuple[str, str]] = {}


def _text(name: str) -> str:
    # environ takes a value that begins with "$" for another variable's name, and a random secret or
    # what an orchestrator did not expand would become the default.
    return os.environ.get(name, "")


def _secret(name: str) -> str:
    return read_secret(name, _text(name), _text(f"{name}_FILE"))


def _parse[T](
    name: str, parse: Callable[[str], T | None], default: T, hint: str, text: str | None = None
) -> T:
    text = (_text(name) if text is None else text).strip()
    value = parse(text) if text else default
    if value is None:
        INVALID_SETTINGS[name] = (text, hint)
        return default
    return value


_SWITCHES = dict.fromkeys(("true", "on", "yes", "1"), True)
_SWITCHES |= dict.fromkeys(("false", "off", "no", "0"), False)


def _bool(name: str, *, default: bool) -> bool:
    # A misspelt ABORTS_ENABLED must not pass silently.
    hint = f"Set {name}=true or {name}=false."
    return _parse(name, lambda text: _SWITCHES.get(text.lower()), default, hint)


def _number[T: (int, float)](name: str, unit: str, *, default: T) -> T:
    number_type = type(default)
    pattern = "[1-9][0-9]{0,7}" if number_type is int else r"[1-9][0-9]{0,2}(\.[0-9]+)?"
    return _parse(
        name,
        lambda text: number_type(text) if re.fullmatch(pattern, text) else None,
        default,
        f"Set a number of {unit}, 1 or more.",
    )


def _choice(name: str, choices: Collection[str], *, default: str, hint: str) -> str:
    return _parse(name, lambda text: text if text in choices else None, default, hint)


def _list(name: str) -> list[str]:
    return _split(_text(name))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _mapping(name: str) -> dict[str, str]:
    def parse(_: str) -> dict[str, str] | None:
        # From the last "=": names outside the dashboard, such as those of LDAP, may contain it.
        pairs = [text.rpartition("=") for text in _list(name)]
        mapping = {key.strip(): value.strip() for key, _, value in pairs}
        is_valid = len(mapping) == len(pairs) and all(map(all, mapping.items()))
        return mapping if is_valid else None

    hint = "Set pairs such as oncall=On-call,leads=Release managers, each first name once."
    return _parse(name, parse, {}, hint)


def split_base_url(address: str) -> tuple[list[str], list[str], str]:
    """Return the origin, host and path of a base URL; all empty if config/checks.py rejects it."""
    pattern = r"(https?://(\[[^/\]]+\]|[^/:]+)(?::\d+)?)((?:/[\w.~-]+)*)"
    match = re.fullmatch(pattern, address, re.ASCII)
    return ([match[1]], [match[2]], match[3]) if match else ([], [], "")


# --- Northflank ---------------------------------------------------------------------------------

NORTHFLANK_API_TOKEN = _secret("NORTHFLANK_API_TOKEN").strip()
# Without a token the embedded sandbox is the upstream; only then are the demo accounts active.
SANDBOX = NORTHFLANK_API_TOKEN == ""
NORTHFLANK_API_BASE_URL = (_text("NORTHFLANK_API_BASE_URL") or "https://api.northflank.com").rstrip(
    "/"
)
# For logs, job runs and builds alone; else the token above is used.
NORTHFLANK_LOGS_TOKEN = _secret("NORTHFLANK_LOGS_TOKEN").strip()
NORTHFLANK_TEAM_ID = _text("NORTHFLANK_TEAM_ID")
NORTHFLANK_PROJECTS: list[str] = _list("NORTHFLANK_PROJECTS")
NORTHFLANK_RUN_URL_TEMPLATE = _text("NORTHFLANK_RUN_URL_TEMPLATE")
# Reserve for aborts in each window: a number of requests, or a share of the rate limit.
NORTHFLANK_REQUEST_RESERVE = _text("NORTHFLANK_REQUEST_RESERVE") or "10%"
# For the logs that people look at, in the same form.
NORTHFLANK_LOG_REQUESTS = _text("NORTHFLANK_LOG_REQUESTS") or "10%"

# Accepted webhook secrets; more than one during a rotation. The sandbox's own webhooks need no
# setting: their secret lives as long as the process.
NORTHFLANK_WEBHOOK_SECRET: list[str] = _split(_secret("NORTHFLANK_WEBHOOK_SECRET")) or (
    [secrets.token_urlsafe(32)] if SANDBOX else []
)

# --- Notices ------------------------------------------------------------------------------------


def _addresses(text: str) -> dict[str, str] | None:
    pairs = [re.fullmatch(r"([a-z0-9][a-z0-9-]{0,39})=(\S+)", part) for part in text.split()]
    found = {pair[1]: pair[2] for pair in pairs if pair}
    return found if len(found) == len(pairs) else None


# Where notices are sent: channel -> address of Apprise, or webhook+https://… (notices/channels.py).
# They contain secrets, so an error shows none of them.
NOTIFY_URLS: dict[str, str] = _parse(
    "NOTIFY_URLS",
    _addresses,
    {},
    "Set name=address pairs with spaces between, each name once, of a-z, 0-9 and -.",
    _secret("NOTIFY_URLS"),
)

# What the process that sends them gets of the environment, which contains secrets.
CHILD_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if re.fullmatch("PATH|HOME|LANG|TMPDIR|SSL_CERT_FILE|REQUESTS_CA_BUNDLE", name)
    or re.fullmatch("(http|https|all|no)_proxy", name, re.IGNORECASE)
}

# --- What people may do -------------------------------------------------------------------------

READ_ONLY = _bool("READ_ONLY", default=False)
ABORTS_ENABLED = _bool("ABORTS_ENABLED", default=True)
# Stages in which an abort needs a reason, in upper or lower case; "none" for no stage.
ABORT_REASON_REQUIRED = [name.capitalize() for name in _list("ABORT_REASON_REQUIRED")] or [
    "Production"
]
if ABORT_REASON_REQUIRED == ["None"]:
    ABORT_REASON_REQUIRED = []

# --- Signing in ---------------------------------------------------------------------------------

# The header in which an authenticating proxy names the user, and those who may send it.
AUTH_PROXY_HEADER = _text("AUTH_PROXY_HEADER").strip()
AUTH_PROXY_TRUSTED: list[str] = _list("AUTH_PROXY_TRUSTED")
AUTH_PROXY_GROUPS_HEADER = _text("AUTH_PROXY_GROUPS_HEADER").strip()
AUTH_PROXY_GROUP_MAP: dict[str, str] = _mapping("AUTH_PROXY_GROUP_MAP")  # by the proxy's name
AUTH_PROXY_SIGN_OUT_URL = _text("AUTH_PROXY_SIGN_OUT_URL").strip()
PASSWORD_SIGN_IN = _bool("PASSWORD_SIGN_IN", default=True)
BREAK_GLASS_ACCOUNT = _text("BREAK_GLASS_ACCOUNT").strip()
# The first account, added by a start without any.
ADMIN_USERNAME = _text("ADMIN_USERNAME").strip() or "admin"
ADMIN_PASSWORD = _secret("ADMIN_PASSWORD")

# --- Overdue runs -------------------------------------------------------------------------------

# A run, a step or a wait is overdue past this multiple of its median duration, but not before its
# 95th percentile; past the second multiple it is critical.
OVERDUE_FACTOR = _number("OVERDUE_FACTOR", "medians", default=1.5)
OVERDUE_CRITICAL_FACTOR = _number("OVERDUE_CRITICAL_FACTOR", "medians", default=3.0)

# --- The web ------------------------------------------------------------------------------------

DEBUG = _bool("DEBUG", default=False)
_secret_key = _secret("SECRET_KEY")
SECRET_KEY = _secret_key or secret_key.load_or_create(VAR_DIR / "secret-key")
SECRET_KEY_IS_LOCAL = not _secret_key
PORT = _number("PORT", "the port to listen on", default=8000)
BASE_URL = _text("BASE_URL").rstrip("/")
# Parts of BASE_URL: the origin that forms come from, the host, and the path prefix.
_origin, _host, _path = split_base_url(BASE_URL)
ALLOWED_HOSTS = _list("ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]", *_host]
CSRF_TRUSTED_ORIGINS = [*_list("CSRF_TRUSTED_ORIGINS"), *_origin]
# Addresses and networks of proxies whose X-Forwarded-For is believed; ["*"]: everybody's.
FORWARDED_ALLOW_IPS = _list("FORWARDED_ALLOW_IPS") or ["127.0.0.1", "::1"]
FORCE_SCRIPT_NAME = _path or None

ROOT_URLCONF = "dashboard.urls"
ASGI_APPLICATION = "dashboard.asgi.application"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "dashboard.apps.DashboardConfig",  # last: its group needs the permissions that auth creates
]
MIDDLEWARE = [
    "dashboard.web.http.responses.no_store.forbid_storing",  # first: also errors of the others
    "dashboard.web.http.methods.refuse_trace",
    "dashboard.web.http.unread_requests.refuse_unread",
    "dashboard.web.http.health.answer_probes",  # before all that look at the host: probes use any
    "dashboard.web.live.metrics.answer_scrapes",  # the same
    "django.middleware.security.SecurityMiddleware",
    "dashboard.web.http.static.StaticFilesMiddleware",  # files need no policy, and are compressed
    "django_permissions_policy.PermissionsPolicyMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "dashboard.web.http.responses.encodings.CompressionMiddleware",
    "dashboard.web.http.database_outage.OutageMiddleware",  # everything below needs the database
    "dashboard.web.http.authentication.auth_proxy.header_middleware",  # a kept page needs it
    "dashboard.web.live.page_cache.PageCacheMiddleware",  # before what only rendering needs
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "dashboard.accounts.identity.IdentityMiddleware",
    "dashboard.web.http.authentication.auth_proxy.session_middleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "dashboard.web.http.authentication.sign_in.SignInMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "libraries": {"dashboard": "dashboard.web.templatetags.dashboard"},
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "dashboard.web.http.site_context.site_context",
            ],
        },
    },
    {
        # For rows, which are repeated by the hundred: see web/components/macros.py.
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "DIRS": [BASE_DIR / "templates" / "jinja2"],
        "OPTIONS": {"environment": "dashboard.web.components.macros.environment"},
    },
]

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "now"
LOGOUT_REDIRECT_URL = "login"
DEFAULT_EXCEPTION_REPORTER_FILTER = "dashboard.config.error_reports.ExceptionReporterFilter"
CSRF_FAILURE_VIEW = "dashboard.web.pages.accounts.sign_in.handle_csrf_failure"
# Its own model: see models/accounts/sessions.py.
SESSION_ENGINE = "dashboard.models.accounts.sessions"
# Seconds from the sign-in; nobody on call should have to sign in at night.
SESSION_MAX_AGE = _number("SESSION_MAX_AGE", "seconds", default=14 * 24 * 3600)
SESSION_COOKIE_AGE = SESSION_MAX_AGE
# Seconds without a page view or a form after which a session ends; unset: it does not.
SESSION_IDLE_TIMEOUT = _number("SESSION_IDLE_TIMEOUT", "seconds", default=0)
# The sessions of a backend end when it is taken away. Demo accounts are valid for the sandbox only
# (accounts/demo.py), and sign in with a password, too.
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend"
    if PASSWORD_SIGN_IN
    else "dashboard.accounts.authentication.break_glass.BreakGlassBackend",
    *(["dashboard.accounts.demo.DemoBackend"] if SANDBOX and PASSWORD_SIGN_IN else []),
    *(["dashboard.accounts.authentication.auth_proxy.ProxyBackend"] if AUTH_PROXY_HEADER else []),
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

# --- Sign-in through an identity provider -------------------------------------------------------

SSL_CERT_FILE = _text("SSL_CERT_FILE")  # httpx reads it by itself
OIDC_ISSUER = _text("OIDC_ISSUER").strip().rstrip("/")
OIDC_CLIENT_ID = _text("OIDC_CLIENT_ID").strip()
OIDC_CLIENT_SECRET = _secret("OIDC_CLIENT_SECRET").strip()
OIDC_SCOPES = _text("OIDC_SCOPES").split() or ["openid", "profile", "email"]
OIDC_GROUPS_CLAIM = _text("OIDC_GROUPS_CLAIM").strip()
OIDC_GROUP_MAP: dict[str, str] = _mapping("OIDC_GROUP_MAP")
OIDC_ALLOWED_DOMAINS = [domain.lower() for domain in _list("OIDC_ALLOWED_DOMAINS")]
if OIDC_ISSUER:
    # Their tables exist after another `migrate`.
    INSTALLED_APPS[-1:-1] = ["allauth.account", "allauth.socialaccount"]
    MIDDLEWARE.append("allauth.account.middleware.AccountMiddleware")
    AUTHENTICATION_BACKENDS.append("dashboard.accounts.authentication.oidc_account.OIDCBackend")
    SOCIALACCOUNT_ADAPTER = "dashboard.web.http.authentication.oidc_adapter.SocialAccountAdapter"

# --- Headers, cookies and files -----------------------------------------------------------------

SECURE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],
    "base-uri": [CSP.NONE],
}
X_FRAME_OPTIONS = "DENY"
# What browsers let pages ask for; none is used. Chromium logs an error for those that it lacks.
PERMISSIONS_POLICY: dict[str, list[str]] = {
    name: []
    for name in (
        "accelerometer", "autoplay", "camera",
        "display-capture", "encrypted-media", "fullscreen", "geolocation", "gyroscope", "hid",
        "identity-credentials-get", "idle-detection", "local-fonts", "magnetometer", "microphone",
        "midi", "payment", "picture-in-picture", "publickey-credentials-get", "screen-wake-lock",
        "serial", "usb", "xr-spatial-tracking",
    )
}  # fmt: skip
# Links that leave the dashboard must not leak run ids to other sites.
SECURE_REFERRER_POLICY = "same-origin"
# BASE_URL is the address users open: if it is https, cookies and redirects require it.
HTTPS = BASE_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
# These refuse HTTP themselves: a redirect would let clients send their tokens unencrypted for ever.
SECURE_REDIRECT_EXEMPT = [f"^{_path[1:]}/?(api|hooks)/"]
# Under a path the host is shared, so a year of HSTS for all of it is not ours to set. Neither are
# subdomains (W005), which may be other sites, nor browsers' lists of hosts (W021).
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS and not _path else 0
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
# config/checks.py reports an origin without a scheme, too.
SILENCED_SYSTEM_CHECKS += ["4_0.E001"]
if _path:
    SILENCED_SYSTEM_CHECKS += ["security.W004"]
if not HTTPS:  # config/checks.py says in one warning what these mean
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W008", "security.W011", "security.W016"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
# On a shared host, other applications must neither receive nor overwrite our cookies.
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"{_path}/"
_cookie_name = "%s" + _path.replace("/", "-")
if HTTPS and not _path:
    _cookie_name = "__Host-%s"  # browsers then take it from this host alone, by HTTPS
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = _cookie_name % "sessionid", _cookie_name % "csrftoken"

STATIC_URL = f"{_path}/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "dashboard.web.http.static.VersionedStaticFilesStorage"},
}
# Files are served from their source folders: a fresh clone runs without collectstatic.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_ALLOW_ALL_ORIGINS = False
WHITENOISE_MAX_AGE = 24 * 3600  # seconds; URLs carry a hash

# --- Metrics ------------------------------------------------------------------------------------

# /metrics is off unless one is set; if both are, a scrape needs both.
METRICS_TOKEN = _secret("METRICS_TOKEN").strip()
METRICS_ALLOW: list[str] = _list("METRICS_ALLOW")

# --- The database -------------------------------------------------------------------------------

# The programs of each version of PostgreSQL, as on Debian and Ubuntu, where those in PATH start the
# newest. No variable: elsewhere, backups use those in PATH.
POSTGRESQL_PROGRAM_FOLDER = Path("/usr/lib/postgresql")
_given_url = _secret("DATABASE_URL")
DATABASE_IS_DEFAULT = not _given_url
# Sandbox and Northflank data never share a default file: `serve` has one for each scenario.
_default_url = (
    f"sqlite:///{VAR_DIR}/{'sandbox-stuck-production' if SANDBOX else 'dashboard'}.sqlite3"
)
_database_url = _given_url or _default_url
_scheme, _colon, _ = _database_url.partition(":")
_database: dict[str, Any] = {}
if _colon and _scheme in {"postgres", "postgresql", "psql", "pgsql", "sqlite"}:
    with contextlib.suppress(ValueError):  # a port that is none, as after a "/" in the password
        _database = environ.Env.db_url_config(_database_url)
if not _database:
    _hint = (
        "Set postgres://user:password@host/name, with special characters of the password "
        "percent-encoded, such as %2F for /, or nothing for SQLite."
    )
    INVALID_SETTINGS["DATABASE_URL"] = (_scheme, _hint)  # the rest may hold a password
    _database = environ.Env.db_url_config(_default_url)
# PostgreSQL may take the name from a service. In memory, each thread of a process would have a
# database of its own.
DATABASE_IS_NAMED = ":memory:" not in _database.get("NAME", "") and bool(
    _database.get("NAME") or _database.get("OPTIONS", {}).get("service")
)
if not DATABASE_IS_NAMED:  # config/checks.py refuses to start
    _database = environ.Env.db_url_config(_default_url)
if _database["ENGINE"].endswith(".sqlite3"):
    _database["ENGINE"] = "dashboard.db.sqlite3"
    _folder = Path(_database["NAME"]).parent
    try:
        _folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"The folder of the database, {_folder}, cannot be created: {error.strerror}."
        ) from error
    _database["OPTIONS"] = {
        # Under DEFERRED, a read transaction that becomes a write fails at once, whatever the
        # timeout; IMMEDIATE waits for the lock.
        "transaction_mode": "IMMEDIATE",
        "timeout": 5,
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
    }
else:
    _database["CONN_HEALTH_CHECKS"] = True
    # Time out on a silent server within seconds, not minutes: 5 s to connect, 10 s (in ms) for sent
    # data to be acknowledged. Options in DATABASE_URL take precedence.
    _database["OPTIONS"] = {
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        **_database.get("OPTIONS", {}),
    }
_database["CONN_MAX_AGE"] = None  # there are few threads, and they live as long as the process
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "dashboard.web.components.fragment_cache.FragmentCache",
        # Rendered rows, charts and parts of pages, of 1 to 4 KB. A changed run has a new entry and
        # the old one stays, so that this limit alone decides what a process takes.
        "OPTIONS": {"MAX_ENTRIES": 3_000},
        "TIMEOUT": 3600,
    },
}

# Days after which ended runs, their steps, and entries of the access log are deleted.
RETENTION_DAYS = _number("RETENTION_DAYS", "days", default=365)
STEPS_RETENTION_DAYS = _number("STEPS_RETENTION_DAYS", "days", default=90)
ACCESS_LOG_DAYS = _number("ACCESS_LOG_DAYS", "days", default=400)

# --- Time zone ----------------------------------------------------------------------------------

USE_I18N = False  # all texts are English; `_` marks those for people (tests/texts.txt)
TIME_ZONE = _choice(
    "TIME_ZONE", available_timezones(), default="UTC", hint="Set a name such as Europe/Berlin."
)
USE_TZ = True

# --- Logs ---------------------------------------------------------------------------------------

LOG_FORMAT = _choice("LOG_FORMAT", {"text", "json"}, default="text", hint="Set text or json.")
LOG_LEVEL = _choice(
    "LOG_LEVEL",
    {"DEBUG", "INFO", "WARNING", "ERROR"},
    default="INFO",
    hint="Set DEBUG, INFO, WARNING or ERROR.",
)
log_config.configure_structlog()
LOGGING = log_config.build_config(LOG_FORMAT, LOG_LEVEL)

# Hidden in the logs of jobs and builds that the dashboard shows.
KNOWN_SECRETS = [
    NORTHFLANK_API_TOKEN,
    NORTHFLANK_LOGS_TOKEN,
    *NORTHFLANK_WEBHOOK_SECRET,
    *NOTIFY_URLS.values(),
    ADMIN_PASSWORD,
    SECRET_KEY,
    OIDC_CLIENT_SECRET,
    METRICS_TOKEN,
    _given_url,
]
