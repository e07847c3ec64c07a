"""Which migrations a database lacks, and whether this version can serve without them.

A migration with `is_after_restart` takes away what an older version needs. So this version serves
before it, too, and it is applied once all processes have been restarted (docs/upgrade.md).
"""

from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor


@dataclass(frozen=True, slots=True)
class PendingMigrations:
    """The names of migrations that have not been applied, such as `dashboard.0002_…`."""

    before_start: list[str]
    after_restart: list[str]
    # The first migration of unreleased versions made what is in later ones now.
    has_prerelease_schema: bool = False


def load(database: BaseDatabaseWrapper) -> PendingMigrations:
    """Return the migrations that a database lacks; one that is not migrated lacks all."""
    executor = MigrationExecutor(database)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    tables = database.introspection.table_names() if plan else []
    second = ("dashboard", "0002_sessions_rights_and_pruning")
    is_pending = any((migration.app_label, migration.name) == second for migration, _ in plan)
    has_prerelease_schema = is_pending and "dashboard_pruning" in tables
    pending = PendingMigrations([], [], has_prerelease_schema)
    for migration, _is_backwards in plan:
        is_after_restart = getattr(migration, "is_after_restart", False)
        names = pending.after_restart if is_after_restart else pending.before_start
        names.append(f"{migration.app_label}.{migration.name}")
    return pending
