"""The hour's requests: what the headers last said, and how much of it reading may spend.

https://northflank.com/docs/v1/api/use-the-api#rate-limits: a fixed window opened by its first
request; the headers give the limit, what remains, and the seconds until the window ends.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from dashboard.models import Budget
from dashboard.northflank import RateLimit

# Two answers speak of one window when their ends differ by less than this.
SAME_WINDOW = timedelta(seconds=30)
DEFAULT_LIMIT = 1000  # requests an hour, until a header says otherwise
WINDOW = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be spent on reading: `requests` within the next `seconds`."""

    requests: int
    seconds: float
    reserve: int = 0  # kept for aborts, and half of it for sending them
    refused_until: datetime | None = None

    @property
    def may_follow(self) -> bool:
        """Say whether aborts under way may be followed: the last half of the reserve sends them."""
        return self.requests > -self.reserve // 2

    @property
    def per_second(self) -> float:
        """The even rate that lasts until the window ends."""
        return max(self.requests, 0) / max(self.seconds, 1.0)


def reserve_of(limit: int) -> int:
    """Return how many of `limit` requests are kept for aborts."""
    text: str = settings.NORTHFLANK_REQUEST_RESERVE
    share = float(text[:-1]) / 100 * limit if text.endswith("%") else float(text)
    return min(round(share), limit * 9 // 10)  # something has to be left for reading


def record(said: RateLimit, now: datetime) -> None:
    """Keep what an answer's headers said."""
    resets_at = now + timedelta(seconds=said.reset_seconds)
    known = Budget.objects.first()
    if known is None:
        Budget.objects.create(
            pk=1, limit=said.limit, remaining=said.remaining, resets_at=resets_at, seen_at=now
        )
        return
    same_window = (
        known.limit == said.limit
        and known.resets_at > now
        and abs(known.resets_at - resets_at) < SAME_WINDOW
    )
    Budget.objects.filter(pk=known.pk).update(
        limit=said.limit,
        # Answers may overtake each other; within a window the smallest number is the newest.
        remaining=min(known.remaining, said.remaining) if same_window else said.remaining,
        resets_at=resets_at,
        seen_at=now,
    )


def refuse(reset_seconds: float | None, now: datetime) -> None:
    """Note that Northflank refused a request for its rate: no reading until the window ends."""
    known = Budget.objects.first()
    if reset_seconds is not None:
        until = now + timedelta(seconds=reset_seconds)
    elif known is not None and known.resets_at > now:
        until = known.resets_at
    else:
        until = now + timedelta(seconds=60)  # nothing said: ask again in a minute
    if known is None:
        Budget.objects.create(
            pk=1, limit=DEFAULT_LIMIT, remaining=0, resets_at=until, refused_until=until,
            seen_at=now,
        )  # fmt: skip
    else:
        Budget.objects.filter(pk=known.pk).update(remaining=0, refused_until=until)


def allowance(now: datetime) -> Allowance:
    """Return what reading may spend from `now` until the window ends, aborts' reserve left out."""
    known = Budget.objects.first()
    if known is None:
        kept = reserve_of(DEFAULT_LIMIT)
        return Allowance(DEFAULT_LIMIT - kept, WINDOW, kept)
    refused = known.refused_until if known.refused_until and known.refused_until > now else None
    kept = reserve_of(known.limit)
    if known.resets_at <= now:  # the window is over: the next request opens a full one
        return Allowance(known.limit - kept, WINDOW, kept, refused)
    seconds = (known.resets_at - now).total_seconds()
    return Allowance(known.remaining - kept, seconds, kept, refused)
