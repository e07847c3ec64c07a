"""A limit for log lines that any client can cause, or strangers could fill the disk."""

import logging
from collections import Counter
from collections.abc import Callable
from copy import copy
from threading import Lock
from time import monotonic

LOG_INTERVAL = 60.0  # seconds
MAX_LENGTH = 200  # characters
# Our own events that any client can cause. Of the lines of libraries, it can cause most.
_CLIENT_EVENTS = {"api.defect", "auth_proxy.refused", "sign_in.form_refused"}


class LogLimit(logging.Filter):
    """Lets one such record of a kind through in LOG_INTERVAL, with its values cut to MAX_LENGTH.

    A record's `unlogged` is the number of those before it that were left out. The refusal of a
    request is a warning, and has no traceback.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next_at: dict[tuple[object, ...], float] = {}  # by kind
        self._unlogged = Counter[tuple[object, ...]]()
        self._lock = Lock()

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:
        event = record.msg if isinstance(record.msg, dict) else None  # of structlog
        if event is not None and event["event"] not in _CLIENT_EVENTS:
            return True
        status = getattr(record, "status_code", 0)  # of a response, in records of Django
        error = record.exc_info[0] if record.exc_info else None
        kind = (event["event"],) if event is not None else (record.name, status, error)
        with self._lock:
            if self._clock() < self._next_at.get(kind, 0):
                self._unlogged[kind] += 1
                return False
            self._next_at[kind] = self._clock() + LOG_INTERVAL
            unlogged = self._unlogged.pop(kind, 0)
        record = copy(record)
        record.unlogged = unlogged
        if event is not None:
            record.msg = {name: _cut(value) for name, value in event.items()}
        else:
            record.msg, record.args = _cut(record.getMessage()), None
        if 400 <= status < 500:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.exc_info = None
        return record


def _cut[T](value: T) -> T | str:
    if isinstance(value, str) and len(value) > MAX_LENGTH:
        return f"{value[: MAX_LENGTH - 1]}…"
    return value
