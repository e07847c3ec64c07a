"""Database triggers that make the audit of aborts, of access and of rights append-only.

On PostgreSQL and SQLite they refuse to delete an abort, to change its request, to change a settled
abort, and to change or delete an event. For a bulk abort they protect who requested which runs and
the result of each. A change of rights can be neither changed nor deleted. An event of the access
log cannot be changed. It can be deleted once it is older than MIN_ACCESS_LOG_DAYS, and only in a
transaction that has set a limit (Pruning). They guard against our own bugs and against manual
changes at a database prompt; the owner of the database can still drop them. They are installed
after each migration, since SQLite drops a table's triggers when Django rebuilds it, and dropped
before, so that a migration may change these tables.
"""

import json
from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate, pre_migrate

from dashboard.models import audited_runs

ABORTS, EVENTS = "dashboard_abort", "dashboard_abortevent"
BULK_ABORTS, BULK_ABORT_ITEMS = "dashboard_bulkabort", "dashboard_bulkabortitem"
ACCESS_EVENTS, RIGHTS_CHANGES = "dashboard_accessevent", "dashboard_rightschange"
MIN_ACCESS_LOG_DAYS = 30  # whatever the settings say, younger events cannot be deleted
TABLES = (ABORTS, EVENTS, BULK_ABORTS, BULK_ABORT_ITEMS, ACCESS_EVENTS, RIGHTS_CHANGES)
# The username stays as evidence: deleting the account sets `user_id` to NULL.
_REQUEST_COLUMNS = "id", "username", "reason", "client_address", "via", "token_name", "requested_at"
_STATE_COLUMNS = (
    "state",
    "claimed_at",
    "sent_at",
    "send_count",
    "answered_at",
    "answer",
    "answer_status",
    "error_id",
    "retry_at",
    "outcome",
    "settled_at",
)
_ACCESS_COLUMNS = (
    "id",
    "occurred_at",
    "kind",
    "username",
    "changed_by",
    "client_address",
    "token_name",
    "detail",
)


def _update_of(*columns: str) -> str:
    return f"UPDATE OF {', '.join(columns)}"


_TRIGGERS = {  # name -> (table, event, condition, error message)
    "abort_no_delete": (ABORTS, "DELETE", "", "Aborts cannot be deleted."),
    "abort_request_fixed": (
        ABORTS,
        _update_of(
            *_REQUEST_COLUMNS, "run_id", "retry_of_id", "bulk_abort_id", "already_aborting_since"
        ),
        "",
        "An abort request cannot be changed.",
    ),
    "abort_user_fixed": (
        ABORTS,
        _update_of("user_id"),
        "NEW.user_id IS NOT NULL",
        "The user of an abort cannot be changed.",
    ),
    "abort_settled_fixed": (
        ABORTS,
        _update_of(*_STATE_COLUMNS),
        "OLD.settled_at IS NOT NULL",
        "A settled abort cannot be changed.",
    ),
    "abort_event_no_delete": (EVENTS, "DELETE", "", "Abort events cannot be deleted."),
    "abort_event_no_update": (EVENTS, "UPDATE", "", "Abort events cannot be changed."),
    "bulk_abort_no_delete": (BULK_ABORTS, "DELETE", "", "Bulk aborts cannot be deleted."),
    "bulk_abort_request_fixed": (
        BULK_ABORTS,
        _update_of(*_REQUEST_COLUMNS, "key"),
        "",
        "An abort request cannot be changed.",
    ),
    "bulk_abort_user_fixed": (
        BULK_ABORTS,
        _update_of("user_id"),
        "NEW.user_id IS NOT NULL",
        "The user of a bulk abort cannot be changed.",
    ),
    "bulk_abort_settled_fixed": (
        BULK_ABORTS,
        _update_of("settled_at"),
        "OLD.settled_at IS NOT NULL",
        "A settled bulk abort cannot be reopened.",
    ),
    "bulk_abort_item_no_delete": (
        BULK_ABORT_ITEMS,
        "DELETE",
        "",
        "Runs cannot be removed from a bulk abort.",
    ),
    "bulk_abort_item_request_fixed": (
        BULK_ABORT_ITEMS,
        _update_of("id", "bulk_abort_id", "position", "run_id"),
        "",
        "The runs of a bulk abort cannot be changed.",
    ),
    "bulk_abort_item_settled_fixed": (
        BULK_ABORT_ITEMS,
        _update_of("result", "abort_id", "note"),
        "OLD.result <> 'waiting'",
        "A recorded result of a bulk abort cannot be changed.",
    ),
    "access_event_fixed": (
        ACCESS_EVENTS,
        _update_of(*_ACCESS_COLUMNS),
        "",
        "An access event cannot be changed.",
    ),
    "access_event_user_fixed": (
        ACCESS_EVENTS,
        _update_of("user_id"),
        "NEW.user_id IS NOT NULL",
        "The user of an access event cannot be changed.",
    ),
    "rights_change_no_delete": (
        RIGHTS_CHANGES,
        "DELETE",
        "",
        "Changes of rights cannot be deleted.",
    ),
    "rights_change_no_update": (
        RIGHTS_CHANGES,
        "UPDATE",
        "",
        "Changes of rights cannot be changed.",
    ),
}
_NO_ACCESS_EVENT_DELETE = "Access events cannot be deleted."
_IS_BEFORE_LIMIT = (
    "EXISTS (SELECT 1 FROM dashboard_pruning WHERE OLD.occurred_at < access_log_limit)"
)
_SQLITE_MIN_LIMIT = f"datetime('now', '-{MIN_ACCESS_LOG_DAYS} days')"
# SQLite's INSERT OR REPLACE deletes conflicting rows without firing DELETE triggers.
_REPLACE_CONFLICTS = {
    ABORTS: (
        "id = NEW.id OR retry_of_id = NEW.retry_of_id"
        " OR run_id = NEW.run_id AND settled_at IS NULL AND NEW.settled_at IS NULL"
    ),
    EVENTS: "id = NEW.id",
    BULK_ABORTS: "id = NEW.id OR key = NEW.key",
    BULK_ABORT_ITEMS: "id = NEW.id OR bulk_abort_id = NEW.bulk_abort_id AND run_id = NEW.run_id",
    ACCESS_EVENTS: "id = NEW.id",
    RIGHTS_CHANGES: "id = NEW.id",
}
_SQLITE_TRIGGERS = (
    {
        f"{table}_no_replace": (
            table,
            "INSERT",
            f"EXISTS (SELECT 1 FROM {table} WHERE {in_the_way})",  # noqa: S608
            "Recorded rows cannot be replaced.",
        )
        for table, in_the_way in _REPLACE_CONFLICTS.items()
    }
    | {
        # SQLite's keys have aliases (rowid, oid), and UPDATE OF id does not fire for these.
        f"{table}_id_fixed": (
            table,
            "UPDATE",
            "NEW.id IS NOT OLD.id",
            "A primary key cannot be changed.",
        )
        for table in TABLES
    }
    | {
        # Times are stored as text in UTC, which sorts as the times do.
        "access_event_no_delete": (
            ACCESS_EVENTS,
            "DELETE",
            f"OLD.occurred_at >= {_SQLITE_MIN_LIMIT} OR NOT {_IS_BEFORE_LIMIT}",
            _NO_ACCESS_EVENT_DELETE,
        ),
    }
    | audited_runs.SQLITE_TRIGGERS
)
# A condition of a trigger may contain no query on PostgreSQL, but a function may.
_REFUSE_ACCESS_EVENT = f"""
CREATE OR REPLACE FUNCTION dashboard_refuse_access_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.occurred_at < now() - interval '{MIN_ACCESS_LOG_DAYS} days' AND {_IS_BEFORE_LIMIT}
    THEN RETURN OLD; END IF;
    RAISE EXCEPTION '{_NO_ACCESS_EVENT_DELETE}' USING ERRCODE = 'restrict_violation';
END $$
"""
_POSTGRESQL_TRIGGERS = {
    "access_event_no_delete": (ACCESS_EVENTS, "DELETE", "", _NO_ACCESS_EVENT_DELETE)
}


