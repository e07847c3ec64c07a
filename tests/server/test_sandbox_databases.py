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
from tests.support.processes import environment, manage, run_manage, start

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
def test_scenario_opened_later_begins_with_new_database(checkout: Path) -> None:
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
        [[world]] = read(file, "SELECT sandbox_world FROM dashboard_upstream")
        assert world == f"--scenario stuck-production --seed 1 --opened {OPENED_AT + 600}"
        dashboard.end(signal.SIGINT)
    assert "Sandbox database replaced: it held other runs." in dashboard.log.read_text()


@pytest.mark.slow
def test_database_url_with_runs_of_other_scenario_is_rejected(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    with run_manage(tmp_path, "serve", "--port", "0", DATABASE_URL=url) as dashboard:
        # Until it answers, a process that was started in the background ignores SIGINT.
        assert dashboard.create_client().get("/healthz").status_code == 200
        dashboard.end(signal.SIGINT)
    ended = manage("serve", "--port", "0", *STUCK, *OPENED, DATABASE_URL=url)
    assert ended.returncode == 1
    assert "has runs of `serve --scenario everyday --seed 1 --origin " in ended.stderr
    assert (
        "these options are for `serve --scenario stuck-production --seed 1 --opened "
        f"{OPENED_AT}`. Use those options, or set DATABASE_URL to another database." in ended.stderr
    )
    assert "Traceback" not in ended.stderr
