"""Secrets from files: each can be, and a file that gives none stops the start."""

import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from dashboard.config.secret_files import read_secret
from tests.support import processes

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (ROOT / "dashboard" / "settings.py").read_text()


@pytest.mark.process
def test_every_secret_is_read_from_the_file_of_its_variable(tmp_path: Path) -> None:
    names = re.findall(r'_secret\("(\w+)"\)', SETTINGS)
    assert {"NORTHFLANK_API_TOKEN", "SECRET_KEY", "DATABASE_URL"} < set(names)
    files = {}
    for name in names:
        file = tmp_path / name
        file.write_text(f"{name.lower()}-{'0123456789' * 5}\n")
        files |= {name: "", f"{name}_FILE": str(file)}
    (tmp_path / "NOTIFY_URLS").write_text(f"ops=notify_urls-{'0123456789' * 5}")
    (tmp_path / "DATABASE_URL").write_text("postgres://u:p@db.example/named\n")
    values = f"*[getattr(s, name, '') for name in {names}]"
    script = (
        f"from django.conf import settings as s; print(s.DATABASES['default']['NAME'], {values})"
    )
    result = processes.manage("shell", "--no-imports", "-c", script, **files)
    assert result.stdout.startswith("named "), result.stderr
    missing = [name for name in names if f"{name.lower()}-0123456789" not in result.stdout]
    assert missing == ["DATABASE_URL"]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "cannot be read as text"),
    ],
)
def test_file_without_a_secret_is_refused(
    tmp_path: Path, contents: bytes | None, reason: str
) -> None:
    file = tmp_path / "token"
    if contents is not None:
        file.write_bytes(contents)
    with pytest.raises(ImproperlyConfigured, match=f"TOKEN_FILE names, {file}, {reason}"):
        read_secret("TOKEN", "", str(file))


def test_secret_and_file_together_are_refused_without_the_secret(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="both set") as raised:
        read_secret("TOKEN", "s3cret", str(tmp_path))
    assert "s3cret" not in str(raised.value)
