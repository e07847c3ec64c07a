"""Database triggers that make the records of aborts, of access and of rights append-only.

They refuse, on SQLite and PostgreSQL, to delete a record, and to change more of it than
_CHANGEABLE allows. They guard against our own bugs and against manual changes at a database prompt;
the owner of the database can still drop them. They are installed after each migration, since SQLite
drops a table's triggers when Django rebuilds it, and dropped before, so that a migration may change
these tables.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.apps import AppConfig
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate, pre_migrate

from dashboard.models.aborts import Abort, AbortEvent
from dashboard.models.accounts.access import AccessEvent
from dashboard.models.accounts.rights_changes import RightsChange
from dashboard.models.bulk_aborts import BulkAbort, BulkAbortItem

MIN_ACCESS_LOG_DAYS = 30  # whatever the settings say, younger events cannot be deleted

# The username stays as evidence: deleting the account sets `user_id` to NULL.
_USER: dict[str, tuple[str, ...]] = {"NEW.user_id IS NOT NULL": ("user_id",)}
# The columns of a record that may change, by the condition in which they may not; all others never.
_CHANGEABLE: dict[type[models.Model], dict[str, tuple[str, ...]]] = {
    Abort: _USER
    | {
        "OLD.settled_at IS NOT NULL": (
            "settled_at",
            "state",
            "claimed_at",
            "sent_at",
            "send_count",
            "responded_at",
            "response",
            "response_status",
            "error_id",
            "retry_at",
            "outcome",
        )
    },
    AbortEvent: {},
    BulkAbort: _USER | {"OLD.settled_at IS NOT NULL": ("settled_at",), "": ("claimed_at",)},
    BulkAbortItem: {"OLD.result <> 'waiting'": ("result", "abort_id", "note")},
    AccessEvent: _USER,
    RightsChange: {},
}
TABLES = tuple(model._meta.db_table for model in _CHANGEABLE)

_ACCESS_EVENTS = AccessEvent._meta.db_table
# Only pruning sets the limit, and only inside its transaction.
_IS_BEFORE_LIMIT = (
    "EXISTS (SELECT 1 FROM dashboard_pruning WHERE OLD.occurred_at < access_log_limit)"
)
# SQLite stores times as text in UTC, which sorts as the times do.
_SQLITE_IS_KEPT = (
    f"OLD.occurred_at >= datetime('now', '-{MIN_ACCESS_LOG_DAYS} days') OR NOT {_IS_BEFORE_LIMIT}"
)
# A condition of a trigger may contain no query on PostgreSQL, but a function may.
_POSTGRESQL_FUNCTION = f"""
CREATE OR REPLACE FUNCTION dashboard_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = '{_ACCESS_EVENTS}' AND TG_OP = 'DELETE' THEN
        IF OLD.occurred_at < now() - interval '{MIN_ACCESS_LOG_DAYS} days' AND {_IS_BEFORE_LIMIT}
        THEN RETURN OLD; END IF;
    END IF;
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
END $$
"""
# At a prompt SQLite leaves foreign keys unchecked; without its run, stage, pipeline or project an
# abort would be in no list any more. Each row with what refers to it.
_SQLITE_REFERENCES = {
    "dashboard_run": ("dashboard_abort.run_id", "dashboard_bulkabortitem.run_id"),
    "dashboard_work": ("dashboard_abort.work_id",),
    "dashboard_stage": ("dashboard_run.stage_id",),
    "dashboard_pipeline": ("dashboard_stage.pipeline_id",),
    "dashboard_project": ("dashboard_pipeline.project_id",),
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """Refuses an event, such as `DELETE` or `UPDATE OF state`, of the rows of a condition."""

    table: str
    event: str
    condition: str = ""  # empty: all rows

    def statement(self, name: str, database: BaseDatabaseWrapper) -> str:
        """Return the SQL that creates it."""
        level = "STATEMENT" if self.event == "TRUNCATE" else "ROW"
        verb = "changed" if self.event.startswith("UPDATE") else "deleted"
        message = f"What {self.table} records cannot be {verb}."
        action = (
            f"EXECUTE FUNCTION dashboard_refuse('{message}')"
            if database.vendor == "postgresql"
            else f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
        when = f"WHEN ({self.condition})" if self.condition else ""
        start = f"CREATE TRIGGER {name} BEFORE {self.event} ON {self.table}"
        return f"{start} FOR EACH {level} {when} {action}"


def triggers(database: BaseDatabaseWrapper) -> dict[str, Trigger]:
    """Return the triggers of a database, by name."""
    found = {}
    for model, changeable in _CHANGEABLE.items():
        table = model._meta.db_table
        fixed = {str(field.column) for field in model._meta.concrete_fields}
        fixed.difference_update(*changeable.values())
        found[f"{table}_no_delete"] = Trigger(table, "DELETE")
        found[f"{table}_fixed"] = Trigger(table, _update_of(sorted(fixed)))
        for condition, names in changeable.items():
            if condition:
                event = _update_of(names)
                found[f"{table}_{names[0]}_fixed"] = Trigger(table, event, condition)
        if database.vendor == "postgresql":
            found[f"{table}_no_truncate"] = Trigger(table, "TRUNCATE")
    if database.vendor == "sqlite":
        delete = f"{_ACCESS_EVENTS}_no_delete"
        found[delete] = Trigger(_ACCESS_EVENTS, "DELETE", _SQLITE_IS_KEPT)
        for table, columns in _SQLITE_REFERENCES.items():
            found[f"{table}_no_delete"] = Trigger(table, "DELETE", _is_referred_to(columns))
    return found


def _update_of(columns: Iterable[str]) -> str:
    return f"UPDATE OF {', '.join(columns)}"


def _is_referred_to(columns: Iterable[str]) -> str:
    return " OR ".join(
        f"EXISTS (SELECT 1 FROM {column.partition('.')[0]} WHERE {column} = OLD.id)"  # noqa: S608
        for column in columns
    )


def are_triggers_installed(database: BaseDatabaseWrapper) -> bool:
    """Return whether all triggers exist and are enabled."""
    query = (
        "SELECT tgname FROM pg_trigger"
        " WHERE pg_table_is_visible(tgrelid) AND tgenabled IN ('O', 'A')"
        if database.vendor == "postgresql"
        else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    )
    with database.cursor() as cursor:
        cursor.execute(query)
        return triggers(database).keys() <= {name for (name,) in cursor.fetchall()}


def install_triggers(database: BaseDatabaseWrapper) -> None:
    """Create or recreate the triggers, if there are tables."""
    if TABLES[0] not in database.introspection.table_names():
        return
    drop_triggers(database)
    with database.cursor() as cursor:
        if database.vendor == "postgresql":
            cursor.execute(_POSTGRESQL_FUNCTION)
        for name, trigger in triggers(database).items():
            cursor.execute(trigger.statement(name, database))


def drop_triggers(database: BaseDatabaseWrapper) -> None:
    """Drop the triggers that exist."""
    with database.cursor() as cursor:
        for name, trigger in triggers(database).items():
            on_clause = f" ON {trigger.table}" if database.vendor == "postgresql" else ""
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on_clause}")


def register(app_config: AppConfig) -> None:
    """Install the triggers after each migration of this application.

    On SQLite, which writes altered tables anew, they are dropped before it.
    """
    pre_migrate.connect(
        _before_migrate, sender=app_config, dispatch_uid="dashboard.append_only.lift"
    )
    post_migrate.connect(
        _after_migrate, sender=app_config, dispatch_uid="dashboard.append_only.guard"
    )


def _before_migrate(*, using: str, **_: Any) -> None:
    # On PostgreSQL others may use the database for as long as the migration takes.
    if connections[using].vendor == "sqlite":
        drop_triggers(connections[using])


def _after_migrate(*, using: str, **_: Any) -> None:
    install_triggers(connections[using])
