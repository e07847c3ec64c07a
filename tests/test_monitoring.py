"""The rules and alerts for Prometheus, by its own tool."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "deploy" / "monitoring"
ALERTS = re.findall(r"- alert: (\w+)", (FILES / "alerts.yaml").read_text())


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on this machine")
def test_prometheus_accepts_the_rules_and_each_alert_fires_when_it_should() -> None:
    result = subprocess.run(
        ["make", "--silent", "monitoring"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_firing_and_silent_and_described(alert: str) -> None:
    tests = (FILES / "tests.yaml").read_text()
    assert re.search(rf"alertname: {alert}\n +eval_time: .*\n +exp_alerts:\n +- exp_labels", tests)
    assert re.search(rf"alertname: {alert}, .*exp_alerts: \[\]", tests)
    assert f"run/alerts.md#{alert.lower()}\n" in tests
    assert f"\n## {alert}\n" in (ROOT / "docs" / "run" / "alerts.md").read_text()
