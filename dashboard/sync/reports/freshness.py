"""How old a read may be. Pure.

With each read of a stage the sync sets `Stage.fresh_until`: now plus the planned interval of the
stage. Later failures and delays do not change it; a later plan may extend it, if the rate limit
leaves requests for it.
"""

from datetime import datetime, timedelta

GRACE = timedelta(seconds=30)  # for the read itself and for a free slot
RECENT = timedelta(minutes=1)  # only what was read within this is said to be up to date


def is_stale(fresh_until: datetime | None, now: datetime) -> bool:
    """Return whether the data is older than planned; False if never read (None)."""
    return fresh_until is not None and fresh_until + GRACE < now
