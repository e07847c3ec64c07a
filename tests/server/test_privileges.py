"""A PostgreSQL account that does not own the tables, as docs/run/install.md recommends."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.support.databases import postgres
from tests.support.processes import manage, run_manage
from tests.support.services import POSTGRES

pytestmark = [pytest.mark.process, pytest.mark.postgres]

ROLE = f"dashboard_account_{os.getpid()}"
PRIVILEGES = "SELECT, INSERT, UPDATE, DELETE"
# Nothing answers there.
NORTHFLANK = {"NORTHFLANK_API_TOKEN": "x", "NORTHFLANK_API_BASE_URL": "http://127.0.0.1:9"}


@dataclass
class Site:
    """A database as its owner, and as the dashboard's account."""

    owner: str
    account: str

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.owner) as connection:
            connection.execute(statement)

    def migrate(self, *arguments: str) -> None:
        result = manage("migrate", *arguments, "-v0", DATABASE_URL=self.owner)
        assert result.returncode == 0, result.stderr

    def error(self) -> str:
        """Return why `serve` does not start."""
        result = manage("serve", "--port=0", DATABASE_URL=self.account, **NORTHFLANK)
        assert result.returncode == 1, result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr


@pytest.fixture
def site() -> Iterator[Site]:
    """An empty database."""
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"DROP ROLE IF EXISTS {ROLE}")
        server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}'")
        try:
            with postgres() as owner:
                yield Site(owner, re.sub(r"//[^@]*@", f"//{ROLE}:{ROLE}@", owner))
        finally:
            server.execute(f"DROP ROLE {ROLE}")


def assert_serves(site: Site, folder: Path) -> None:
    """Assert that an account can sign in, which reads and writes the new tables."""
    given = {"DATABASE_URL": site.owner, "DJANGO_SUPERUSER_PASSWORD": "boss"}
    manage("createsuperuser", "--noinput", "--username=boss", "--email=", **given)
    given = {"DATABASE_URL": site.account, **NORTHFLANK}
    with run_manage(folder, "serve", "--port=0", **given) as process:
        client = process.sign_in("boss")
        paths = ("/", "/board/", "/aborts/", "/status/")
        assert [client.get(path).status_code for path in paths] == [200] * 4


@pytest.mark.slow
def test_start_without_privileges_says_what_to_grant(site: Site, tmp_path: Path) -> None:
    site.migrate()
    site.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}")  # as after a restore
    assert "dashboard_run, " in site.error()
    tables = "auth_user, dashboard_run, dashboard_abortevent"
    site.execute(f"GRANT {PRIVILEGES} ON {tables} TO {ROLE}")
    error = site.error()
    grant = re.search("`(GRANT .*);`", error)
    assert grant, error
    assert "dashboard_session" in grant[1]
    assert "dashboard_run," not in grant[1]
    site.execute(grant[1])
    # No privilege to change what is only added to, or only migrated.
    site.execute(f"REVOKE UPDATE, DELETE ON dashboard_abortevent FROM {ROLE}")
    only_migrated = "django_migrations, django_content_type, auth_permission"
    site.execute(f"REVOKE INSERT, UPDATE, DELETE ON {only_migrated} FROM {ROLE}")
    assert_serves(site, tmp_path)
