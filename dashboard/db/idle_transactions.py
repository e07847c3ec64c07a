"""End transactions on PostgreSQL whose process was paused in them.

Their locks would stop the writes of all other processes for as long as the pause lasts: a suspended
machine keeps its connections.
"""

from typing import Any

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

# Seconds between two statements of a transaction. No transaction waits for Northflank in between,
# and an abort that waits for another process's lock may take as long as Northflank's answer.
TIMEOUT = 10


def register(app: AppConfig) -> None:
    """Limit the idle time of transactions on every connection from now on."""
    connection_created.connect(_limit_idle_time, dispatch_uid=f"{app.name}.idle_transactions")


def _limit_idle_time(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.vendor == "postgresql":
        # Not by a parameter of the connection, which PgBouncer refuses. It has to pool sessions:
        # if it pools transactions, set the limit on the role.
        with connection.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = %s", [TIMEOUT * 1000])
