"""Empty the database after a test that commits, keeping or restoring the rows of migrations.

Django's `flush` recreates content types, permissions and the triggers of append-only tables after
each test, which took four times as long as most tests.
"""

import sqlite3

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

from dashboard.accounts import permissions
from dashboard.models import append_only

# Written by migrations and `post_migrate`; no test changes them.
KEPT_TABLES = {"django_migrations", "django_content_type", "auth_permission"}


def replace_flush() -> None:
    """Make Django's test cases that commit empty their databases this way."""

    def empty_all(case: TransactionTestCase) -> None:
        for alias in case._databases_names(include_mirrors=False):
            empty(connections[alias])

    TransactionTestCase._fixture_teardown = empty_all  # type: ignore[attr-defined]


def empty(connection: BaseDatabaseWrapper) -> None:
    """Delete all rows except those of KEPT_TABLES; create the rows that the product requires."""
    tables = sorted(set(connection.introspection.table_names()) - KEPT_TABLES)
    if connection.vendor == "sqlite":
        _empty_sqlite(connection, tables)
    else:
        append_only.drop_triggers(connection)
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(tables)}")
        append_only.install_triggers(connection)
    permissions.ensure_default_group()


def _empty_sqlite(connection: BaseDatabaseWrapper, tables: list[str]) -> None:
    connection.ensure_connection()
    raw: sqlite3.Connection = connection.connection
    trigger = sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER
    raw.setconfig(trigger, False)  # aborts can't be deleted, except between two tests
    try:
        with connection.constraint_checks_disabled(), connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            for table in tables:
                cursor.execute(f"DELETE FROM {table}")
            cursor.execute("COMMIT")
    finally:
        raw.setconfig(trigger, True)
