"""This version and a newer one on the same database, as at an upgrade and when going back.

The newer version is this one with a migration that only adds, as CONTRIBUTING.md asks of each: a
column of runs, a column of aborts with a default of the database, and a table.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from django.conf import settings
from selectolax.lexbor import LexborHTMLParser

from tests.support import databases, live, processes
from tests.support.live_runs import wait_until
from tests.support.processes import manage, run_manage

pytestmark = pytest.mark.process

LATEST = max(path.stem for path in (settings.BASE_DIR / "dashboard/migrations").glob("0*.py"))
NEWER_MIGRATION = f"""
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("dashboard", "{LATEST}")]
    operations = [
        migrations.AddField("run", "region", models.TextField(null=True)),
        migrations.AddField("abort", "urgent", models.BooleanField(db_default=False)),
        migrations.CreateModel("Region", [("id", models.BigAutoField(primary_key=True))]),
    ]
"""


@pytest.fixture
def newer_version(tmp_path: Path) -> Path:
    """A folder with the newer version."""
    folder = tmp_path / "newer"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(settings.BASE_DIR / "dashboard", folder / "dashboard", ignore=ignored)
    for name in ("manage.py", "pyproject.toml", "templates", "static", "docs"):
        (folder / name).symlink_to(settings.BASE_DIR / name)
    (folder / "dashboard/migrations/9999_region.py").write_text(NEWER_MIGRATION)
    return folder


@pytest.fixture
def postgres_url() -> Iterator[str]:
    with databases.postgres() as url:
        yield url


def manage_newer(folder: Path, *arguments: str, **variables: str) -> str:
    """Run a command of the newer version, and return its output."""
    environment = processes.environment(**variables) | {"PYTHONPATH": str(folder)}
    # Its own manage.py, since Python resolves the link of a script for its search path.
    command = [sys.executable, "-m", "django", *arguments]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def abort_first_run(client: httpx.Client) -> int:
    """Wait for a run that can be aborted, abort it, and return the status of the response."""

    def find_run() -> str:
        rows = LexborHTMLParser(client.get("/").text).css("[data-run]:not([data-status=aborting])")
        ids = (row.attributes["data-run"] or "" for row in rows if row.css_first("[data-abort]"))
        return next(ids, "")

    run_id = wait_until(find_run, processes.WAIT_TIMEOUT)
    address = str(client.get(f"/runs/{run_id}/").headers["location"])
    form = {"csrfmiddlewaretoken": live.token(client), "pick": "Stuck"}
    return client.post(f"{address}abort/", data=form).status_code


@pytest.mark.slow
@pytest.mark.postgres
def test_this_version_serves_and_aborts_while_a_newer_one_migrates(
    tmp_path: Path, newer_version: Path, postgres_url: str
) -> None:
    with run_manage(
        tmp_path, "serve", "--port", "0", "--migrate", DATABASE_URL=postgres_url
    ) as dashboard:
        client = dashboard.sign_in("manager")
        assert abort_first_run(client) == 302
        manage_newer(newer_version, "migrate", DATABASE_URL=postgres_url)
        assert abort_first_run(client) == 302
        assert client.get("/readyz").text == "ready\n"
    with psycopg.connect(postgres_url) as database:
        assert database.execute("SELECT urgent FROM dashboard_abort").fetchall() == [(False,)] * 2


@pytest.mark.slow
def test_going_back_from_a_newer_version_loses_nothing(tmp_path: Path, newer_version: Path) -> None:
    url = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    with run_manage(tmp_path, "serve", "--port", "0", DATABASE_URL=url) as dashboard:
        assert abort_first_run(dashboard.sign_in("manager")) == 302
    manage_newer(newer_version, "migrate", DATABASE_URL=url)
    with run_manage(tmp_path, "serve", "--port", "0", DATABASE_URL=url) as dashboard:
        client = dashboard.sign_in("manager")
        assert abort_first_run(client) == 302
        entries = client.get("/aborts/export.json").json()
        assert [entry["reason"] for entry in entries] == ["Stuck", "Stuck"]


@pytest.mark.slow
def test_backup_of_this_version_is_restored_by_a_newer_one_and_back(
    tmp_path: Path, newer_version: Path
) -> None:
    url, file = f"sqlite:///{tmp_path / 'd.sqlite3'}", str(tmp_path / "backup")
    processes.prepare_database(DATABASE_URL=url)
    assert manage("backup", file, DATABASE_URL=url).returncode == 0
    manage_newer(newer_version, "restore", "--replace", file, DATABASE_URL=url)
    assert "[X] 9999_region" in manage_newer(newer_version, "showmigrations", DATABASE_URL=url)
    result = manage("restore", "--replace", file, DATABASE_URL=url)
    assert result.returncode == 0, result.stderr
    assert "9999_region" not in manage("showmigrations", DATABASE_URL=url).stdout
    assert manage("check", "--database", "default", DATABASE_URL=url).returncode == 0
