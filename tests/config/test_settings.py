"""Settings: invalid values are rejected with an id and a hint; `.env.example` lists all of them."""

import re
import stat
import subprocess
from pathlib import Path

import pytest
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
    ("NORTHFLANK_API_BASE_URL", "api.northflank.com", "E003"),
    ("NORTHFLANK_API_BASE_URL", "ftp://api.northflank.com", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://me:secret@host", "E003"),
    ("NORTHFLANK_API_BASE_URL", "https://[half", "E003"),
    ("NORTHFLANK_TEAM_ID", "https://app.northflank.com/t/acme", "E004"),
    ("NORTHFLANK_TEAM_ID", "a b", "E004"),
    ("NORTHFLANK_PROJECTS", ["shop", "a/b"], "E005"),
    ("NORTHFLANK_PROJECTS", [" "], "E005"),
    ("NORTHFLANK_REQUEST_RESERVE", "some", "E006"),
    ("NORTHFLANK_REQUEST_RESERVE", "-5", "E006"),
    ("NORTHFLANK_REQUEST_RESERVE", "95%", "E006"),
    ("NORTHFLANK_REQUEST_RESERVE", "10 %", "E006"),
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
    ("OVERDUE_CRITICAL_FACTOR", 1.2, "E015"),
    ("OVERDUE_FACTOR", 3.5, "E015"),
    ("BASE_URL", "releases.example.com", "E008"),
    ("BASE_URL", "javascript:alert(1)", "E008"),
    ("BASE_URL", "https://example.com/releases?a=b", "E008"),
    ("BASE_URL", "https://example.com/re%20leases", "E008"),
    ("BASE_URL", "https://example.com//releases", "E008"),
]


def ids() -> list[str]:
    return [str(error.id) for error in checks.check_settings()]


def test_settings_pass_checks() -> None:
    assert ids() == []


@pytest.mark.parametrize(("name", "value", "id"), INVALID_SETTINGS)
def test_invalid_setting_is_an_error(settings: Settings, name: str, value: object, id: str) -> None:
    setattr(settings, name, value)
    assert ids() == [f"dashboard.{id}"]


@pytest.mark.parametrize(("name", "value", "id"), INVALID_SETTINGS)
def test_invalid_setting_error_has_a_hint(
    settings: Settings, name: str, value: object, id: str
) -> None:
    setattr(settings, name, value)
    assert checks.check_settings()[0].hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("NORTHFLANK_API_TOKEN", "s3cr3t tok en"), ("NORTHFLANK_WEBHOOK_SECRET", ["s3cr3t"])],
)
def test_invalid_secret_is_not_quoted_in_error(
    settings: Settings, name: str, value: object
) -> None:
    setattr(settings, name, value)
    assert "s3cr3t" not in str(checks.check_settings()[0])


@pytest.mark.parametrize("name", ["READ_ONLY", "ABORTS_ENABLED", "TIME_ZONE", "LOG_LEVEL"])
def test_unparsable_setting_is_an_error(settings: Settings, name: str) -> None:
    settings.INVALID_SETTINGS = {name: "perhaps"}
    assert ids() == ["dashboard.E001"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NORTHFLANK_API_TOKEN", "nf-eyJhbGciOiJIUzI1NiJ9.abc-_=="),
        ("NORTHFLANK_API_BASE_URL", "http://127.0.0.1:9000"),
        ("NORTHFLANK_TEAM_ID", "acme-2"),
        ("NORTHFLANK_PROJECTS", ["shop", "billing"]),
        ("NORTHFLANK_REQUEST_RESERVE", "12.5%"),
        ("NORTHFLANK_REQUEST_RESERVE", "100"),
        ("NORTHFLANK_RUN_URL_TEMPLATE", "https://x/{team}/{project}/{pipeline}/{stage}/{run}"),
        ("NORTHFLANK_WEBHOOK_SECRET", []),
        ("NORTHFLANK_WEBHOOK_SECRET", ["0123456789abcdef", "x" * 64]),
        ("OVERDUE_CRITICAL_FACTOR", 1.5),
        ("BASE_URL", "https://releases.example.com"),
        ("BASE_URL", "http://[::1]:8000"),
        ("BASE_URL", "https://example.com:8443/tools/release-flows"),
    ],
)
def test_valid_setting_passes_checks(settings: Settings, name: str, value: object) -> None:
    setattr(settings, name, value)
    assert ids() == []


@pytest.mark.parametrize(
    ("engine", "warnings"), [("postgresql", ["dashboard.W001"]), ("sqlite3", [])]
)
def test_local_secret_key_with_postgresql_is_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, engine: str, warnings: list[str]
) -> None:
    settings.SECRET_KEY_IS_LOCAL = True
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", f"django.db.backends.{engine}")
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
    names = set(re.findall(r'(?:env\.\w+|_\w+)\(\s*"([A-Z_]+)"', source))
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


