"""Databases that lack this version's tables are refused, with what to do."""

from collections.abc import Callable

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from dashboard.db import schema
from dashboard.management.commands.serve import prepare


def test_migrated_database_is_accepted(db: None) -> None:
    schema.verify(connection)


def test_database_that_lacks_a_migration_is_not_migrated(db: None) -> None:
    [(_, last)] = MigrationLoader(connection).graph.leaf_nodes("dashboard")
    MigrationRecorder(connection).record_unapplied("dashboard", last)
    with pytest.raises(schema.NotMigrated, match=r"run `manage.py migrate` first"):
        schema.verify(connection)


@pytest.fixture
def unreleased_database(db: None) -> None:
    """A database whose migrations have the names of ours, as of an unreleased version."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE dashboard_webhookevent (id integer)")


@pytest.mark.parametrize(
    "start",
    [
        prepare,  # serve and sync
        lambda: call_command("runs"),
    ],
    ids=["serve", "runs"],
)
@pytest.mark.usefixtures("unreleased_database")
def test_database_of_an_unreleased_version_is_refused(start: Callable[[], None]) -> None:
    with pytest.raises(CommandError, match=r"unreleased version.*set DATABASE_URL to an empty one"):
        start()


@pytest.mark.usefixtures("unreleased_database")
def test_unreleased_version_is_found_before_missing_migrations() -> None:
    MigrationRecorder(connection).record_unapplied("dashboard", "0001_initial")
    with pytest.raises(CommandError, match="unreleased version"):
        schema.verify(connection)
