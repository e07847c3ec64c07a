"""Whether the database answers this process: found out in one place, told once at each end.

Whatever works with the database says here what failed (`failed`). From then on it counts as away,
until it takes a write again (`look`): one that only reads, or is locked, is not back. There is
one line in the log at the begin and one at the end, whoever meets it and however often.
"""

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime
from time import monotonic

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

log = structlog.get_logger(__name__)

RETRY_INTERVAL = 1.0  # seconds between two looks at a database that is away

# https://www.postgresql.org/docs/current/errcodes-appendix.html: its connection, its resources,
# its operators, its disk; and one that was made read-only, as after a change of the primary.
_POSTGRES_OUTAGE_CLASSES = ("08", "53", "57", "58")
_POSTGRES_OUTAGE_CODES = ("25006",)
_QUERY_CANCELED = "57014"  # of one statement
_SQLITE_ERROR = 1  # the statement is wrong; all other codes of this class are the file's

_down_since: datetime | None = None
_down_since_monotonic = 0.0  # the first and the last failure, by time.monotonic
_next_probe_at = 0.0
_state_lock = threading.Lock()
_probe_lock = threading.Lock()


def is_outage(error: BaseException | None) -> bool:
    """Say whether an error means that the database does not answer, whatever it was asked."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, DatabaseError):
        return False
    cause = error.__cause__
    if (code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return isinstance(error, OperationalError) and code & 0xFF != _SQLITE_ERROR
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is None:  # no answer at all: refused, broken off, too slow
        return isinstance(error, OperationalError)
    if sqlstate == _QUERY_CANCELED:
        return False
    return sqlstate[:2] in _POSTGRES_OUTAGE_CLASSES or sqlstate in _POSTGRES_OUTAGE_CODES


def record_failure(error: BaseException) -> bool:
    """Note an error that work with the database met; return whether it is away by that."""
    global _down_since, _down_since_monotonic, _next_probe_at  # noqa: PLW0603 - one database a process
    if not is_outage(error):
        return False
    with _state_lock:
        _next_probe_at = monotonic() + RETRY_INTERVAL
        if _down_since is not None:
            return True
        _down_since, _down_since_monotonic = timezone.now(), monotonic()
    log.error("database.down", error=type(error).__name__, message=_first_line(error))
    return True


def down_since() -> datetime | None:
    """Return since when the database does not answer this process; None: it does."""
    return _down_since


def is_available() -> bool:
    """Return whether the database answers; where it is away, look again, at most once a second.

    Call it on a thread that may wait for the database. One that is away is looked at by one thread
    at a time; the others are told what is known.
    """
    if _down_since is None:
        return True
    if monotonic() < _next_probe_at or not _probe_lock.acquire(blocking=False):
        return False
    try:
        return probe()
    finally:
        _probe_lock.release()


def record_success() -> None:
    """Note that the database has answered something: is it back, then?"""
    if _down_since is not None and monotonic() >= _next_probe_at:
        probe()


def probe() -> bool:
    """Ask the database now, and return whether it answers and takes a write."""
    try:
        _test_write()
    except Exception as error:
        if record_failure(error):
            return False
    _mark_available()
    return True


def _mark_available() -> None:
    global _down_since
    with _state_lock:
        if _down_since is None:
            return
        _down_since, seconds = None, monotonic() - _down_since_monotonic
    log.info("database.up", seconds=round(seconds, 1))


def _test_write() -> None:
    """Take a write lock and give it back; raises what the database answers."""
    connection.close_if_unusable_or_obsolete()
    with without_lock_wait(), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE dashboard_changecounter SET value = value")
        transaction.set_rollback(True)


@contextlib.contextmanager
def without_lock_wait() -> Iterator[None]:
    """Have this thread wait for no lock on SQLite, where each takes seconds, and threads are few.

    For what is tried again anyway, while the file is known to be locked.
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


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
