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
# What first reads leave of the even rate of a whole hour: what is in flight is followed with it.
KEPT = 0.25
# Nothing is known of others before; a shorter time would make a few requests look like a flood.
FIRST_LOOK = timedelta(minutes=5)
# Pauses after a 429. What it asks for is believed, within these bounds; each one after the pause
# that the last had asked for doubles it, up to LONGEST_BACKOFF where less is asked for.
SHORTEST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), WINDOW
PAUSE = timedelta(seconds=60)  # where it asks for none
LONGEST_BACKOFF = timedelta(minutes=15)
PROBE = timedelta(seconds=20)  # one request is answered within it, or never


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
    refusals: int = 0  # 429s in a row, each after the pause of the one before
    probe_until: datetime | None = None  # a request is under way that tries after a pause

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
    # A pause that a 429 asked for is over, and nothing was answered since: one request at a time.
    probing: bool = False
    probe_until: datetime | None = None  # such a request is under way
    kept: float = 0.0  # requests that first reads leave to what is in flight

    @property
    def first_reads(self) -> int:
        """How many requests first reads may send at once, ahead of the even rate.

        None of what others are expected to take, since so much at once would leave them nothing;
        and none of the slack, by which they may be ahead besides.
        """
        slack = max(self.slack - self.ahead, 0.0)
        return max(int(self.requests - self.others - self.kept - slack), 0)

    @property
    def may_follow(self) -> bool:
        """Say whether aborts under way may be followed: the last half of the reserve sends them."""
        return self.requests > -self.reserve // 2

    @property
    def paused(self) -> bool:
        """Say whether all but single aborts waits: after a 429, until a request was answered."""
        return self.refused_until is not None or self.probing

    @property
    def may_abort_many(self) -> bool:
        """Say whether a list may go on: the reserve's last quarter is for single aborts."""
        return not self.paused and self.requests + self.reserve > self.reserve // 4

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
        return self._ours / max(self.seconds, 1.0)

    @property
    def _ours(self) -> float:
        """The requests that others are not expected to send before the window ends."""
        return max(self.requests - self.others, LEAST * self.requests, 0.0)

    def next_hour(self, limit: int) -> "Allowance":
        """Return what may be spent in the window after this one, if others go on as they do."""
        hour = WINDOW.total_seconds()
        others = self.others / max(self.seconds, 1.0) * hour
        return Allowance(
            limit - self.reserve,
            hour,
            self.reserve,
            others=others,
            slack=self.slack,
            kept=_kept(limit, self, hour),
        )


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
    probing = known.refusals > 0 and refused is None
    probe = known.probe_until if probing and (known.probe_until or now) > now else None
    even = Allowance(
        requests, seconds, reserve, refused, others, known.ahead, slack, probing, probe
    )
    even = replace(even, kept=_kept(known.limit, even, seconds))
    if not known.ahead:
        return even
    return replace(even, ahead=max(known.ahead - even.per_second * since, 0.0))


def _kept(limit: int, spend: Allowance, seconds: float) -> float:
    """Return what first reads leave for so many seconds: a part of what an hour gives to us."""
    hour = WINDOW.total_seconds()
    usable = limit - spend.reserve
    others = spend.others / max(spend.seconds, 1.0) * hour
    return KEPT * max(usable - others, LEAST * usable, 0.0) * seconds / hour


def heard(
    known: Window | None,
    said: RateLimit | None,
    reserve: int,
    now: datetime,
    *,
    asked_at: datetime | None = None,
) -> Window:
    """Return what is known after one more answer to us; `said` is None where it told nothing.

    It is no 429. One to what was asked (now, if not told) after a pause ends it. Raises ValueError
    when nothing was known before, and nothing is told.
    """
    if known is not None and known.refusals:
        asked = asked_at or now
        if known.refused_until is None or known.refused_until <= asked:
            known = replace(known, refused_until=None, refusals=0, probe_until=None)
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
    return replace(
        known,
        limit=said.limit,
        remaining=remaining,
        resets_at=resets_at,
        seen_at=now,
        ours=ours,
        others_before=before,
        ahead=ahead,
    )


def refused(known: Window | None, wait_seconds: float | None, now: datetime) -> Window:
    """Return what is known after Northflank refused a request for its rate (429).

    `wait_seconds`: how long it asks us to wait, if it does. What good answers said of the window is
    kept, unless the pause lasts until its end: then the hour is spent.
    """
    told = None
    if wait_seconds is not None:
        told = timedelta(seconds=min(wait_seconds, LONGEST_PAUSE.total_seconds()))
        told = max(told, SHORTEST_PAUSE)
    if known is None:
        until = now + (told or PAUSE)
        return Window(DEFAULT_LIMIT, 0, until, now, DEFAULT_LIMIT, refused_until=until, refusals=1)
    if known.refused_until is not None and known.refused_until > now:
        # What was under way when the pause began is refused with it: no further one.
        refusals, until = known.refusals, known.refused_until
        if told is not None:
            until = max(until, now + told)
    else:
        refusals = known.refusals + 1
        backoff = min((told or PAUSE) * 2 ** min(refusals - 1, 10), LONGEST_BACKOFF)
        until = now + max(backoff, told or backoff)
        if told is None and known.resets_at > now:
            spent = known.remaining <= 0
            until = known.resets_at if spent else min(until, known.resets_at)
    known = replace(known, refused_until=until, refusals=refusals, probe_until=None)
    if not now < known.resets_at <= until + SAME_WINDOW:
        return known
    # Who has spent the rest is not said: it counts as ours, so that others' habits stay as seen.
    ours = max(known.limit - known.others, known.ours)
    return replace(known, remaining=0, ours=ours)


def probe(known: Window, now: datetime) -> Window | None:
    """Return what is known once a request has been let through to try; None: not now."""
    spend = allowance(known, 0, now)
    if not spend.probing or spend.probe_until is not None:
        return None
    return replace(known, probe_until=now + PROBE)
