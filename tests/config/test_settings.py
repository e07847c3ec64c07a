"""Settings: invalid values are rejected with an id and a hint; `.env.example` lists all of them."""

import re
import stat
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from dashboard import settings as default_settings
from dashboard.config import checks, secret_key
from tests.support import processes

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line[:1].isupper()
)

INVALID_SETTINGS = [
    ("NORTHFLANK_API_TOKEN", "tok en", "E002"),
    ("NORTHFLANK_API_TOKEN", "tökén", "E002"),
    ("NORTHFLANK_API_TOKEN", "tok\x00en", "E002"),
    ("NORTHFLANK_LOGS_TOKEN", "tok en", "E002"),
    ("NORTHFLANK_API_BASE_URL", "api.northflank.com", "E003"),
    ("NORTHFLANK_API_BASE_URL", "ftp://api.northflank.com", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://me:secret@host", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://:secret@host", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://[half", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://api.northflank.com:99999", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://api northflank.com", "E003"),
    ("NORTHFLANK_TEAM_ID", "https://app.northflank.com/t/acme", "E004"),
    ("NORTHFLANK_TEAM_ID", "a b", "E004"),
    ("NORTHFLANK_REQUEST_RESERVE", "some", "E006"),
    ("NORTHFLANK_REQUEST_RESERVE", "-5", "E006"),
    ("NORTHFLANK_REQUEST_RESERVE", "95%", "E006"),
    ("NORTHFLANK_REQUEST_RESERVE", "10 %", "E006"),
    ("NORTHFLANK_LOG_REQUESTS", "0.1", "E006"),
    ("NORTHFLANK_RUN_URL_TEMPLATE", "{team}/{run}", "E007"),
    ("NORTHFLANK_RUN_URL_TEMPLATE", "https://x/{release}", "E007"),
    ("NORTHFLANK_RUN_URL_TEMPLATE", "https://x/{", "E007"),
    ("NORTHFLANK_RUN_URL_TEMPLATE", "https://x/{}", "E007"),
    ("NORTHFLANK_RUN_URL_TEMPLATE", "https://x/{run.id}", "E007"),
    ("NORTHFLANK_RUN_URL_TEMPLATE", "https://x/{run[id]}", "E007"),
    ("NORTHFLANK_WEBHOOK_SECRET", ["short"], "E011"),
    ("NORTHFLANK_WEBHOOK_SECRET", ["x" * 32, "s3cr3t"], "E011"),
    ("NORTHFLANK_WEBHOOK_SECRET", ["with a space, 20 ch"], "E011"),
    ("NORTHFLANK_WEBHOOK_SECRET", ["ümläute-" * 4], "E011"),
    ("ABORT_REASON_REQUIRED", ["Prod"], "E012"),
    ("ABORT_REASON_REQUIRED", ["Production", "None"], "E012"),
    ("AUTH_PROXY_GROUPS_HEADER", "X-Forwarded-Groups", "E031"),
    ("AUTH_PROXY_TRUSTED", ["127.0.0.1"], "E031"),
    ("AUTH_PROXY_SIGN_OUT_URL", "/oauth2/sign_out", "E031"),
    ("AUTH_PROXY_GROUP_MAP", {"a": "b"}, "E031"),
    ("AUTH_PROXY_HEADER", "X-Forwarded-User", "E032"),
    ("OVERDUE_CRITICAL_FACTOR", 1.2, "E015"),
    ("OVERDUE_FACTOR", 3.5, "E015"),
    ("RETENTION_DAYS", 36_501, "E040"),
    ("STEPS_RETENTION_DAYS", 6, "E040"),
    ("ACCESS_LOG_DAYS", 29, "E040"),
    ("BASE_URL", "releases.example.com", "E008"),
    ("BASE_URL", "javascript:alert(1)", "E008"),
    ("BASE_URL", "https://example.com/releases?a=b", "E008"),
    ("BASE_URL", "https://example.com/re%20leases", "E008"),
    ("BASE_URL", "https://example.com//releases", "E008"),
    ("BASE_URL", "https://x y", "E008"),
    ("BASE_URL", "https://example.com:99999", "E008"),
    ("ALLOWED_HOSTS", ["releases.example.com", "https://example.com"], "E010"),
    ("ALLOWED_HOSTS", ["[::1"], "E010"),
    ("ALLOWED_HOSTS", ["::1"], "E010"),
    ("ALLOWED_HOSTS", ["releases.example.com:8443"], "E010"),
    ("ALLOWED_HOSTS", ["releases.example.com:"], "E010"),
    ("ALLOWED_HOSTS", ["[::1]:8000"], "E010"),
    ("ALLOWED_HOSTS", ["*.example.com"], "E010"),
    ("CSRF_TRUSTED_ORIGINS", ["https://old.example.com/"], "E009"),
    ("CSRF_TRUSTED_ORIGINS", ["https://old.example.com/releases"], "E009"),
    ("CSRF_TRUSTED_ORIGINS", ["https://old.example.com?a=b"], "E009"),
    ("CSRF_TRUSTED_ORIGINS", ["https://a.example", "old.example.com"], "E009"),
    ("CSRF_TRUSTED_ORIGINS", ["ftp://old.example.com"], "E009"),
    ("FORWARDED_ALLOW_IPS", ["10.0.0.5/24"], "E019"),
    ("FORWARDED_ALLOW_IPS", ["10.0.0.5", "caddy"], "E019"),
    ("FORWARDED_ALLOW_IPS", ["10.0.0.5 10.0.0.6"], "E019"),
    ("FORWARDED_ALLOW_IPS", ["10.0.0.5", "*"], "E019"),
    ("SECRET_KEY", "short", "E017"),
    ("SECRET_KEY", "x" * 49, "E017"),
]


def ids() -> list[str]:
    return [str(error.id) for error in checks.check_settings()]


def test_settings_pass_checks() -> None:
    assert ids() == []


@pytest.mark.parametrize(("name", "value", "id"), INVALID_SETTINGS)
def test_invalid_setting_is_an_error_with_a_hint(
    settings: Settings, name: str, value: object, id: str
) -> None:
    setattr(settings, name, value)
    [error] = checks.check_settings()
    assert error.id == f"dashboard.{id}"
    assert name in error.msg
    assert error.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NORTHFLANK_API_TOKEN", "s3cr3t tok en"),
        ("NORTHFLANK_LOGS_TOKEN", "s3cr3t tok en"),
        ("NORTHFLANK_WEBHOOK_SECRET", ["s3cr3t"]),
    ],
)
def test_invalid_secret_is_not_quoted_in_error(
    settings: Settings, name: str, value: object
) -> None:
    setattr(settings, name, value)
    assert "s3cr3t" not in str(checks.check_settings()[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/no/such/file"),
        ("SSL_CERT_FILE", "/etc/passwd"),
        ("SSL_CERT_FILE", "/etc"),
        ("HTTPS_PROXY", "socks5://proxy:1080"),
        ("HTTPS_PROXY", "ftp://user:s3cr3t@proxy"),
        ("ALL_PROXY", "http://user:s3cr3t:1@proxy:port"),
    ],
)
def test_proxy_or_certificates_that_cannot_be_used_are_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    settings.NORTHFLANK_API_TOKEN = "token"
    monkeypatch.setenv(name, value)
    assert ids() == ["dashboard.E018"]
    text = str(checks.check_settings()[0])
    assert name in text
    assert "s3cr3t" not in text
    settings.NORTHFLANK_API_BASE_URL = "http://127.0.0.1:9000"  # neither is used for it
    assert ids() == []