def are_triggers_installed(database: BaseDatabaseWrapper) -> bool:
    """Return whether all triggers exist and are enabled."""
    expected = set(triggers(database))
    if database.vendor == "postgresql":
        expected |= {f"{table}_no_truncate" for table in TABLES}
    tables = sorted(_tables(database))
    with database.cursor() as cursor:
        if database.vendor == "postgresql":
            cursor.execute(
                "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
                " WHERE relname = ANY(%s) AND pg_table_is_visible(tgrelid)"
                " AND tgenabled IN ('O', 'A')",
                [tables],
            )
        else:
            cursor.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
                " AND tbl_name IN (SELECT value FROM json_each(%s))",
                [json.dumps(tables)],
            )
        return expected <= {name for (name,) in cursor.fetchall()}


def install_triggers(database: BaseDatabaseWrapper) -> None:
    """Create or recreate the triggers of the tables that exist."""
    tables = _tables(database).intersection(database.introspection.table_names())
    drop_triggers(database)
    with database.cursor() as cursor:
        if database.vendor == "postgresql":
            cursor.execute(
                "CREATE OR REPLACE FUNCTION dashboard_refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';"
                " END $$"
            )
            cursor.execute(_REFUSE_ACCESS_EVENT)
            for table in tables:
                cursor.execute(
                    f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
                    f" EXECUTE FUNCTION dashboard_refuse('Recorded rows cannot be deleted.')"
                )
        for name, (table, event, condition, message) in triggers(database).items():
            if table not in tables:
                continue
            when_clause = f"WHEN ({condition})" if condition else ""
            text = message.replace("'", "''")
            function = f"dashboard_refuse('{text}')"
            if name in _POSTGRESQL_TRIGGERS:
                function = "dashboard_refuse_access_event()"
            # Safe to format: all names and texts are constants of this module.
            cursor.execute(
                f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when_clause}"
                f" EXECUTE FUNCTION {function}"
                if database.vendor == "postgresql"
                else f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when_clause}"
                f" BEGIN SELECT RAISE(ABORT, '{text}'); END"
            )


def drop_triggers(database: BaseDatabaseWrapper) -> None:
    """Drop the triggers that exist."""
    tables = set(database.introspection.table_names())
    with database.cursor() as cursor:
        for name, (table, *_) in triggers(database).items():
            if table in tables:
                _drop_trigger(database, cursor, name, table)
        if database.vendor == "postgresql":
            for table in tables.intersection(TABLES):
                _drop_trigger(database, cursor, f"{table}_no_truncate", table)


def triggers(database: BaseDatabaseWrapper) -> dict[str, tuple[str, str, str, str]]:
    """Return a dict of trigger name to (table, event, condition, error message)."""
    return _TRIGGERS | (_SQLITE_TRIGGERS if database.vendor == "sqlite" else _POSTGRESQL_TRIGGERS)


def _tables(database: BaseDatabaseWrapper) -> set[str]:
    return {table for table, *_ in triggers(database).values()}


def _drop_trigger(database: BaseDatabaseWrapper, cursor: Any, name: str, table: str) -> None:
    on_clause = f" ON {table}" if database.vendor == "postgresql" else ""
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
