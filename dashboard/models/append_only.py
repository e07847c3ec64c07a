"""The database itself keeps the audit: what was asked for, what has settled, and each trail.

Triggers on PostgreSQL and SQLite refuse to delete an abort, to change what was asked for or what
has settled, and to change or delete a line of a trail. Of a list that was aborted by one press they
keep who asked for which runs, and what became of each. They hold against our own mistakes and
against a hand at the database's prompt; whoever owns the database can still take them off. They are
set after each migration, since SQLite drops a table's triggers where Django rebuilds it, and taken
off before, so that a migration may reshape what is kept.
"""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate, pre_migrate

ACTS, TRAIL = "dashboard_abort", "dashboard_abortevent"
LISTS, ITEMS = "dashboard_abortbatch", "dashboard_batchitem"
TABLES = (ACTS, TRAIL, LISTS, ITEMS)
# Who pressed is kept by name: the account may be deleted, and then `user_id` becomes empty.
_PRESSED = "id", "username", "reason", "client_address", "via", "token_name", "requested_at"
_STANDING = (
    "state", "claimed_at", "sent_at", "sendings", "answered_at", "answer", "answer_status",
    "error_id", "retry_at", "outcome", "settled_at",
)  # fmt: skip


def _of(*columns: str) -> str:
    return f"UPDATE OF {', '.join(columns)}"


_RULES = {  # name -> table, event, condition, what is said
    "abort_is_kept": (ACTS, "DELETE", "", "An abort is never deleted."),
    "abort_asked_for": (
        ACTS, _of(*_PRESSED, "run_id", "retry_of_id", "batch_id", "begun_at"), "",
        "What was asked for never changes.",
    ),
    "abort_author": (
        ACTS, _of("user_id"), "NEW.user_id IS NOT NULL", "An abort's author never changes.",
    ),
    "abort_settled": (
        ACTS, _of(*_STANDING), "OLD.settled_at IS NOT NULL",
        "An abort that has settled never changes.",
    ),
    "trail_is_kept": (TRAIL, "DELETE", "", "A line of an abort's trail is never deleted."),
    "trail_unchanged": (TRAIL, "UPDATE", "", "A line of an abort's trail never changes."),
    "list_is_kept": (LISTS, "DELETE", "", "A list of aborts is never deleted."),
    "list_asked_for": (LISTS, _of(*_PRESSED, "key"), "", "What was asked for never changes."),
    "list_author": (
        LISTS, _of("user_id"), "NEW.user_id IS NOT NULL", "A list's author never changes.",
    ),
    "list_settled": (
        LISTS, _of("settled_at"), "OLD.settled_at IS NOT NULL",
        "A list that was worked through is never opened again.",
    ),
    "item_is_kept": (ITEMS, "DELETE", "", "A run of a list is never taken off it."),
    "item_asked_for": (
        ITEMS, _of("id", "batch_id", "position", "run_id"), "", "A list of aborts never changes.",
    ),
    "item_settled": (
        ITEMS, _of("result", "abort_id", "note"), "OLD.result <> 'waiting'",
        "What became of a run of a list never changes.",
    ),
}  # fmt: skip
# SQLite's INSERT OR REPLACE deletes what is in the way, and no trigger of a deletion hears of it.
_IN_THE_WAY = {
    ACTS: (
        "id = NEW.id OR retry_of_id = NEW.retry_of_id"
        " OR run_id = NEW.run_id AND settled_at IS NULL AND NEW.settled_at IS NULL"
    ),
    TRAIL: "id = NEW.id",
    LISTS: "id = NEW.id OR key = NEW.key",
    ITEMS: "id = NEW.id OR batch_id = NEW.batch_id AND run_id = NEW.run_id",
}
_RULES_OF_SQLITE = {
    f"{table}_not_replaced": (
        table, "INSERT", f"EXISTS (SELECT 1 FROM {table} WHERE {in_the_way})",  # noqa: S608
        "What is kept of aborts is never replaced.",
    )
    for table, in_the_way in _IN_THE_WAY.items()
} | {
    # A key has other names there (rowid, oid), and no trigger of its column hears of them.
    f"{table}_keeps_its_key": (table, "UPDATE", "NEW.id IS NOT OLD.id", "A key never changes.")
    for table in TABLES
}  # fmt: skip


def is_guarded(database: BaseDatabaseWrapper) -> bool:
    """Say whether all triggers are set and switched on."""
    wanted = set(rules(database))
    if database.vendor == "postgresql":
        wanted |= {f"{table}_not_emptied" for table in TABLES}
    with database.cursor() as cursor:
        if database.vendor == "postgresql":
            cursor.execute(
                "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
                " WHERE relname = ANY(%s) AND pg_table_is_visible(tgrelid)"
                " AND tgenabled IN ('O', 'A')",
                [list(TABLES)],
            )
        else:
            cursor.execute(
                "SELECT name FROM sqlite_master"
                " WHERE type = 'trigger' AND tbl_name IN (%s, %s, %s, %s)",
                TABLES,
            )
        return wanted <= {name for (name,) in cursor.fetchall()}


def guard(database: BaseDatabaseWrapper) -> None:
    """Set the triggers, unless the tables do not exist."""
    if not set(TABLES) <= set(database.introspection.table_names()):
        return
    lift(database)
    with database.cursor() as cursor:
        if database.vendor == "postgresql":
            cursor.execute(
                "CREATE OR REPLACE FUNCTION dashboard_refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';"
                " END $$"
            )
            for table in TABLES:
                cursor.execute(
                    f"CREATE TRIGGER {table}_not_emptied BEFORE TRUNCATE ON {table}"
                    f" EXECUTE FUNCTION dashboard_refuse('Aborts are never deleted.')"
                )
        for name, (table, event, condition, said) in rules(database).items():
            when = f"WHEN ({condition})" if condition else ""
            text = said.replace("'", "''")
            # SQL that is ours to the letter: neither names nor texts come from anywhere else.
            cursor.execute(
                f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when}"
                f" EXECUTE FUNCTION dashboard_refuse('{text}')"
                if database.vendor == "postgresql"
                else f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when}"
                f" BEGIN SELECT RAISE(ABORT, '{text}'); END"
            )


def lift(database: BaseDatabaseWrapper) -> None:
    """Take the triggers off, where there are any."""
    tables = set(database.introspection.table_names())
    with database.cursor() as cursor:
        for name, (table, *_) in rules(database).items():
            if table in tables:
                _drop(database, cursor, name, table)
        if database.vendor == "postgresql":
            for table in tables.intersection(TABLES):
                _drop(database, cursor, f"{table}_not_emptied", table)


def rules(database: BaseDatabaseWrapper) -> dict[str, tuple[str, str, str, str]]:
    """Return the triggers by name: table, event, condition, and what is said."""
    return _RULES | _RULES_OF_SQLITE if database.vendor == "sqlite" else _RULES


def _drop(database: BaseDatabaseWrapper, cursor: Any, name: str, table: str) -> None:
    on = f" ON {table}" if database.vendor == "postgresql" else ""
    cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on}")


def keep_across_migrations(of: AppConfig) -> None:
    """Lift the triggers before each migration of this application and set them after it."""
    pre_migrate.connect(_lift, sender=of, dispatch_uid="dashboard.append_only.lift")
    post_migrate.connect(_guard, sender=of, dispatch_uid="dashboard.append_only.guard")


def _lift(*, using: str, **_: Any) -> None:
    lift(connections[using])


def _guard(*, using: str, **_: Any) -> None:
    guard(connections[using])