@pytest.mark.parametrize(
    ("address", "errors"),
    [
        ("http://api.northflank.com", ["dashboard.E016"]),
        ("http://10.0.0.5:9000", ["dashboard.E016"]),
        ("http://localhost.example.com", ["dashboard.E016"]),
        ("http://127.0.0.1:9000", []),
        ("http://[::1]:9000", []),
        ("http://localhost:9000", []),
        ("https://10.0.0.5", []),
    ],
)
def test_token_is_sent_unencrypted_to_this_machine_only(
    settings: Settings, address: str, errors: list[str]
) -> None:
    settings.NORTHFLANK_API_TOKEN, settings.NORTHFLANK_API_BASE_URL = "token", address
    assert ids() == errors


@pytest.mark.parametrize(
    "name",
    ["NORTHFLANK_API_BASE_URL", "BASE_URL", "NORTHFLANK_RUN_URL_TEMPLATE", "OIDC_ISSUER"],
)
@pytest.mark.parametrize(
    "address",
    ["https://me:s3cret@host/a b", "https://:s3cret@host", "https://me:s3c/r@et@host", "s3cret@h"],
)
def test_error_of_an_address_does_not_quote_its_password(
    settings: Settings, name: str, address: str
) -> None:
    settings.OIDC_CLIENT_ID = "x"
    setattr(settings, name, address)
    messages = [str(message) for message in checks.check_settings()]
    assert any(name in message and "…@h" in message for message in messages)
    assert not any("s3c" in message or "r@et" in message for message in messages)


