"""Detect jumps of the clock: by more than the time that has passed, or backwards.

After a jump, leases that other processes hold may seem to have expired. They end by the time that
passes: once their length has passed since the jump, they have expired indeed.
"""

import threading
from datetime import datetime, timedelta
from time import monotonic

import structlog

from dashboard.db.threads import now

log = structlog.get_logger(__name__)

# Leases outlast what they protect by more; two measurements of one clock differ by less.
TOLERANCE = timedelta(seconds=3)

_lock = threading.Lock()
_last_check: tuple[datetime, float] | None = None  # with its seconds of time.monotonic()
_jumped_at: float | None = None  # seconds of time.monotonic()


def is_steady(duration: timedelta) -> bool:
    """Return whether the clock has not jumped for `duration`, as far as this process has checked.

    It is compared with the last call.
    """
    global _jumped_at, _last_check  # noqa: PLW0603 - one clock a process
    with _lock:
        current, at = now(), monotonic()
        if _last_check is not None:
            jump = current - _last_check[0] - timedelta(seconds=at - _last_check[1])
            if abs(jump) > TOLERANCE:
                _jumped_at = at
                log.warning("clock.jumped", seconds=round(jump.total_seconds()))
        _last_check = current, at
        return _jumped_at is None or at - _jumped_at >= duration.total_seconds()


def forget_jumps() -> None:
    """Forget all checks, as at the start of a process: for tests, which set the clock."""
    global _jumped_at, _last_check  # noqa: PLW0603 - one clock a process
    with _lock:
        _jumped_at = _last_check = None
