"""Backups from before an identity provider was set, and from when one was set that is not now.

Only with one are allauth and its tables installed, which have the links of accounts to it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import postgres, query_database
from tests.support.processes import manage

pytestmark = pytest.mark.process

PROVIDER = {"OIDC_ISSUER": "https://id.example.com", "OIDC_CLIENT_ID": "dashboard"}
NO_PROVIDER: dict[str, str] = {}
CREATE_LINK = """
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
SocialAccount.objects.create(user=User.objects.create_user("ann"), provider="oidc", uid="subject")
"""
DELETE_LINK = """
from allauth.socialaccount.models import SocialAccount
SocialAccount.objects.all().delete()
"""
LINKS = "SELECT username, uid FROM socialaccount_socialaccount s JOIN auth_user u ON u.id = user_id"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'd.sqlite3'}"
    else:
        with postgres() as url:
            yield url


def run(database: str, provider: dict[str, str], *arguments: str) -> None:
    result = manage(*arguments, DATABASE_URL=database, **provider)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_backup_is_restored_where_a_provider_has_been_set_or_is_no_longer(
    database: str, tmp_path: Path
) -> None:
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    run(database, NO_PROVIDER, "migrate", "-v0")
    run(database, NO_PROVIDER, "backup", before)
    run(database, PROVIDER, "restore", before, "--replace")
    assert query_database(database, LINKS) == []
    run(database, PROVIDER, "migrate", "--check")
    run(database, PROVIDER, "shell", "--no-imports", "-c", CREATE_LINK)
    run(database, PROVIDER, "backup", after)
    run(database, PROVIDER, "shell", "--no-imports", "-c", DELETE_LINK)
    run(database, NO_PROVIDER, "restore", after, "--replace")
    assert query_database(database, LINKS) == [("ann", "subject")]
