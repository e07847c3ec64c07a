"""The way from the event loop to the database, and the database's clock.

What fails on this way is told to db/health.py, which knows whether the database is away.

Several machines may read into one PostgreSQL database. Claims and stamps are compared across them,
so all go by the database's clock; how far this machine's is off is measured now and then.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from django.urls import set_script_prefix
from django.utils import timezone

from dashboard.db import health as db_health

# How long work that must not be lost is tried again while the database is away, in seconds.
RETRY_TIMEOUT = 30.0

# The loop's own work (sync, aborts); pages have the handler's threads. SQLite gets slower with
# more threads, not faster, and one is enough to keep up with a thousand answers an hour.
executor = ThreadPoolExecutor(
    2,
    thread_name_prefix="database",
    # Rows are rendered here too, and a thread knows of no request whose prefix it could take.
    initializer=lambda: set_script_prefix(settings.FORCE_SCRIPT_NAME or "/"),
)


async def run_in_db_thread[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the synchronous `work` on a database thread and return what it returns."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, partial(_call, work, *args, **kwargs))


async def retry_during_outage[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_database`; while the database is away, `work` is tried again, for half a minute.

    It may be done twice: where the answer to a commit is lost, nobody knows that it was done.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RETRY_TIMEOUT
    while True:
        try:
            return await run_in_db_thread(work, *args, **kwargs)
        except (DatabaseError, InterfaceError) as error:
            if not db_health.is_outage(error) or loop.time() >= deadline:
                raise
        await asyncio.sleep(db_health.RETRY_INTERVAL)


def _call[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # Drops a connection that the database server has closed, as Django does for each request.
    close_old_connections()
    is_down = db_health.down_since() is not None
    try:
        with db_health.without_lock_wait() if is_down else nullcontext():
            result = work(*args, **kwargs)
    except Exception as error:
        db_health.record_failure(error)
        raise
    db_health.record_success()
    return result


_clock_offset = timedelta()  # how far the database's clock is ahead of this machine's


def now() -> datetime:
    """Return the time by the database's clock, as last measured."""
    return timezone.now() + _clock_offset


def set_clock_offset(offset: timedelta | None = None) -> None:
    """Go by a clock that is so far ahead of this machine's; None: the database's, measured now."""
    global _clock_offset  # noqa: PLW0603 - one clock a process
    _clock_offset = _measure_clock_offset() if offset is None else offset


def _measure_clock_offset() -> timedelta:
    if connection.vendor != "postgresql":
        return timedelta()  # a SQLite file has no clock but ours
    with connection.cursor() as cursor:
        before = timezone.now()
        cursor.execute("SELECT clock_timestamp()")
        server_time: datetime = cursor.fetchone()[0]
    return server_time - (before + (timezone.now() - before) / 2)
