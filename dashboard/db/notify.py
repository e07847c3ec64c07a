"""How processes learn that something changed: a bell that carries nothing but its ringing.

On PostgreSQL it is LISTEN and NOTIFY, heard by every process; on SQLite, which one process uses, it
rings inside that process. Whoever hears it reads the database; whoever missed it does so anyway
after a while, so a lost ring costs seconds and no change.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import structlog
from django.db import connection, transaction

from dashboard.db import health as db_health
from dashboard.db.threads import run_in_db_thread

log = structlog.get_logger(__name__)

CHANNEL = "dashboard_changes"
RECONNECT_DELAY = 1.0  # seconds before listening again to a server that went away
KEEPALIVE_INTERVAL = (
    60.0  # seconds after which a quiet connection is asked whether it is still there
)

_listeners: set[Callable[[], None]] = set()


def send() -> None:
    """Ring once the running transaction is committed; rolled back, it does not ring."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    else:
        transaction.on_commit(_call_listeners)


async def listen(callback: Callable[[], None]) -> None:
    """Call `heard` on this event loop at every ring, until cancelled.

    After each (re)connection it is called too: what rang meanwhile was not heard.
    """
    if connection.vendor == "postgresql":
        await _listen_postgresql(callback)
    loop = asyncio.get_running_loop()

    def listener() -> None:
        loop.call_soon_threadsafe(callback)

    _listeners.add(listener)
    try:
        await asyncio.Event().wait()
    finally:
        _listeners.discard(listener)


def _call_listeners() -> None:
    for listener in list(_listeners):
        listener()


async def _listen_postgresql(callback: Callable[[], None]) -> None:
    has_warned = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**_connection_params()) as server:
                await server.execute(f"LISTEN {CHANNEL}")
                if has_warned:
                    log.info("notify.reconnected")
                has_warned = False
                callback()
                while True:
                    async for _ in server.notifies(timeout=KEEPALIVE_INTERVAL):
                        callback()
                    await server.execute("SELECT 1")  # raises where the silence is a dead line
        except psycopg.Error as error:
            # Told here only if it is this line's trouble alone.
            if not has_warned and await run_in_db_thread(db_health.probe):
                log.warning("notify.disconnected", error=type(error).__name__)
                has_warned = True
        await asyncio.sleep(RECONNECT_DELAY)


def _connection_params() -> dict[str, Any]:
    # Django's own, less what is meant for its synchronous connections.
    params = connection.get_connection_params()
    supported = {name: params[name] for name in params.keys() - {"cursor_factory", "context"}}
    return {**supported, "autocommit": True}
