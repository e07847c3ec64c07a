"""Whether a database has the tables of this version."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import CommandError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

# The key of PostgreSQL's advisory lock: any number that nothing else locks in this database.
_MIGRATION_LOCK = 7_141_022


class NotMigrated(CommandError):
    """The database lacks migrations."""


def verify(database: BaseDatabaseWrapper) -> None:
    """Raise NotMigrated unless the database has all migrations; CommandError if none would help."""
    # A table that only unreleased versions have.
    if "dashboard_webhookevent" in database.introspection.table_names():
        raise CommandError(
            "The database was made by an unreleased version, and cannot be migrated: set "
            "DATABASE_URL to an empty one."
        )
    executor = MigrationExecutor(database)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise NotMigrated(
            "The database is not migrated: run `manage.py migrate` first, with the dashboard’s "
            "settings."
        )


@contextmanager
def exclusive_migration(database: BaseDatabaseWrapper) -> Iterator[None]:
    """Let no other process migrate meanwhile: of those that start together, one does it.

    From SQLite only one process serves.
    """
    if database.vendor == "sqlite":
        yield
        return
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_MIGRATION_LOCK])