@pytest.mark.parametrize(
    "base_url", ["https://releases.example.com", "https://example.com/releases"]
)
def test_deploy_check_passes(tmp_path: Path, base_url: str) -> None:
    result = manage(
        tmp_path,
        *("check", "--deploy", "--fail-level", "WARNING"),
        BASE_URL=base_url,
        NORTHFLANK_API_TOKEN="nf-token",
    )
    assert result.returncode == 0, result.stderr


REFUSED_AT_START = {
    "E001": {
        "READ_ONLY": "treu",
        "ABORTS_ENABLED": "nope",
        "DEBUG": "perhaps",
        "TIME_ZONE": "Mars/Olympus",
        "LOG_FORMAT": "xml",
        "LOG_LEVEL": "LOUD",
        "API_REQUESTS_PER_MINUTE": "0",
        "OVERDUE_FACTOR": "0.5",
        "OVERDUE_CRITICAL_FACTOR": "often",
        "OVERDUE_RUN_AFTER": "-1",
        "OVERDUE_QUEUED_AFTER": "soon",
        "OVERDUE_APPROVAL_AFTER": "4h",
        "OVERDUE_MIN_SECONDS": "0",
    },
    "E002": {"NORTHFLANK_API_TOKEN": "tok en"},
    "E006": {"NORTHFLANK_REQUEST_RESERVE": "lots"},
    "E012": {"ABORT_REASON_REQUIRED": "production,prod"},
}


@pytest.mark.parametrize("id", REFUSED_AT_START)
def test_check_command_with_invalid_setting_fails(tmp_path: Path, id: str) -> None:
    result = manage(tmp_path, "check", **REFUSED_AT_START[id])
    assert (result.returncode != 0, f"dashboard.{id}" in result.stderr) == (True, True), (
        result.stderr
    )


def test_check_command_names_each_unparsable_setting(tmp_path: Path) -> None:
    result = manage(tmp_path, "check", **REFUSED_AT_START["E001"])
    assert [name for name in REFUSED_AT_START["E001"] if f"{name} has" not in result.stderr] == []


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("", ["Production"]),
        ("production", ["Production"]),
        ("STAGING, Production", ["Staging", "Production"]),
        ("none", []),
        ("NONE", []),
    ],
)
def test_abort_reason_required_setting_is_case_insensitive(
    text: str, stages: list[str], tmp_path: Path
) -> None:
    script = "from django.conf import settings; print(settings.ABORT_REASON_REQUIRED)"
    result = manage(tmp_path, "shell", "--no-imports", "-c", script, ABORT_REASON_REQUIRED=text)
    assert result.stdout.strip() == str(stages), result.stderr


@pytest.mark.parametrize(("token", "accepted"), [("", True), ("real", False)])
def test_demo_accounts_are_accepted_only_without_api_token(
    token: str, accepted: bool, tmp_path: Path
) -> None:
    script = "from django.conf import settings; print(*settings.AUTHENTICATION_BACKENDS)"
    completed = manage(tmp_path, "shell", "--no-imports", "-c", script, NORTHFLANK_API_TOKEN=token)
    assert completed.returncode == 0, completed.stderr
    assert ("dashboard.accounts.demo.DemoBackend" in completed.stdout) is accepted


def test_invalid_database_url_fails_naming_the_setting(tmp_path: Path) -> None:
    result = manage(tmp_path, "check", DATABASE_URL="nonsense")
    assert result.returncode != 0
    assert "DATABASE_URL" in result.stderr


def test_secret_key_is_created_once(tmp_path: Path) -> None:
    key_file = tmp_path / "var" / "secret-key"
    assert secret_key.load_or_create(key_file) == secret_key.load_or_create(key_file)


def test_secret_key_has_at_least_50_characters(tmp_path: Path) -> None:
    assert len(secret_key.load_or_create(tmp_path / "secret-key")) >= 50


def test_secret_key_file_is_readable_by_owner_only(tmp_path: Path) -> None:
    key_file = tmp_path / "secret-key"
    secret_key.load_or_create(key_file)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_secret_keys_of_two_files_differ(tmp_path: Path) -> None:
    assert secret_key.load_or_create(tmp_path / "a") != secret_key.load_or_create(tmp_path / "b")


def test_secret_key_in_unwritable_place_raises_improperly_configured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
        secret_key.load_or_create(tmp_path / "file" / "secret-key")


def test_secret_key_from_empty_file_raises_improperly_configured(tmp_path: Path) -> None:
    (tmp_path / "secret-key").write_text("")
    with pytest.raises(ImproperlyConfigured):
        secret_key.load_or_create(tmp_path / "secret-key")
