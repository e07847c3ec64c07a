"""Run database work from the event loop on threads, and tell time by the database's clock.

Errors are reported to db/health.py, which tracks outages.

Workers on several machines may share one PostgreSQL database. Leases and timestamps are compared
across them, so all use the database's clock, which is measured at intervals.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from django.urls import set_script_prefix
from django.utils import timezone

from dashboard.db import health as db_health
from dashboard.db.request_priority import request_priority

# Seconds for which work that must not be lost is retried during a database outage.
RETRY_TIMEOUT = 30.0


def _create_executor(threads: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        threads,
        thread_name_prefix=name,
        # Rows are rendered here too, without a request that would set the script prefix.
        initializer=lambda: set_script_prefix(settings.FORCE_SCRIPT_NAME or "/"),
    )


# For work of the event loop (sync, stream); pages use the handler's threads. More threads make
# SQLite slower, and one is enough for a thousand responses an hour.
executor = _create_executor(2, "database")
# For the writes of an abort: they never queue behind the sync's.
abort_executor = _create_executor(1, "abort")


async def run_in_db_thread[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the synchronous `work` on a database thread and return its result.

    It waits a moment for requests that are being answered (db/request_priority.py).
    """
    await request_priority.wait()
    job = partial(call, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(executor, job)


async def retry_during_outage[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `run_in_db_thread`, on the thread for aborts; retry `work` during an outage.

    It is retried for RETRY_TIMEOUT seconds, and must be idempotent: when the reply to a commit is
    lost, it runs a second time. Its success ends the outage, without waiting for the next probe to
    be due: a page requested after it is answered.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RETRY_TIMEOUT
    while True:
        try:
            result = await request_priority.run(
                abort_executor, partial(call, work, *args, **kwargs)
            )
        except (DatabaseError, InterfaceError) as error:
            if not db_health.is_outage(error) or loop.time() >= deadline:
                raise
            await asyncio.sleep(db_health.RETRY_INTERVAL)
        else:
            if db_health.down_since() is not None:
                await request_priority.run(abort_executor, partial(call, db_health.probe))
            return result


def call[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` on this thread, which lives long, and report database errors to db/health.py."""
    # Drop a connection that the server has closed, as Django does for each request.
    close_old_connections()
    db_health.close_outdated_connection()
    is_down = db_health.down_since() is not None
    try:
        with db_health.without_lock_wait() if is_down else nullcontext():
            result = work(*args, **kwargs)
    except Exception as error:
        db_health.record_failure(error)
        raise
    db_health.is_available()  # ends an outage, if a probe is due
    return result


# It cannot be set, and goes on while the machine is suspended; on Linux time.monotonic() does not.
_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# PostgreSQL's time, with the seconds of the steady clock at which it was measured.
_measurement: tuple[datetime, float] | None = None
_clock_offset = timedelta()  # without a measurement, how far the time is ahead of this machine's


def now() -> datetime:
    """Return the current UTC time by the database's clock.

    On PostgreSQL it is counted from the last measurement, so that a jump of this machine's clock
    does not change it. SQLite uses this machine's clock.
    """
    measurement = _measurement  # once: another thread may measure meanwhile
    if measurement is None:
        return timezone.now() + _clock_offset
    measured_time, measured_at = measurement
    return measured_time + timedelta(seconds=time.clock_gettime(_STEADY_CLOCK) - measured_at)


def set_clock_offset(offset: timedelta | None = None) -> None:
    """Set how far the database's clock is ahead of this machine's; None: measure it now."""
    global _clock_offset, _measurement  # noqa: PLW0603 - one clock a process
    if offset is None and connection.vendor == "postgresql":
        _measurement = _measure_clock()
    else:
        _clock_offset, _measurement = offset or timedelta(), None


def _measure_clock() -> tuple[datetime, float]:
    """Return the database's time with that of the steady clock."""
    with connection.cursor() as cursor:
        before = time.clock_gettime(_STEADY_CLOCK)
        cursor.execute("SELECT clock_timestamp()")
        server_time: datetime = cursor.fetchone()[0]
        round_trip = time.clock_gettime(_STEADY_CLOCK) - before
    return server_time.astimezone(UTC), before + round_trip / 2
