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
from dashboard.db.threads import in_database

log = structlog.get_logger(__name__)

CHANNEL = "dashboard_changes"
RETRY = 1.0  # seconds before listening again to a server that went away
SILENCE = 60.0  # seconds after which a quiet connection is asked whether it is still there

_listeners: set[Callable[[], None]] = set()


def announce() -> None:
    """Ring once the running transaction is committed; rolled back, it does not ring."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    else:
        transaction.on_commit(_ring)


async def listen(heard: Callable[[], None]) -> None:
    """Call `heard` on this event loop at every ring, until cancelled.

    After each (re)connection it is called too: what rang meanwhile was not heard.
    """
    if connection.vendor == "postgresql":
        await _listen_to_postgresql(heard)
    loop = asyncio.get_running_loop()

    def ring() -> None:
        loop.call_soon_threadsafe(heard)

    _listeners.add(ring)
    try:
        await asyncio.Event().wait()
    finally:
        _listeners.discard(ring)


def _ring() -> None:
    for listener in list(_listeners):
        listener()


async def _listen_to_postgresql(heard: Callable[[], None]) -> None:
    told = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**_parameters()) as server:
                await server.execute(f"LISTEN {CHANNEL}")
                if told:
                    log.info("changes.listening_again")
                told = False
                heard()
                while True:
                    async for _ in server.notifies(timeout=SILENCE):
                        heard()
                    await server.execute("SELECT 1")  # raises where the silence is a dead line
        except psycopg.Error as error:
            # Told here only if it is this line's trouble alone.
            if not told and await in_database(db_health.look):
                log.warning("changes.not_listening", error=type(error).__name__)
                told = True
        await asyncio.sleep(RETRY)


def _parameters() -> dict[str, Any]:
    # Django's own, less what is meant for its synchronous connections.
    known = connection.get_connection_params()
    kept = {name: known[name] for name in known.keys() - {"cursor_factory", "context"}}
    return {**kept, "autocommit": True}
