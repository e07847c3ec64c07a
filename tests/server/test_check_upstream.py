"""`manage.py check_upstream` as a process: its text and its exit status."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from dashboard.management.commands import check_upstream
from dashboard.sandbox import Sandbox, parse_fault
from tests.support import processes
from tests.support.processes import manage

pytestmark = pytest.mark.process

TOKEN = "sandbox"


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[str, Sandbox]]:
    with processes.upstream() as running:
        yield running


@pytest.fixture
def given(upstream: tuple[str, Sandbox], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of a process with a token and a new database."""
    url, sandbox = upstream
    yield {
        "NORTHFLANK_API_TOKEN": TOKEN,
        "NORTHFLANK_API_BASE_URL": url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'new.sqlite3'}",
    }
    sandbox.faults = []


def test_check_command_before_first_start_prints_report(given: dict[str, str]) -> None:
    ended = manage("check_upstream", **given)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[:2] == [
        f"Northflank: {given['NORTHFLANK_API_BASE_URL']}, token from the environment",
        "All that was tried can be read.",
    ]
    assert re.search(r"Production: \d+\+? runs, \d+ in flight", ended.stdout)


def test_check_command_knows_a_token_that_only_the_file_has(settings: Settings) -> None:
    assert check_upstream.token_source() == "the environment"
    settings.ENV_FILE_NAMES = {"NORTHFLANK_API_TOKEN"}
    assert check_upstream.token_source() == str(settings.BASE_DIR / ".env")


def test_check_command_with_unreachable_database_goes_on(given: dict[str, str]) -> None:
    database = {"DATABASE_URL": "postgres://nobody@127.0.0.1:9/none", "SECRET_KEY": "x" * 50}
    ended = manage("check_upstream", **given | database)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stdout + ended.stderr


def test_check_command_with_missing_permission_exits_with_1_and_names_it(
    given: dict[str, str], upstream: tuple[str, Sandbox]
) -> None:
    upstream[1].faults = [parse_fault("error-without-wrapper:403@/runs$")]
    ended = manage("check_upstream", **given)
    assert ended.returncode == 1
    assert "\nSomething cannot be read, or is missing.\n" in ended.stdout
    assert "Check the role of NORTHFLANK_API_TOKEN: " in ended.stdout
    assert re.search(r"read runs +no \(forbidden\)", ended.stdout)


@pytest.mark.slow
def test_check_command_with_refused_token_exits_with_2_without_token(
    given: dict[str, str],
) -> None:
    token = "mistyped-token-of-this-test"
    ended = manage("check_upstream", **given | {"NORTHFLANK_API_TOKEN": token})
    assert ended.returncode == 2
    assert "Northflank rejected the API token (401)" in ended.stdout
    assert "Check NORTHFLANK_API_TOKEN: " in ended.stdout
    assert token not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({"NORTHFLANK_API_TOKEN": ""}, "NORTHFLANK_API_TOKEN is not set."),
        ({"NORTHFLANK_API_TOKEN": "two words"}, "(dashboard.E002)"),
        ({"NORTHFLANK_API_BASE_URL": "http://127.0.0.1/v1"}, "(dashboard.E003)"),
    ],
)
def test_check_command_with_invalid_setting_exits_with_1(
    given: dict[str, str], invalid: dict[str, str], message: str
) -> None:
    ended = manage("check_upstream", **given | invalid)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "two words" not in ended.stderr
    assert "Traceback" not in ended.stderr
