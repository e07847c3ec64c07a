"""When an abort that may not have arrived is sent again, and when no more. Pure.

That repeating an abort is harmless is an assumption: Northflank documents nothing of it. So it is
repeated only where the run, read after the last sending, goes on and is not aborting.
"""

from datetime import datetime, timedelta

MOST = 5  # sendings of one act
WITHIN = timedelta(minutes=2)  # from the first of them
# Seconds of rest after each sending that came to nothing: Northflank may be about to recover.
_PAUSES = (1.0, 2.0, 4.0, 8.0)
# A run that goes on for so long after the last sending was not reached by it.
CHECKED_FOR = timedelta(seconds=20)


def pause(sendings: int) -> timedelta:
    """Return how long an act rests that was sent so often and may not have arrived."""
    return timedelta(seconds=_PAUSES[min(max(sendings, 1), len(_PAUSES)) - 1])


def is_over(sendings: int, first: datetime, now: datetime) -> bool:
    """Say whether an act that was sent so often, first at `first`, is not sent again any more."""
    return sendings >= MOST or now - first > WITHIN
