"""Intervals between log lines that any client can cause by the thousand."""

from time import monotonic

LOG_INTERVAL = 60.0  # seconds


class LogInterval:
    """The interval after a line, of LOG_INTERVAL seconds, in which another is not logged."""

    def __init__(self) -> None:
        self.next_at = 0.0  # seconds of time.monotonic()

    def begin_next(self) -> bool:
        """Begin the next interval if the last one is over; return whether it has begun."""
        if monotonic() < self.next_at:
            return False
        self.next_at = monotonic() + LOG_INTERVAL
        return True
