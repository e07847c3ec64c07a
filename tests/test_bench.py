"""The benchmarks start: each module can be imported by itself, as its script does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parent.parent / "bench"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_benchmark_can_be_imported_in_a_process_without_settings(name: str) -> None:
    environment = {key: os.environ[key] for key in os.environ.keys() - {"DJANGO_SETTINGS_MODULE"}}
    environment["PYTHONPATH"] = str(BENCH)
    result = subprocess.run(
        [sys.executable, "-c", f"import {name}"],
        cwd=BENCH.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert result.returncode == 0
