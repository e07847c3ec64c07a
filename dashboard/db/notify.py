"""Notify processes that something changed; a notification has a topic and no payload.

PostgreSQL uses LISTEN and NOTIFY, which reach every process; SQLite serves one process, so
callbacks inside it are enough. Receivers read the database. They also read it at intervals, so a
lost notification delays a change by seconds and loses none.
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any

import structlog
from django.db import connection, transaction

from dashboard.db import health as db_health
from dashboard.db.threads import run_in_db_thread

log = structlog.get_logger(__name__)

RECONNECT_DELAY = 1.0  # seconds before reconnecting to a lost server
KEEPALIVE_INTERVAL = 60.0  # seconds without a notification before the connection is tested


class Topic(StrEnum):
    """What changed; also the name of PostgreSQL's channel."""

    RUNS = "dashboard_changes"  # and whatever else pages show
    ACCOUNTS = "dashboard_accounts"  # sessions, accounts, groups and grants
    READS = "dashboard_reads"  # what is to be read from Northflank, sooner than planned


type Callbacks = Mapping[Topic, Callable[[], None]]

_listeners: set[Callable[[Topic], None]] = set()


def send(topic: Topic) -> None:
    """Notify all listeners when the current transaction commits; a rollback sends nothing."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [topic])
    else:
        transaction.on_commit(partial(_call_listeners, topic))


async def listen(callbacks: Callbacks) -> None:
    """Call a topic's callback on this event loop for each notification, until cancelled.

    Topics without a callback are ignored.
    On PostgreSQL all are also called after each (re)connection, since notifications may have been
    missed before it.
    """
    if connection.vendor == "postgresql":
        await _listen_postgresql(callbacks)
    loop = asyncio.get_running_loop()

    def listener(topic: Topic) -> None:
        if topic in callbacks:
            loop.call_soon_threadsafe(callbacks[topic])

    _listeners.add(listener)
    try:
        await asyncio.Event().wait()
    finally:
        _listeners.discard(listener)


def _call_listeners(topic: Topic) -> None:
    for listener in list(_listeners):
        listener(topic)


async def _listen_postgresql(callbacks: Callbacks) -> None:
    import psycopg  # a tenth of the imports at the start; SQLite needs none of it

    has_warned = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**_connection_params()) as server:
                for topic in callbacks:
                    await server.execute(f"LISTEN {topic}")
                if has_warned:
                    log.info("notify.reconnected")
                has_warned = False
                for callback in callbacks.values():
                    callback()
                while True:
                    async for notification in server.notifies(timeout=KEEPALIVE_INTERVAL):
                        callbacks[Topic(notification.channel)]()
                    await server.execute("SELECT 1")  # raises if the connection is dead
        except psycopg.Error as error:
            # Warn only about this connection: db/health.py logs outages of the database, also one
            # that the probe would end.
            is_outage = db_health.down_since() is not None
            if not has_warned and not is_outage and await run_in_db_thread(db_health.probe):
                log.warning("notify.disconnected", error=type(error).__name__)
                has_warned = True
        await asyncio.sleep(RECONNECT_DELAY)


def _connection_params() -> dict[str, Any]:
    # Django's parameters, without those for synchronous connections only.
    params = connection.get_connection_params()
    supported = {name: params[name] for name in params.keys() - {"cursor_factory", "context"}}
    return {**supported, "autocommit": True}
