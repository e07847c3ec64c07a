"""Empty the database after a test that commits, keeping or restoring the rows of migrations.

Django's `flush` recreates content types, permissions and the triggers of append-only tables after
each test, which took four times as long as most tests.
"""

import sqlite3

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

from dashboard.accounts import permissions

# Written by migrations and `post_migrate`; no test changes them.
KEPT_TABLES = {"django_migrations", "django_content_type", "auth_permission"}


def replace_flush() -> None:
    """Make Django's test cases that commit empty their databases this way."""

    def empty_databases(case: TransactionTestCase) -> None:
        for alias in case._databases_names(include_mirrors=False):
            empty_database(connections[alias])

    TransactionTestCase._fixture_teardown = empty_databases  # type: ignore[attr-defined]


def empty_database(connection: BaseDatabaseWrapper) -> None:
    """Delete all rows except those of KEPT_TABLES; create the rows that the product requires."""
    names = set(connection.introspection.django_table_names(include_views=False)) - KEPT_TABLES
    deletes = [f"DELETE FROM {table}" for table in sorted(names)]
    if connection.vendor == "sqlite":
        _delete_on_sqlite(connection, deletes)
    else:
        _delete_on_postgresql(connection, deletes)
    permissions.ensure_default_group()


def _delete_on_sqlite(connection: BaseDatabaseWrapper, deletes: list[str]) -> None:
    connection.ensure_connection()
    raw: sqlite3.Connection = connection.connection
    trigger = sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER
    raw.setconfig(trigger, False)  # aborts can't be deleted, except between two tests
    try:
        with connection.constraint_checks_disabled(), connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            for delete in deletes:
                cursor.execute(delete)
            cursor.execute("COMMIT")
    finally:
        raw.setconfig(trigger, True)


def _delete_on_postgresql(connection: BaseDatabaseWrapper, deletes: list[str]) -> None:
    # One round trip. TRUNCATE makes a new file of each table and index, and waits for the disk;
    # the role `replica` fires no triggers, neither of foreign keys nor of append-only tables.
    with connection.cursor() as cursor:
        role = "SET LOCAL session_replication_role = replica"
        cursor.execute("; ".join(["BEGIN", role, *deletes, "COMMIT"]))
