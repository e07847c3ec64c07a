"""The settings in docs/run/configuration.md, `.env.example` and settings.py are the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
TABLES = (ROOT / "docs" / "run" / "configuration.md").read_text()
ROWS = re.findall(r"^\| `([A-Z_]+)` \| (.+?) \| (.+) \|$", TABLES, re.MULTILINE)


def test_table_lists_every_setting_once_in_order_of_env_example() -> None:
    assert [name for name, _, _ in ROWS] == list(EXAMPLE)


@pytest.mark.parametrize(("name", "default"), [(name, default) for name, default, _ in ROWS])
def test_table_default_matches_env_example(name: str, default: str) -> None:
    literal = re.fullmatch(r"`([^`]+)`", default)
    assert EXAMPLE[name] == (literal[1] if literal else "")


def test_files_for_containers_set_existing_settings_only() -> None:
    deploy = ROOT / "deploy"
    manifests = (deploy / "kubernetes").rglob("*.yaml")
    files = [ROOT / "compose.yaml", deploy / "compose.postgresql.yaml", deploy / "northflank.json"]
    text = "".join(file.read_text() for file in [*files, *manifests])
    # NAME: …, "NAME": … of what is set; - NAME=… of what Kubernetes sets.
    names = set(re.findall(r'^ +(?:- )?"?([A-Z][A-Z_]+)"?(?:: |=)', text, re.MULTILINE))
    others = {"POSTGRES_USER", "POSTGRES_PASSWORD", "SITE_ADDRESS"}  # of other images
    others |= {"PROJECT_NAME", "REGION", "REPOSITORY_URL", "REPOSITORY_TYPE", "BRANCH"}  # arguments
    names = {name.removesuffix("_FILE") for name in names}
    assert {"BASE_URL", "PORT"} < names
    assert names - others - EXAMPLE.keys() == set()


def load_settings(**environment: str) -> dict[str, Any]:
    """Return all settings as a process with this environment reads them, without any `.env`."""
    script = (
        "import json; from dashboard import settings; "
        "print(json.dumps({k: v for k, v in vars(settings).items() if k.isupper()},"
        " default=lambda value: type(value).__name__))"
    )
    empty = dict.fromkeys(EXAMPLE, "")  # an empty variable hides the one in `.env`
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | empty | {"SECRET_KEY": "x" * 50} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    settings: dict[str, Any] = json.loads(result.stdout)
    return settings


def test_env_example_values_equal_built_in_defaults() -> None:
    default = load_settings()
    example = load_settings(**{name: value for name, value in EXAMPLE.items() if value})
    # The sandbox's webhook secret is random.
    random = {"NORTHFLANK_WEBHOOK_SECRET", "KNOWN_SECRETS"}
    assert [name for name in default.keys() - random if example[name] != default[name]] == []
