"""Empty the database after a test that committed: what migrations wrote stays, or is made anew.

Django's own way is `flush`, which makes content types and permissions anew after each test and has
the triggers of append-only tables made anew too. That took four times as long as most tests.
"""

import sqlite3

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

from dashboard.accounts import permissions
from dashboard.models import append_only

# Written by migrations and `post_migrate`, and changed by no test.
KEPT_TABLES = {"django_migrations", "django_content_type", "auth_permission"}


def replace_flush() -> None:
    """Have Django's test cases that commit empty their databases in this way."""

    def empty_all(case: TransactionTestCase) -> None:
        for alias in case._databases_names(include_mirrors=False):
            empty(connections[alias])

    TransactionTestCase._fixture_teardown = empty_all  # type: ignore[attr-defined]


def empty(connection: BaseDatabaseWrapper) -> None:
    """Delete all rows but those of KEPT, and make what the product takes for granted."""
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
    raw.setconfig(trigger, False)  # aborts are never deleted, but between two tests
    try:
        with connection.constraint_checks_disabled(), connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            for table in tables:
                cursor.execute(f"DELETE FROM {table}")
            cursor.execute("COMMIT")
    finally:
        raw.setconfig(trigger, True)
