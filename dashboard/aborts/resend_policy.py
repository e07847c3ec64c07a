"""When an abort that may not have arrived is sent again, and when no more. Pure.

That repeating an abort is harmless is an assumption: Northflank documents nothing of it. So it is
repeated only where the run, read after the last sending, goes on and is not aborting.
"""

from datetime import datetime, timedelta

MAX_SENDS = 5  # sendings of one act
RESEND_WINDOW = timedelta(minutes=2)  # from the first of them
# Seconds of rest after each sending that came to nothing: Northflank may be about to recover.
_DELAYS = (1.0, 2.0, 4.0, 8.0)
# A run that goes on for so long after the last sending was not reached by it.
NOT_ARRIVED_AFTER = timedelta(seconds=20)


def delay(send_count: int) -> timedelta:
    """Return how long an act rests that was sent so often and may not have arrived."""
    return timedelta(seconds=_DELAYS[min(max(send_count, 1), len(_DELAYS)) - 1])


def is_exhausted(send_count: int, first_sent_at: datetime, now: datetime) -> bool:
    """Say whether an act that was sent so often, first at `first`, is not sent again any more."""
    return send_count >= MAX_SENDS or now - first_sent_at > RESEND_WINDOW