AUTH_PROXY = {"AUTH_PROXY_HEADER": "Remote-User", "AUTH_PROXY_TRUSTED": ["127.0.0.1"]}
NO_PASSWORDS = {"PASSWORD_SIGN_IN": False, "BREAK_GLASS_ACCOUNT": "glass"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"AUTH_PROXY_TRUSTED": ["10.0.0.0/8", "::1", "fd00::/8", "192.0.2.1"]}, []),
        ({"AUTH_PROXY_TRUSTED": ["10.0.0.1/8"]}, ["E033"]),
        ({"AUTH_PROXY_TRUSTED": ["proxy.example"]}, ["E033"]),
        ({"AUTH_PROXY_TRUSTED": ["*"]}, ["E033"]),
        ({"AUTH_PROXY_TRUSTED": ["127.0.0.1", "0.0.0.0/0", "::/0"]}, ["E033"]),
        ({"AUTH_PROXY_HEADER": "X_Forwarded_User"}, ["E030"]),
        ({"AUTH_PROXY_HEADER": "X-Forwarded-User:"}, ["E030"]),
        ({"AUTH_PROXY_GROUPS_HEADER": "Remote Groups"}, ["E030"]),
        ({"AUTH_PROXY_GROUPS_HEADER": "Remote-Groups", "AUTH_PROXY_GROUP_MAP": {"a": "b"}}, []),
        ({"AUTH_PROXY_GROUP_MAP": {"a": "b"}}, ["E031"]),
        ({"AUTH_PROXY_SIGN_OUT_URL": "/oauth2/sign_out?rd=%2F"}, []),
        ({"AUTH_PROXY_SIGN_OUT_URL": "https://sso.example/logout"}, []),
        ({"AUTH_PROXY_SIGN_OUT_URL": "//sso.example/logout"}, ["E034"]),
        ({"AUTH_PROXY_SIGN_OUT_URL": "/\\sso.example"}, ["E034"]),
        ({"AUTH_PROXY_SIGN_OUT_URL": "javascript:alert(1)"}, ["E034"]),
        ({"AUTH_PROXY_SIGN_OUT_URL": "logout"}, ["E034"]),
        ({"OIDC_ISSUER": "https://sso.example", "OIDC_CLIENT_ID": "x"}, ["E035"]),
        (NO_PASSWORDS, []),
        ({"PASSWORD_SIGN_IN": False}, ["W002"]),
        (NO_PASSWORDS | {"AUTH_PROXY_HEADER": "", "AUTH_PROXY_TRUSTED": []}, ["E036"]),
    ],
)
def test_settings_of_the_proxy_are_checked_together(
    settings: Settings, values: dict[str, object], expected: list[str]
) -> None:
    for name, value in (AUTH_PROXY | values).items():
        setattr(settings, name, value)
    assert ids() == [f"dashboard.{id}" for id in expected]
    assert all(message.hint for message in checks.check_settings())


def test_passwords_can_be_switched_off_with_openid_connect(settings: Settings) -> None:
    provider = {"OIDC_ISSUER": "https://sso.example", "OIDC_CLIENT_ID": "x"}
    for name, value in (NO_PASSWORDS | provider).items():
        setattr(settings, name, value)
    assert ids() == []


