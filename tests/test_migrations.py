"""Which migrations allow a rolling restart: docs/upgrade.md."""

from pathlib import Path

import pytest
from django.db import connection, migrations
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder

from dashboard.db import pending_migrations

UPGRADE = Path(__file__).resolve().parents[1] / "docs" / "upgrade.md"
FIRST = "0001_initial"

# Operations of migrations before the restart that are no additions, with the reason why an older
# version can serve beside them.
HARMLESS = {
    "0002_sessions_rights_and_pruning": {
        "Raw Python operation": "it only locks the tables that get columns",
        "Alter field kind on accessevent": "choices are not in the database",
    },
    "0003_compress_steps": {
        "Raw Python operation": "it fills a column that the older version does not know",
    },
}


def later_migrations() -> list[Migration]:
    """Return ours after the first, in order."""
    loader = MigrationLoader(None)
    names = sorted(name for app, name in loader.disk_migrations if app == "dashboard")
    assert names[0] == FIRST
    return [loader.disk_migrations["dashboard", name] for name in names[1:]]


def is_addition(operation: Operation) -> bool:
    """Return whether an older version reads and writes as before after an operation."""
    match operation:
        case migrations.CreateModel() | migrations.AddIndex():
            return True
        case migrations.AddField(field=field):
            return field.null or field.has_db_default()
        case migrations.SeparateDatabaseAndState(database_operations=changes):
            return all(is_addition(change) for change in changes)
        case _:
            return False


@pytest.mark.parametrize("migration", later_migrations(), ids=lambda migration: migration.name)
def test_migration_before_the_restart_only_adds(migration: Migration) -> None:
    if getattr(migration, "is_after_restart", False):
        return  # no older version serves any more
    others = [
        operation.describe() for operation in migration.operations if not is_addition(operation)
    ]
    assert set(others) == HARMLESS.get(migration.name, {}).keys()


def test_document_says_of_each_migration_whether_older_versions_can_serve() -> None:
    lines = {
        line.split("|")[1].strip(" `"): line
        for line in UPGRADE.read_text().splitlines()
        if line.startswith("| `0")
    }
    assert list(lines) == [migration.name for migration in later_migrations()]
    for migration in later_migrations():
        is_before = not getattr(migration, "is_after_restart", False)
        assert ("| before |" in lines[migration.name]) is is_before, migration.name


def test_migrated_database_has_no_pending_migration(db: None) -> None:
    assert pending_migrations.load(connection) == pending_migrations.PendingMigrations([], [])


def test_pending_migration_is_for_before_or_after_the_restart(db: None) -> None:
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("dashboard", "0005_fewer_indexes_of_runs")
    pending = pending_migrations.load(connection)
    assert (pending.before_start, pending.after_restart) == (
        [],
        ["dashboard.0005_fewer_indexes_of_runs"],
    )
    recorder.record_unapplied("dashboard", "0004_drop_uncompressed_steps")
    recorder.record_unapplied("dashboard", "0003_compress_steps")
    assert pending_migrations.load(connection).before_start == ["dashboard.0003_compress_steps"]


def test_database_of_an_unreleased_version_is_recognised(db: None) -> None:
    assert not pending_migrations.load(connection).has_prerelease_schema
    for migration in later_migrations():
        MigrationRecorder(connection).record_unapplied("dashboard", migration.name)
    assert pending_migrations.load(connection).has_prerelease_schema
