"""The files of deploy/, each read by the program it is for."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.services import IN_CI

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "deploy" / "monitoring"
ALERTS = re.findall(r"- alert: (\w+)", (FILES / "alerts.yaml").read_text())
COMPOSE = ROOT / "compose.yaml"
COMPOSE_POSTGRESQL = ROOT / "deploy" / "compose.postgresql.yaml"
UNITS = [path.name for path in sorted((ROOT / "deploy").glob("dashboard*.*"))]
KUSTOMIZATIONS = [path.parent.name for path in (ROOT / "deploy").rglob("kustomization.yaml")]
SECRETS = ("NORTHFLANK_API_TOKEN", "SECRET_KEY", "DATABASE_URL", "POSTGRES_PASSWORD")

pytestmark = pytest.mark.process


def run(program: str, *arguments: str | Path, **environment: str) -> tuple[int, str]:
    """Return a program's exit status and output; skip the test if it is missing, or fail in CI."""
    if not shutil.which(program):
        assert not IN_CI, f"{program} is missing"
        pytest.skip(f"{program} is not on this machine")
    clean = {name: value for name, value in os.environ.items() if name not in SECRETS}
    result = subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "environment", "is_valid"),
    [
        (COMPOSE, {"NORTHFLANK_API_TOKEN": "x"}, True),
        (COMPOSE, {"NORTHFLANK_API_TOKEN_FILE": "x"}, True),
        (COMPOSE, {}, False),
        (COMPOSE_POSTGRESQL, {"BASE_URL": "x"} | dict.fromkeys(SECRETS, "x"), True),
        (
            COMPOSE_POSTGRESQL,
            {"BASE_URL": "x"} | {f"{name}_FILE": "x" for name in SECRETS},
            True,
        ),
    ],
)
def test_compose_accepts_the_file_with_its_secrets_only(
    file: Path, environment: dict[str, str], is_valid: bool
) -> None:
    arguments = ("--project-directory", ROOT, "--file", file, "config", "--quiet")
    status, output = run("docker-compose", *arguments, **environment)
    assert (status == 0) == is_valid, output


def test_caddy_accepts_its_file() -> None:
    arguments = ("validate", "--adapter", "caddyfile", "--config", ROOT / "deploy" / "Caddyfile")
    status, output = run("caddy", *arguments, SITE_ADDRESS="dashboard.example")
    assert status == 0, output


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_kustomize_builds_the_folder(name: str) -> None:
    status, output = run("kustomize", "build", ROOT / "deploy" / "kubernetes" / name)
    assert status == 0, output


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    for unit in UNITS:  # a timer is read with its service, whose program is not on this machine
        text = (ROOT / "deploy" / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/opt/dashboard/venv/bin/python", "/bin/true"))
    status, output = run("systemd-analyze", "verify", "--man=no", tmp_path / name)
    assert (status, output) == (0, "")


def test_prometheus_accepts_the_rules_and_each_alert_fires_when_it_should() -> None:
    rules = [FILES / name for name in ("addresses.yaml", "rules.yaml", "alerts.yaml")]
    status, output = run("promtool", "check", "rules", *rules)
    assert status == 0, output
    status, output = run("promtool", "test", "rules", FILES / "tests.yaml")
    assert status == 0, output


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_firing_and_silent_and_described(alert: str) -> None:
    tests = (FILES / "tests.yaml").read_text()
    assert re.search(rf"alertname: {alert}\n +eval_time: .*\n +exp_alerts:\n +- exp_labels", tests)
    assert re.search(rf"alertname: {alert}, .*exp_alerts: \[\]", tests)
    assert f"run/alerts.md#{alert.lower()}\n" in tests
    assert f"\n## {alert}\n" in (ROOT / "docs" / "run" / "alerts.md").read_text()
