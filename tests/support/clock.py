"""The clock of this process, as the dashboard has checked it."""

from dashboard.db import clock_jumps


def forget_jumps() -> None:
    """Forget the last check of the clock, and its last jump."""
    with clock_jumps._lock:
        clock_jumps._jumped_at = clock_jumps._last_check = None
