"""Each scenario of the sandbox has a database of its own, with the runs of one world."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.support import processes
from tests.support.live_runs import wait_until
from tests.support.processes import environment, start

pytestmark = pytest.mark.process

STUCK = ("--scenario", "stuck-production")
OPENED_AT = int(time.time()) - 900  # within the lists of runs
OPENED = ("--opened", str(OPENED_AT))
NAMES = "SELECT name FROM dashboard_run WHERE name = 'Basket totals 4719'"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the product, with no file under `var/` yet."""
    for folder in ("dashboard", "static", "templates"):
        shutil.copytree(settings.BASE_DIR / folder, tmp_path / folder)
    for name in ("manage.py", "pyproject.toml"):
        shutil.copy(settings.BASE_DIR / name, tmp_path)
    return tmp_path


def serve(checkout: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(checkout / "manage.py"), "serve", "--port", "0", *arguments]


def read(file: Path, statement: str) -> list[Any]:
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as database:
        try:
            return database.execute(statement).fetchall()
        except sqlite3.OperationalError:  # not migrated yet
            return []


def wait_for_stuck_run(file: Path) -> None:
    wait_until(lambda: read(file, NAMES), processes.WAIT_TIMEOUT)


@pytest.mark.slow
def test_scenario_begins_with_a_new_database_unless_another_process_has_it(checkout: Path) -> None:
    file = checkout / "var" / "sandbox-stuck-production.sqlite3"
    with start(serve(checkout, *STUCK, *OPENED), checkout):
        wait_for_stuck_run(file)
        later = serve(checkout, *STUCK, "--opened", str(OPENED_AT + 600))
        second = subprocess.run(
            later, env=environment(), capture_output=True, text=True, check=False, timeout=60
        )
        assert second.returncode == 1
        assert f"Another process serves from {file} " in second.stderr
    with start(later, checkout) as dashboard:
        wait_for_stuck_run(file)
        assert len(read(file, NAMES)) == 1
        dashboard.end(signal.SIGINT)