AUTH_PROXY_VARIABLES = {
    "AUTH_PROXY_HEADER": "Remote-User",
    "AUTH_PROXY_TRUSTED": "127.0.0.1",
    "AUTH_PROXY_GROUPS_HEADER": "Remote-Groups",
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("AUTH_PROXY_GROUP_MAP", "", {}),
        ("AUTH_PROXY_GROUP_MAP", " a = b c , cn=x=On-call", {"a": "b c", "cn=x": "On-call"}),
        ("ABORT_REASON_REQUIRED", "", ["Production"]),
        ("ABORT_REASON_REQUIRED", "STAGING, Production", ["Staging", "Production"]),
        ("ABORT_REASON_REQUIRED", "NONE", []),
        ("FORWARDED_ALLOW_IPS", "", ["127.0.0.1", "::1"]),
        ("FORWARDED_ALLOW_IPS", " 10.0.0.5, 10.1.0.0/16", ["10.0.0.5", "10.1.0.0/16"]),
    ],
)
def test_setting_is_parsed(name: str, text: str, value: object, tmp_path: Path) -> None:
    script = f"from django.conf import settings; print(settings.{name})"
    variables = AUTH_PROXY_VARIABLES | {name: text}
    result = manage(tmp_path, "shell", "--no-imports", "-c", script, **variables)
    assert result.stdout.strip() == str(value), result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AUTH_PROXY_GROUP_MAP", "a=b,a=c"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "postgres"),
    ],
)
def test_value_that_cannot_be_parsed_is_refused_at_start(
    name: str, text: str, tmp_path: Path
) -> None:
    result = manage(tmp_path, "check", **AUTH_PROXY_VARIABLES | {name: text})
    assert result.returncode != 0
    assert f"{name} has an invalid value" in result.stderr


@pytest.mark.parametrize(
    ("engine", "warnings"),
    [("django.db.backends.postgresql", ["dashboard.W001"]), ("dashboard.db.sqlite3", [])],
)
def test_local_secret_key_with_postgresql_is_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, engine: str, warnings: list[str]
) -> None:
    settings.SECRET_KEY_IS_LOCAL = True
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", engine)
    assert ids() == warnings


@pytest.mark.parametrize(
    ("base_url", "parts"),
    [
        ("", ([], [], "")),
        ("nonsense", ([], [], "")),
        ("https://a.example", (["https://a.example"], ["a.example"], "")),
        ("http://a.example:81/x/y", (["http://a.example:81"], ["a.example"], "/x/y")),
        ("http://[::1]:81/x", (["http://[::1]:81"], ["[::1]"], "/x")),
    ],
)
def test_base_url_determines_origin_host_and_path(
    base_url: str, parts: tuple[list[str], list[str], str]
) -> None:
    assert default_settings.split_base_url(base_url) == parts


def test_env_example_lists_every_setting() -> None:
    source = (ROOT / "dashboard" / "settings.py").read_text()
    names = set(re.findall(r'_\w+\(\s*"([A-Z_]+)"', source))
    assert names == set(EXAMPLE)


