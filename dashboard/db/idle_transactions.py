"""End transactions on PostgreSQL whose process was paused in them.

Their locks would stop the writes of all other processes for as long as the pause lasts: a suspended
machine keeps its connections.
"""

from typing import Any

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

# Seconds between two statements of a transaction. None waits for anything but the database and the
# processor; an abort that is blocked waits no longer than for Northflank.
TIMEOUT = 10


def register(app: AppConfig) -> None:
    """Limit the idle time of transactions on every connection from now on."""
    connection_created.connect(_limit_idle_time, dispatch_uid=f"{app.name}.idle_transactions")


def _limit_idle_time(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.vendor == "postgresql":
        # Not by a parameter of the connection: poolers such as PgBouncer refuse these.
        with connection.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = %s", [TIMEOUT * 1000])
