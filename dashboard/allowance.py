"""How much of the hour reading may spend, and how fast. Pure: headers in, an allowance out.

https://northflank.com/docs/v1/api/use-the-api#rate-limits: a fixed window opened by its first
request; the headers give the limit, what remains, and the seconds until the window ends.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dashboard.northflank import RateLimit

DEFAULT_LIMIT = 1000  # requests an hour, until a header says otherwise
WINDOW = timedelta(hours=1)
# Two answers speak of one window when their ends differ by less than this.
SAME_WINDOW = timedelta(seconds=30)
# The share of the limit that discovery may be ahead of the even rate. A new installation shows its
# first pages at once, and no backlog takes more than this out of a window's later minutes.
SLACK = 0.1
# Others' rate in the windows before counts as much as this long of the present one: their habits
# outlast a window, and one burst in a window's first minute is no habit.
MEMORY = timedelta(hours=1)
# However much others seem to send, this share of what is left stays ours: what they did before may
# have ended, and nobody may be left in the dark for an hour by an estimate.
LEAST = 0.25
# Nothing is known of others before; a shorter time would make a few requests look like a flood.
FIRST_LOOK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Window:
    """What is known of the account's window, of our part in it, and of others' habits."""

    limit: int
    remaining: int
    resets_at: datetime
    seen_at: datetime  # when an answer last told
    ours: int = 0  # our own requests in it, of all processes
    others_before: float | None = None  # others' requests a second, before this window
    ahead: float = 0.0  # requests by which we were ahead of the even rate at `seen_at`
    refused_until: datetime | None = None

    @property
    def others(self) -> int:
        """Requests in this window that were not ours."""
        return max(self.limit - self.remaining - self.ours, 0)

    @property
    def others_per_second(self) -> float:
        """What others of the account seem to send, smoothed over this window and those before."""
        passed = max(WINDOW - (self.resets_at - self.seen_at), timedelta())
        if self.others_before is None:
            return self.others / max(passed, FIRST_LOOK).total_seconds()
        memory = MEMORY.total_seconds()
        return (self.others + self.others_before * memory) / (passed.total_seconds() + memory)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be spent on reading: `requests` within the next `seconds`."""

    requests: int
    seconds: float
    reserve: int = 0  # kept for aborts, and half of it for sending them
    refused_until: datetime | None = None
    others: float = 0.0  # requests left to others in these seconds
    ahead: float = 0.0  # requests by which reading is ahead of the even rate
    slack: float = 0.0  # requests by which discovery may be; following twice as many

    @property
    def may_follow(self) -> bool:
        """Say whether aborts under way may be followed: the last half of the reserve sends them."""
        return self.requests > -self.reserve // 2

    @property
    def may_abort_many(self) -> bool:
        """Say whether a list may go on: the reserve's last quarter is for single aborts."""
        return self.refused_until is None and self.requests + self.reserve > self.reserve // 4

    @property
    def may_read(self) -> bool:
        """Say whether reading may go on now, without taking from the window's later minutes."""
        return self.requests > 0 and self.ahead < 2 * self.slack

    @property
    def may_discover(self) -> bool:
        """Say whether more than runs in flight may be read; a backlog of it never delays those."""
        return self.requests > 0 and self.ahead < self.slack

    @property
    def seconds_held_up(self) -> float:
        """How long discovery waits until reading is no longer too far ahead."""
        return max(self.ahead - self.slack, 0.0) / max(self.per_second, 1e-3)

    @property
    def per_second(self) -> float:
        """The even rate that lasts until the window ends, others' part left to them."""
        ours = max(self.requests - self.others, LEAST * self.requests, 0.0)
        return ours / max(self.seconds, 1.0)


def allowance(known: Window | None, reserve: int, now: datetime) -> Allowance:
    """Return what reading may spend from `now` until the window ends, `reserve` left out."""
    if known is None:
        known = Window(DEFAULT_LIMIT, DEFAULT_LIMIT, now + WINDOW, now)
    refused = known.refused_until if known.refused_until and known.refused_until > now else None
    over = known.resets_at <= now  # the next request opens a full one
    seconds = (WINDOW if over else known.resets_at - now).total_seconds()
    requests = (known.limit if over else known.remaining) - reserve
    others = known.others_per_second * seconds
    slack = known.limit * SLACK
    since = max((now - known.seen_at).total_seconds(), 0.0)
    even = Allowance(requests, seconds, reserve, refused, others, known.ahead, slack)
    if not known.ahead:
        return even
    return replace(even, ahead=max(known.ahead - even.per_second * since, 0.0))


def heard(known: Window | None, said: RateLimit | None, reserve: int, now: datetime) -> Window:
    """Return what is known after one more answer to us; `said` is None where it told nothing.

    Raises ValueError when nothing was known before, and nothing is told.
    """
    ahead = allowance(known, reserve, now).ahead + 1
    if said is None:
        if known is None:
            raise ValueError("Nothing is known of the rate.")
        if known.resets_at <= now:
            return replace(known, ahead=ahead, seen_at=now)
        left = (known.resets_at - now).total_seconds()
        said = RateLimit(known.limit, max(known.remaining - 1, 0), left)
    resets_at = now + timedelta(seconds=said.reset_seconds)
    if known is None:
        return Window(said.limit, said.remaining, resets_at, now, 1, None, ahead)
    ours, remaining, before = known.ours + 1, said.remaining, known.others_before
    if known.resets_at > now and abs(known.resets_at - resets_at) < SAME_WINDOW:
        if known.limit == said.limit:
            # Answers may overtake each other; within a window the smallest number is the newest.
            remaining = min(known.remaining, said.remaining)
    elif resets_at < min(known.resets_at, now + SAME_WINDOW):
        # An answer from the end of the last window, overtaken by one from this window.
        return replace(known, ahead=ahead, seen_at=now)
    else:
        ours, before = 1, known.others_per_second
    return Window(said.limit, remaining, resets_at, now, ours, before, ahead, known.refused_until)


def refused(known: Window | None, reset_seconds: float | None, now: datetime) -> Window:
    """Return what is known after Northflank refused a request for its rate (429)."""
    if reset_seconds is not None:
        until = now + timedelta(seconds=reset_seconds)
    elif known is not None and known.resets_at > now:
        until = known.resets_at
    else:
        until = now + timedelta(seconds=60)  # nothing said: ask again in a minute
    if known is None:
        return Window(DEFAULT_LIMIT, 0, until, now, DEFAULT_LIMIT, refused_until=until)
    # Who has spent the rest is not said: it counts as ours, so that others' habits stay as seen.
    ours = max(known.limit - known.others, known.ours)
    return replace(known, remaining=0, ours=ours, refused_until=until)
