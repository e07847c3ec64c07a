"""Track whether the database is available to this process, and log each outage once.

Code that uses the database reports its errors to `record_failure`. After an outage error the
database counts as down until it accepts a write again (`probe`): one that is read-only or locked is
still down. The start and the end of an outage, and each change of its cause, are logged once,
however many callers meet it.
"""

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from time import monotonic

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

log = structlog.get_logger(__name__)

RETRY_INTERVAL = 1.0  # seconds between probes during an outage

# https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, insufficient
# resources, operator intervention, system error; read-only, as after a failover; and the end of a
# transaction in which the process was paused (db/postgresql.py).
_POSTGRES_OUTAGE_CLASSES = ("08", "53", "57", "58")
_POSTGRES_OUTAGE_CODES = ("25006", "25P03")
_QUERY_CANCELED = "57014"  # in class 57, but concerns one statement only
_SQLITE_ERROR = 1  # a faulty statement; other codes of OperationalError concern the file


# Of these, the database can be read: read-only, disk full, disk errors, locked.
_POSTGRES_READABLE = {"25006", "53100", "58030"}
_SQLITE_READABLE = {5, 6, 8, 10, 13}  # https://www.sqlite.org/rescode.html


class OutageCause(StrEnum):
    """What the database does not do; why, the message of the error says, which is logged."""

    NO_RESPONSE = "no_response"
    NO_CHANGES = "no_changes"  # it can be read


_cause = OutageCause.NO_RESPONSE  # of the current outage, by its latest error
_down_since: datetime | None = None
_down_since_monotonic = 0.0  # seconds of time.monotonic(), as _next_probe_at
_ended_outages = 0
_next_probe_at = 0.0
_state_lock = threading.Lock()
_probe_lock = threading.Lock()


def is_outage(error: BaseException | None) -> bool:
    """Return whether an error means a database outage, not a fault of one statement."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, DatabaseError):
        return False
    cause = error.__cause__
    if (code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return isinstance(error, OperationalError) and code & 0xFF != _SQLITE_ERROR
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is None:  # no answer: connection refused, lost or timed out
        return isinstance(error, OperationalError)
    if sqlstate == _QUERY_CANCELED:
        return False
    return sqlstate[:2] in _POSTGRES_OUTAGE_CLASSES or sqlstate in _POSTGRES_OUTAGE_CODES


def _cause_of(error: BaseException) -> OutageCause:
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    is_readable = code in _SQLITE_READABLE or sqlstate in _POSTGRES_READABLE
    return OutageCause.NO_CHANGES if is_readable else OutageCause.NO_RESPONSE


def record_failure(error: BaseException) -> bool:
    """Record an error of work on the database; return whether it is an outage."""
    global _cause, _down_since, _down_since_monotonic, _next_probe_at  # noqa: PLW0603 - one database a process
    if not is_outage(error):
        return False
    cause = _cause_of(error)
    with _state_lock:
        _next_probe_at = monotonic() + RETRY_INTERVAL
        if _down_since is not None and cause is _cause:
            return True
        _cause = cause
        if _down_since is None:
            _down_since, _down_since_monotonic = timezone.now(), monotonic()
    message = str(error).partition("\n")[0][:200]
    log.error("database.down", cause=cause, error=type(error).__name__, message=message)
    return True


def down_since() -> datetime | None:
    """Return the start of the current outage, or None while the database is available."""
    return _down_since


def outage_cause() -> OutageCause:
    """Return the cause of the current outage, by its latest error."""
    return _cause


def is_responding() -> bool:
    """Return whether the database answers reads at once, though it may accept no writes."""
    return _down_since is None or _cause is OutageCause.NO_CHANGES


def is_available() -> bool:
    """Return whether the database is available; during an outage, probe at most once a second.

    A probe blocks: call this on a thread that may wait for the database. One thread probes at a
    time; meanwhile the others get False.
    """
    if _down_since is None:
        return True
    if monotonic() < _next_probe_at or not _probe_lock.acquire(blocking=False):
        return False
    try:
        return _probe()
    finally:
        _probe_lock.release()


def probe() -> bool:
    """Return whether the database accepts a write now, and record the result.

    An error that is not an outage counts as available. One thread probes at a time, the others
    wait: on SQLite two would lock each other out, and the loser would report an outage.
    """
    with _probe_lock:
        return _probe()


def _probe() -> bool:
    try:
        with without_lock_wait():
            test_write()
    except Exception as error:
        if record_failure(error):
            return False
    mark_available()
    return True


def mark_available() -> None:
    """Record that the outage is over, if there is one."""
    global _down_since, _ended_outages  # noqa: PLW0603 - one database a process
    with _state_lock:
        if _down_since is None:
            return
        _ended_outages += 1
        _down_since, seconds = None, monotonic() - _down_since_monotonic
    log.info("database.up", seconds=round(seconds, 1))


def test_write() -> None:
    """Write without changing anything; raise whatever error the database returns."""
    connection.close_if_unusable_or_obsolete()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE dashboard_changecounter SET value = value")
        # SQLite writes to the disk at the commit only. PostgreSQL's would end up in its log.
        transaction.set_rollback(connection.vendor != "sqlite")


def close_outdated_connection() -> None:
    """Close this thread's connection to SQLite during an outage, and once after it.

    A file that was not writable when it was opened stays read-only for its connection.
    """
    is_outdated = getattr(connection, "ended_outages", 0) != _ended_outages
    if not is_outdated and _down_since is None:
        return
    connection.ended_outages = _ended_outages  # type: ignore[attr-defined]
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        connection.close()


@contextlib.contextmanager
def without_lock_wait() -> Iterator[None]:
    """Make SQLite fail at once on a lock instead of blocking one of few threads for seconds.

    For work that is retried anyway while the file is known to be locked.
    """
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            seconds = connection.settings_dict["OPTIONS"].get("timeout", 5)
            cursor.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
