"""The `.env` file: whatever of it cannot be read stops the start, and no value is printed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dashboard.config.env_file import read_env_file
from tests.support import processes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_missing_file_has_no_lines(path: Path) -> None:
    assert read_env_file(path) == ""


def test_lines_are_kept_without_comments_and_empty_lines(path: Path) -> None:
    path.write_text("# Comment\n\n  \n  # indented\nBASE_URL=\nexport LOG_LEVEL=INFO\nA='b = c'\n")
    assert read_env_file(path) == "BASE_URL=\nexport LOG_LEVEL=INFO\nA='b = c'"


def test_byte_order_mark_is_no_part_of_the_first_name(path: Path) -> None:
    path.write_text("BASE_URL=https://a.example\n", "utf-8-sig")
    assert read_env_file(path) == "BASE_URL=https://a.example"


@pytest.mark.parametrize(
    "line",
    [
        " NORTHFLANK_API_TOKEN=s3cret",
        "NORTHFLANK_API_TOKEN = s3cret",
        "NORTHFLANK_API_TOKEN: s3cret",
        "s3cret",
        "NORTHFLANK-API-TOKEN=s3cret",
    ],
)
def test_line_that_sets_nothing_is_refused_by_its_number_alone(path: Path, line: str) -> None:
    path.write_text(f"BASE_URL=\n{line}\n")
    with pytest.raises(ImproperlyConfigured) as refusal:
        read_env_file(path)
    assert str(refusal.value) == (
        f'Line 2 of {path} is not NAME=value. Write it without spaces before it and around "=".'
    )


def test_directory_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ImproperlyConfigured, match=r"\.env cannot be read: Is a directory\."):
        read_env_file(path)


def test_link_that_leads_nowhere_is_refused(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(ImproperlyConfigured, match=r"cannot be read: No such file or directory\."):
        read_env_file(path)


def test_other_encoding_is_refused(path: Path) -> None:
    path.write_bytes("SECRET_KEY=geheim-ü".encode("latin-1"))
    with pytest.raises(ImproperlyConfigured, match=r"cannot be read: it is not UTF-8\.") as refusal:
        read_env_file(path)
    assert refusal.value.__cause__ is None  # it would quote bytes of the file


def run_copy(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy of the settings: the file lies beside manage.py."""
    for name in ("manage.py", "pyproject.toml"):
        shutil.copy(settings.BASE_DIR / name, folder)
    for name in ("__init__.py", "settings.py", "config"):
        source, target = settings.BASE_DIR / "dashboard" / name, folder / "dashboard" / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=processes.environment(**variables),
        capture_output=True,
        text=True,
        timeout=processes.WAIT_TIMEOUT,
        check=False,
    )


@pytest.mark.process
def test_settings_tell_the_names_of_the_file_from_those_of_the_environment(tmp_path: Path) -> None:
    lines = ["OIDC_ALLOWED_DOMAIN=a.example", "export TOKEN_A=x", "TOKEN_B=x", "LOG_LEVEL=INFO"]
    (tmp_path / ".env").write_text("\n".join(lines))
    program = "from dashboard.settings import ENV_FILE_NAMES; print(*sorted(ENV_FILE_NAMES))"
    result = run_copy(tmp_path, "-c", program, TOKEN_B="y")
    assert result.stdout == "OIDC_ALLOWED_DOMAIN TOKEN_A\n", result.stderr


@pytest.mark.process
@pytest.mark.parametrize("command", ["check_upstream", "serve", "check"])
def test_command_with_unreadable_file_exits_with_2_and_a_sentence(
    tmp_path: Path, command: str
) -> None:
    # The commands themselves are not reached.
    (tmp_path / ".env").write_text("NORTHFLANK_API_TOKEN = s3cret\n")
    result = run_copy(tmp_path, "manage.py", command)
    assert result.returncode == 2
    assert result.stderr == (
        f"Line 1 of {tmp_path / '.env'} is not NAME=value. "
        'Write it without spaces before it and around "=".\n'
    )
