"""Settings: nonsense is refused with an id and a hint, and `.env.example` names them all."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from dashboard import settings as given
from dashboard.config import checks, secret_key

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line[:1].isupper()
)

NONSENSE = [
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
    ("OVERDUE_AGAIN_FACTOR", 1.2, "E015"),
    ("OVERDUE_FACTOR", 3.5, "E015"),
    ("BASE_URL", "releases.example.com", "E008"),
    ("BASE_URL", "javascript:alert(1)", "E008"),
    ("BASE_URL", "https://example.com/releases?a=b", "E008"),
    ("BASE_URL", "https://example.com/re%20leases", "E008"),
    ("BASE_URL", "https://example.com//releases", "E008"),
]


def ids() -> list[str]:
    return [str(found.id) for found in checks.check_settings()]


def test_the_tests_own_settings_are_clean() -> None:
    assert ids() == []


@pytest.mark.parametrize(("name", "value", "id"), NONSENSE)
def test_nonsense_is_refused(settings: Settings, name: str, value: object, id: str) -> None:
    setattr(settings, name, value)
    assert ids() == [f"dashboard.{id}"]


@pytest.mark.parametrize(("name", "value", "id"), NONSENSE)
def test_what_is_refused_comes_with_a_hint(
    settings: Settings, name: str, value: object, id: str
) -> None:
    setattr(settings, name, value)
    assert checks.check_settings()[0].hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("NORTHFLANK_API_TOKEN", "s3cr3t tok en"), ("NORTHFLANK_WEBHOOK_SECRET", ["s3cr3t"])],
)
def test_a_token_is_not_quoted_in_the_message(settings: Settings, name: str, value: object) -> None:
    setattr(settings, name, value)
    assert "s3cr3t" not in str(checks.check_settings()[0])


@pytest.mark.parametrize("name", ["READ_ONLY", "ABORTS_ENABLED", "TIME_ZONE", "LOG_LEVEL"])
def test_what_was_misread_is_refused(settings: Settings, name: str) -> None:
    settings.MISREAD = {name: "perhaps"}
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
        ("OVERDUE_AGAIN_FACTOR", 1.5),
        ("BASE_URL", "https://releases.example.com"),
        ("BASE_URL", "http://[::1]:8000"),
        ("BASE_URL", "https://example.com:8443/tools/release-flows"),
    ],
)
def test_what_makes_sense_is_taken(settings: Settings, name: str, value: object) -> None:
    setattr(settings, name, value)
    assert ids() == []


@pytest.mark.parametrize(
    ("engine", "warned"), [("postgresql", ["dashboard.W001"]), ("sqlite3", [])]
)
def test_a_local_key_is_warned_of_where_the_database_is_shared(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, engine: str, warned: list[str]
) -> None:
    settings.SECRET_KEY_IS_LOCAL = True
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", f"django.db.backends.{engine}")
    assert ids() == warned


@pytest.mark.parametrize(
    ("base", "parts"),
    [
        ("", ([], [], "")),
        ("nonsense", ([], [], "")),
        ("https://a.example", (["https://a.example"], ["a.example"], "")),
        ("http://a.example:81/x/y", (["http://a.example:81"], ["a.example"], "/x/y")),
        ("http://[::1]:81/x", (["http://[::1]:81"], ["[::1]"], "/x")),
    ],
)
def test_the_address_that_people_open_says_host_origin_and_path(
    base: str, parts: tuple[list[str], list[str], str]
) -> None:
    assert given.address_parts(base) == parts


def test_every_setting_that_is_read_is_in_the_example() -> None:
    source = (ROOT / "dashboard" / "settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|_\w+)\(\s*"([A-Z_]+)"', source))
    assert read == set(EXAMPLE)


def manage(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py with exactly this environment."""
    given = dict.fromkeys(EXAMPLE, "") | {
        "SECRET_KEY": "x" * 20 + "Qw3rTy" * 10,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
    }
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | given | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_examples_values_are_clean(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", **{k: v for k, v in EXAMPLE.items() if v})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("base", ["https://releases.example.com", "https://example.com/releases"])
def test_the_check_for_production_is_clean(tmp_path: Path, base: str) -> None:
    done = manage(
        tmp_path,
        *("check", "--deploy", "--fail-level", "WARNING"),
        BASE_URL=base,
        NORTHFLANK_API_TOKEN="nf-token",
    )
    assert done.returncode == 0, done.stderr


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
        "OVERDUE_AGAIN_FACTOR": "often",
        "OVERDUE_RUN_AFTER": "-1",
        "OVERDUE_QUEUED_AFTER": "soon",
        "OVERDUE_APPROVAL_AFTER": "4h",
        "OVERDUE_FLOOR": "0",
    },
    "E002": {"NORTHFLANK_API_TOKEN": "tok en"},
    "E006": {"NORTHFLANK_REQUEST_RESERVE": "lots"},
    "E012": {"ABORT_REASON_REQUIRED": "production,prod"},
}


@pytest.mark.parametrize("id", REFUSED_AT_START)
def test_the_process_does_not_start_with_nonsense(tmp_path: Path, id: str) -> None:
    done = manage(tmp_path, "check", **REFUSED_AT_START[id])
    assert (done.returncode != 0, f"dashboard.{id}" in done.stderr) == (True, True), done.stderr


def test_each_misread_setting_is_named(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", **REFUSED_AT_START["E001"])
    assert [name for name in REFUSED_AT_START["E001"] if f"{name} is" not in done.stderr] == []


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
def test_stages_whose_aborts_take_a_reason_are_named_in_any_case(
    text: str, stages: list[str], tmp_path: Path
) -> None:
    script = "from django.conf import settings; print(settings.ABORT_REASON_REQUIRED)"
    told = manage(tmp_path, "shell", "--no-imports", "-c", script, ABORT_REASON_REQUIRED=text)
    assert told.stdout.strip() == str(stages), told.stderr


def test_a_database_address_that_is_none_is_refused_without_a_traceback(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", DATABASE_URL="nonsense")
    assert done.returncode != 0
    assert "DATABASE_URL" in done.stderr


def test_a_key_is_made_once(tmp_path: Path) -> None:
    place = tmp_path / "var" / "secret-key"
    assert secret_key.kept_in(place) == secret_key.kept_in(place)


def test_a_key_is_long(tmp_path: Path) -> None:
    assert len(secret_key.kept_in(tmp_path / "secret-key")) >= 50


def test_a_key_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    place = tmp_path / "secret-key"
    secret_key.kept_in(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    assert secret_key.kept_in(tmp_path / "a") != secret_key.kept_in(tmp_path / "b")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
        secret_key.kept_in(tmp_path / "file" / "secret-key")


def test_an_empty_key_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "secret-key").write_text("")
    with pytest.raises(ImproperlyConfigured):
        secret_key.kept_in(tmp_path / "secret-key")
