"""Notice that the clock has jumped: by more than the time that has passed, or backwards.

A lease that another process has taken before the jump only seems to have expired. It ends by the
time that passes, so its length after a jump all leases from before have ended.
"""

from datetime import datetime, timedelta
from time import monotonic

import structlog

log = structlog.get_logger(__name__)

# Less than leases outlast what they protect, more than two measurements of a clock differ.
TOLERANCE = timedelta(seconds=3)

_last_look: tuple[datetime, float] | None = None  # with its seconds of time.monotonic()
_jumped_at: float | None = None


def is_steady(now: datetime, duration: timedelta) -> bool:
    """Return whether the clock, which says `now`, has not jumped for `duration`.

    It is compared with the last call in this process.
    """
    global _jumped_at, _last_look  # noqa: PLW0603 - one clock a process
    at = monotonic()
    if _last_look is not None:
        jump = now - _last_look[0] - timedelta(seconds=at - _last_look[1])
        if abs(jump) > TOLERANCE:
            _jumped_at = at
            log.warning("clock.jumped", seconds=round(jump.total_seconds()))
    _last_look = now, at
    return _jumped_at is None or at - _jumped_at >= duration.total_seconds()


def forget() -> None:
    """Forget the last look and jump."""
    global _jumped_at, _last_look  # noqa: PLW0603 - one clock a process
    _jumped_at = _last_look = None
