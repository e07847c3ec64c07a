"""When an abort that may not have arrived is resent, and when no longer. Pure.

That resending an abort is harmless is an assumption: Northflank does not document it. So an abort
is resent only if the run, read after the last send, goes on and is not aborting.
"""

from datetime import datetime, timedelta

MAX_SENDS = 5  # of one abort
RESEND_WINDOW = timedelta(minutes=2)  # from the first send
# Seconds to wait after the 1st, 2nd, ... failed send: Northflank may be about to recover.
_DELAYS = (1.0, 2.0, 4.0, 8.0)
# How many runs are read at the same time before their aborts are resent; and of those whose last
# read failed, how many a process reads at once, at the intervals of a single one.
MAX_READS, MAX_REPEATED_READS = 4, 2
MAX_READ_INTERVAL = timedelta(seconds=15)  # between such reads
# If the run goes on for this long after the last send, that send did not arrive.
NOT_ARRIVED_AFTER = timedelta(seconds=20)


def delay(send_count: int) -> timedelta:
    """Return how long to wait before the next send, after `send_count` sends."""
    return timedelta(seconds=_DELAYS[min(max(send_count, 1), len(_DELAYS)) - 1])


def read_interval(since_send: timedelta) -> timedelta:
    """Return the time from a failed read to the next one; `since_send`: since the last send.

    It doubles from read to read, up to MAX_READ_INTERVAL.
    """
    return min(max(since_send / 2, delay(1)), MAX_READ_INTERVAL)


def is_exhausted(send_count: int, first_sent_at: datetime, now: datetime) -> bool:
    """Return whether an abort has used up its sends, or the time in which it may be resent."""
    return send_count >= MAX_SENDS or now - first_sent_at > RESEND_WINDOW
