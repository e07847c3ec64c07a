"""Connections to PostgreSQL: they plan some statements once, and end transactions that wait.

Such a plan is generic: it does not depend on the parameters. It is for statements that visit few
rows whatever these are. Most take longer to plan than to execute.

The locks of a transaction whose process is paused, or whose machine is gone, would stop the writes
of all other processes.
"""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

# Seconds between two statements of a transaction. None waits for Northflank in between, and an
# abort that waits for another process's lock may take as long as Northflank's answer.
IDLE_TIMEOUT = 10
# Of a connection, which takes about 85 KB of the server's memory for each. A set of permissions in
# use has about a dozen; of more, those used longest ago are planned anew.
MAX_PLANS = 200
# SQLSTATEs of a plan that has to be made anew: a migration has changed a type, or somebody has
# dropped all plans of the connection.
_OUTDATED = {"0A000", "26000"}


def register(app: AppConfig) -> None:
    """Set up every connection from now on; generic plans only if it leads to the server itself."""
    connection_created.connect(_set_up, dispatch_uid=f"{app.name}.postgresql")


def _set_up(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        # Not by a parameter of the connection, which PgBouncer refuses. It has to pool sessions:
        # if it pools transactions, set the limit on the role.
        cursor.execute("SET idle_in_transaction_session_timeout = %s", [IDLE_TIMEOUT * 1000])
        cursor.execute("SELECT pg_backend_pid()")
        (backend_pid,) = cursor.fetchone()
        # A pooler answers with a number of its own. If it pools transactions, it may execute what
        # another connection has planned under the same name, and share what is set with others.
        if backend_pid == connection.connection.info.backend_pid:
            cursor.execute("SET plan_cache_mode = force_generic_plan")
            connection.connection.prepare_threshold = 0
            connection.connection.prepared_max = MAX_PLANS


def fetch(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]] | None:
    """Return the rows that a statement selects; None: it can't be planned once, or not now.

    It can't in a transaction, which would end if the plan were outdated.
    """
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        return None
    from psycopg import Cursor  # not loaded on SQLite

    try:
        with connection.cursor() as cursor:
            if connection.connection.prepare_threshold is None:
                return None
            # Django's own inserts the parameters into the text, so that each statement is another.
            cursor.cursor = Cursor(connection.connection)
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", "") not in _OUTDATED:
            raise
        connection.close()  # and with it all plans
        return None