def manage(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py with exactly these settings."""
    variables = {
        "SECRET_KEY": "x" * 20 + "Qw3rTy" * 10,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "LOG_LEVEL": "",
    }
    return processes.manage(*arguments, **variables | settings)


def test_env_example_values_pass_checks(tmp_path: Path) -> None:
    result = manage(tmp_path, "check", **{name: value for name, value in EXAMPLE.items() if value})
    assert result.returncode == 0, result.stderr


def test_deploy_check_passes(tmp_path: Path) -> None:
    result = manage(
        tmp_path,
        *("check", "--deploy", "--fail-level", "WARNING"),
        BASE_URL="https://example.com/releases",
        NORTHFLANK_API_TOKEN="nf-token",
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("base_url", "seconds"),
    [
        ("https://releases.example.com", 365 * 24 * 3600),
        ("https://example.com/releases", 0),
    ],
)
def test_hsts_is_for_the_host_of_base_url_alone(
    tmp_path: Path, base_url: str, seconds: int
) -> None:
    names = ("SECONDS", "INCLUDE_SUBDOMAINS", "PRELOAD")
    values = ", ".join(f"settings.SECURE_HSTS_{name}" for name in names)
    program = f"from django.conf import settings; print({values})"
    result = manage(tmp_path, "shell", "-v0", "-c", program, BASE_URL=base_url)
    assert result.stdout == f"{seconds} False False\n", result.stderr


@pytest.mark.parametrize(
    ("base_url", "names"),
    [
        ("https://releases.example.com", "__Host-sessionid __Host-csrftoken"),
        ("https://example.com/releases", "sessionid-releases csrftoken-releases"),
        ("http://releases.example.com", "sessionid csrftoken"),
    ],
)
def test_cookies_are_bound_to_an_encrypted_host_of_their_own(
    tmp_path: Path, base_url: str, names: str
) -> None:
    program = (
        "from django.conf import settings;"
        "print(settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)"
    )
    result = manage(tmp_path, "shell", "-v0", "-c", program, BASE_URL=base_url)
    assert result.stdout == f"{names}\n", result.stderr


def test_deploy_check_of_dashboard_for_this_machine_only_passes(tmp_path: Path) -> None:
    result = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING")
    assert result.returncode == 0, result.stderr


def warnings_of(result: CompletedProcess[str]) -> list[str]:
    """Return the ids of the warnings that a command has printed."""
    return re.findall(r"\?: \((\w+\.W\d+)\)", result.stderr)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ({"ALLOWED_HOSTS": "releases.example.com"}, 1),
        ({"BASE_URL": "http://releases.example.com"}, 0),  # meant
    ],
)
def test_deploy_check_of_unencrypted_site_fails_unless_its_address_says_so(
    tmp_path: Path, address: dict[str, str], status: int
) -> None:
    result = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **address)
    assert (result.returncode, warnings_of(result)) == (status, ["dashboard.W003"])


# Ends after the checks, since this machine has no such address.
START = ["serve", "--host", "203.0.113.1"]


def test_start_with_token_is_refused_with_the_warnings_of_deployment_checks(
    tmp_path: Path,
) -> None:
    unsafe = {"DEBUG": "true", "ALLOWED_HOSTS": "releases.example.com"}
    result = manage(tmp_path, *START, NORTHFLANK_API_TOKEN="nf-token", **unsafe)
    assert warnings_of(result) == ["dashboard.W003", "security.W018"]
    assert "Cannot listen" not in result.stderr


def test_start_with_safe_settings_prints_no_warning(tmp_path: Path) -> None:
    safe = {"NORTHFLANK_API_TOKEN": "nf-token", "BASE_URL": "https://releases.example.com"}
    safe["PORT"] = "8123"
    safe["SECRET_KEY"] = "0123456789" * 5  # of the least length that is accepted
    result = manage(tmp_path, *START, **safe)
    assert result.stderr.startswith("CommandError: Cannot listen on 203.0.113.1:8123")


REFUSED_AT_START = {
    "E001": {
        "READ_ONLY": "treu",
        "ABORTS_ENABLED": "nope",
        "DEBUG": "perhaps",
        "TIME_ZONE": "Mars/Olympus",
        "LOG_FORMAT": "xml",
        "LOG_LEVEL": "LOUD",
        "OVERDUE_FACTOR": "0.5",
        "OVERDUE_CRITICAL_FACTOR": "often",
        "OIDC_GROUP_MAP": "oncall=On-call,leads",
        "SESSION_MAX_AGE": "14d",
        "SESSION_IDLE_TIMEOUT": "0",
        "RETENTION_DAYS": "a year",
    },
    "E032": {"AUTH_PROXY_HEADER": "X-Forwarded-User"},
    "E009": {"CSRF_TRUSTED_ORIGINS": "https://old.example.com/"},
    "E010": {"ALLOWED_HOSTS": "releases.example.com:8443"},
    "E019": {"FORWARDED_ALLOW_IPS": "10.0.0.5 10.0.0.6"},
}


def test_folder_of_database_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "x"
    result = manage(tmp_path, "check", DATABASE_URL=f"sqlite:///{folder / 'd.sqlite3'}")
    assert result.returncode == 2
    expected = f"The folder of the database, {folder}, cannot be created: Not a directory.\n"
    assert result.stderr == expected


@pytest.mark.parametrize("id", REFUSED_AT_START)
def test_check_command_with_invalid_setting_fails(tmp_path: Path, id: str) -> None:
    result = manage(tmp_path, "check", **REFUSED_AT_START[id])
    assert (result.returncode != 0, f"dashboard.{id}" in result.stderr) == (True, True), (
        result.stderr
    )


@pytest.mark.parametrize(("token", "accepted"), [("", True), ("real", False)])
def test_demo_accounts_are_accepted_only_without_api_token(
    token: str, accepted: bool, tmp_path: Path
) -> None:
    script = "from django.conf import settings; print(*settings.AUTHENTICATION_BACKENDS)"
    completed = manage(tmp_path, "shell", "--no-imports", "-c", script, NORTHFLANK_API_TOKEN=token)
    assert completed.returncode == 0, completed.stderr
    assert ("dashboard.accounts.demo.DemoBackend" in completed.stdout) is accepted


@pytest.mark.parametrize("address", ["postgres://u:s3cr/et@h/d", "postgres://u:s3cr@h:99999/d"])
def test_database_url_with_an_invalid_port_fails_without_its_password(
    tmp_path: Path, address: str
) -> None:
    result = manage(tmp_path, "check", DATABASE_URL=address)
    assert result.returncode != 0
    assert "DATABASE_URL has an invalid value: 'postgres'." in result.stderr
    assert "percent-encoded" in result.stderr
    assert "s3cr" not in result.stderr


@pytest.mark.parametrize(
    "address",
    [
        "postgres://u:s3cr@127.0.0.1/?connect_timeout=3",
        "sqlite:///",
    ],
)
def test_database_url_without_a_database_fails_saying_so(tmp_path: Path, address: str) -> None:
    result = manage(tmp_path, "check", DATABASE_URL=address)
    assert result.returncode != 0
    assert "(dashboard.E014) DATABASE_URL names no database" in result.stderr
    assert not re.search("s3cr|Traceback", result.stderr)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("postgres://u:p@127.0.0.1/releases", "releases"),
        ("postgres://?service=releases", ""),  # libpq finds the name
    ],
)
def test_database_url_with_a_name_or_service_is_used(
    tmp_path: Path, address: str, name: str
) -> None:
    script = "from django.conf import settings as s; print(repr(s.DATABASES['default']['NAME']))"
    result = manage(tmp_path, "shell", "--no-imports", "-c", script, DATABASE_URL=address)
    assert result.stdout == f"{name!r}\n", result.stderr


def test_value_that_begins_with_a_dollar_is_no_reference(tmp_path: Path) -> None:
    result = manage(
        tmp_path, "check",
        DATABASE_URL="$(PG_URL)", READ_ONLY="$(READ_ONLY)", ABORTS_ENABLED="$ABORTS_ENABLED",
    )  # fmt: skip
    for name in ("DATABASE_URL", "READ_ONLY", "ABORTS_ENABLED"):
        assert f"{name} has an invalid value" in result.stderr
    script = "from django.conf import settings as s; print(s.SECRET_KEY, s.NORTHFLANK_API_TOKEN)"
    secrets = {"SECRET_KEY": "$x" * 25, "NORTHFLANK_API_TOKEN": "$SECRET_KEY"}
    result = manage(tmp_path, "shell", "--no-imports", "-c", script, **secrets)
    assert result.stdout.split() == list(secrets.values()), result.stderr


def test_secret_key_is_created_once(tmp_path: Path) -> None:
    key_file = tmp_path / "var" / "secret-key"
    assert secret_key.load_or_create(key_file) == secret_key.load_or_create(key_file)


def test_secret_key_has_at_least_50_characters(tmp_path: Path) -> None:
    assert len(secret_key.load_or_create(tmp_path / "secret-key")) >= 50


def test_secret_key_file_is_readable_by_owner_only(tmp_path: Path) -> None:
    key_file = tmp_path / "secret-key"
    secret_key.load_or_create(key_file)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_secret_key_in_unwritable_place_raises_improperly_configured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
        secret_key.load_or_create(tmp_path / "file" / "secret-key")


def test_secret_key_from_empty_file_raises_improperly_configured(tmp_path: Path) -> None:
    (tmp_path / "secret-key").write_text("")
    with pytest.raises(ImproperlyConfigured):
        secret_key.load_or_create(tmp_path / "secret-key")


def test_cache_with_many_rendered_parts_keeps_the_latest_few_thousand() -> None:
    keys = [f"part:{number}" for number in range(8_000)]
    try:
        for key in keys:
            cache.set(key, "")
        kept = [key for key in keys if key in cache]
        assert len(kept) <= 3_000  # about 4 KB each
        assert kept == keys[-len(kept) :]
    finally:
        cache.clear()
