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
SAME_WINDOW_TOLERANCE = timedelta(seconds=30)
# The share of the limit that discovery may be ahead of the even rate. A new installation shows its
# first pages at once, and no backlog takes more than this out of a window's later minutes.
MARGIN = 0.1
# Others' rate in the windows before counts as much as this long of the present one: their habits
# outlast a window, and one burst in a window's first minute is no habit.
SMOOTHING_PERIOD = timedelta(hours=1)
# However much others seem to send, this share of what is left stays ours: what they did before may
# have ended, and nobody may be left in the dark for an hour by an estimate.
MIN_OWN_SHARE = 0.25
# What first reads leave of the even rate of a whole hour: what is in flight is followed with it.
IN_FLIGHT_SHARE = 0.25
# Nothing is known of others before; a shorter time would make a few requests look like a flood.
MIN_ELAPSED = timedelta(minutes=5)
# Pauses after a 429. What it asks for is believed, within these bounds; each one after the pause
# that the last had asked for doubles it, up to LONGEST_BACKOFF where less is asked for.
MIN_PAUSE, MAX_PAUSE = timedelta(seconds=1), WINDOW
DEFAULT_PAUSE = timedelta(seconds=60)  # where it asks for none
MAX_BACKOFF = timedelta(minutes=15)
PROBE_LEASE = timedelta(seconds=20)  # one request is answered within it, or never


@dataclass(frozen=True, slots=True)
class RateLimitWindow:
    """What is known of the account's window, of our part in it, and of others' habits."""

    limit: int
    remaining: int
    resets_at: datetime
    synced_at: datetime  # when an answer last told
    own_requests: int = 0  # our own requests in it, of all processes
    others_rate_before: float | None = None  # others' requests a second, before this window
    burst: float = 0.0  # requests by which we were ahead of the even rate at `synced_at`
    backoff_until: datetime | None = None
    refusals: int = 0  # 429s in a row, each after the pause of the one before
    probe_until: datetime | None = None  # a request is under way that tries after a pause

    @property
    def other_requests(self) -> int:
        """Requests in this window that were not ours."""
        return max(self.limit - self.remaining - self.own_requests, 0)

    @property
    def others_rate(self) -> float:
        """What others of the account seem to send, smoothed over this window and those before."""
        elapsed = max(WINDOW - (self.resets_at - self.synced_at), timedelta())
        if self.others_rate_before is None:
            return self.other_requests / max(elapsed, MIN_ELAPSED).total_seconds()
        smoothing = SMOOTHING_PERIOD.total_seconds()
        return (self.other_requests + self.others_rate_before * smoothing) / (
            elapsed.total_seconds() + smoothing
        )


@dataclass(frozen=True, slots=True)
class ReadBudget:
    """What may be spent on reading: `requests` within the next `seconds`."""

    requests: int
    seconds: float
    reserve: int = 0  # kept for aborts, and half of it for sending them
    backoff_until: datetime | None = None
    other_requests: float = 0.0  # requests left to others in these seconds
    burst: float = 0.0  # requests by which reading is ahead of the even rate
    margin: float = 0.0  # requests by which discovery may be; following twice as many
    # A pause that a 429 asked for is over, and nothing was answered since: one request at a time.
    is_probing: bool = False
    probe_until: datetime | None = None  # such a request is under way
    in_flight_requests: float = 0.0  # requests that first reads leave to what is in flight

    @property
    def first_read_requests(self) -> int:
        """How many requests first reads may send at once, ahead of the even rate.

        None of what others are expected to take, since so much at once would leave them nothing;
        and none of the slack, by which they may be ahead besides.
        """
        margin = max(self.margin - self.burst, 0.0)
        return max(int(self.requests - self.other_requests - self.in_flight_requests - margin), 0)

    @property
    def may_reconcile_aborts(self) -> bool:
        """Say whether aborts under way may be followed: the last half of the reserve sends them."""
        return self.requests > -self.reserve // 2

    @property
    def is_paused(self) -> bool:
        """Say whether all but single aborts waits: after a 429, until a request was answered."""
        return self.backoff_until is not None or self.is_probing

    @property
    def may_bulk_abort(self) -> bool:
        """Say whether a list may go on: the reserve's last quarter is for single aborts."""
        return not self.is_paused and self.requests + self.reserve > self.reserve // 4

    @property
    def may_read(self) -> bool:
        """Say whether reading may go on now, without taking from the window's later minutes."""
        return self.requests > 0 and self.burst < 2 * self.margin

    @property
    def may_discover(self) -> bool:
        """Say whether more than runs in flight may be read; a backlog of it never delays those."""
        return self.requests > 0 and self.burst < self.margin

    @property
    def discovery_delay_seconds(self) -> float:
        """How long discovery waits until reading is no longer too far ahead."""
        return max(self.burst - self.margin, 0.0) / max(self.requests_per_second, 1e-3)

    @property
    def requests_per_second(self) -> float:
        """The even rate that lasts until the window ends, others' part left to them."""
        return self._own_requests / max(self.seconds, 1.0)

    @property
    def _own_requests(self) -> float:
        """The requests that others are not expected to send before the window ends."""
        return max(self.requests - self.other_requests, MIN_OWN_SHARE * self.requests, 0.0)

    def next_window(self, limit: int) -> "ReadBudget":
        """Return what may be spent in the window after this one, if others go on as they do."""
        hour = WINDOW.total_seconds()
        other_requests = self.other_requests / max(self.seconds, 1.0) * hour
        return ReadBudget(
            limit - self.reserve,
            hour,
            self.reserve,
            other_requests=other_requests,
            margin=self.margin,
            in_flight_requests=_in_flight_requests(limit, self, hour),
        )


def compute(window: RateLimitWindow | None, reserve: int, now: datetime) -> ReadBudget:
    """Return what reading may spend from `now` until the window ends, `reserve` left out."""
    if window is None:
        window = RateLimitWindow(DEFAULT_LIMIT, DEFAULT_LIMIT, now + WINDOW, now)
    backoff_until = (
        window.backoff_until if window.backoff_until and window.backoff_until > now else None
    )
    is_over = window.resets_at <= now  # the next request opens a full one
    seconds = (WINDOW if is_over else window.resets_at - now).total_seconds()
    requests = (window.limit if is_over else window.remaining) - reserve
    other_requests = window.others_rate * seconds
    margin = window.limit * MARGIN
    elapsed = max((now - window.synced_at).total_seconds(), 0.0)
    is_probing = window.refusals > 0 and backoff_until is None
    probe_until = window.probe_until if is_probing and (window.probe_until or now) > now else None
    budget = ReadBudget(
        requests,
        seconds,
        reserve,
        backoff_until,
        other_requests,
        window.burst,
        margin,
        is_probing,
        probe_until,
    )
    budget = replace(budget, in_flight_requests=_in_flight_requests(window.limit, budget, seconds))
    if not window.burst:
        return budget
    return replace(budget, burst=max(window.burst - budget.requests_per_second * elapsed, 0.0))


def _in_flight_requests(limit: int, budget: ReadBudget, seconds: float) -> float:
    """Return what first reads leave for so many seconds: a part of what an hour gives to us."""
    hour = WINDOW.total_seconds()
    usable = limit - budget.reserve
    other_requests = budget.other_requests / max(budget.seconds, 1.0) * hour
    return (
        IN_FLIGHT_SHARE * max(usable - other_requests, MIN_OWN_SHARE * usable, 0.0) * seconds / hour
    )


def after_response(
    window: RateLimitWindow | None,
    rate_limit: RateLimit | None,
    reserve: int,
    now: datetime,
    *,
    requested_at: datetime | None = None,
) -> RateLimitWindow:
    """Return what is known after one more answer to us; `said` is None where it told nothing.

    It is no 429. One to what was asked (now, if not told) after a pause ends it. Raises ValueError
    when nothing was known before, and nothing is told.
    """
    if window is not None and window.refusals:
        sent_at = requested_at or now
        if window.backoff_until is None or window.backoff_until <= sent_at:
            window = replace(window, backoff_until=None, refusals=0, probe_until=None)
    burst = compute(window, reserve, now).burst + 1
    if rate_limit is None:
        if window is None:
            raise ValueError("Nothing is known of the rate.")
        if window.resets_at <= now:
            return replace(window, burst=burst, synced_at=now)
        seconds_left = (window.resets_at - now).total_seconds()
        rate_limit = RateLimit(window.limit, max(window.remaining - 1, 0), seconds_left)
    resets_at = now + timedelta(seconds=rate_limit.reset_seconds)
    if window is None:
        return RateLimitWindow(
            rate_limit.limit, rate_limit.remaining, resets_at, now, 1, None, burst
        )
    own_requests, remaining, others_rate = (
        window.own_requests + 1,
        rate_limit.remaining,
        window.others_rate_before,
    )
    if window.resets_at > now and abs(window.resets_at - resets_at) < SAME_WINDOW_TOLERANCE:
        if window.limit == rate_limit.limit:
            # Answers may overtake each other; within a window the smallest number is the newest.
            remaining = min(window.remaining, rate_limit.remaining)
    elif resets_at < min(window.resets_at, now + SAME_WINDOW_TOLERANCE):
        # An answer from the end of the last window, overtaken by one from this window.
        return replace(window, burst=burst, synced_at=now)
    else:
        own_requests, others_rate = 1, window.others_rate
    return replace(
        window,
        limit=rate_limit.limit,
        remaining=remaining,
        resets_at=resets_at,
        synced_at=now,
        own_requests=own_requests,
        others_rate_before=others_rate,
        burst=burst,
    )


def after_rate_limited(
    window: RateLimitWindow | None, retry_after_seconds: float | None, now: datetime
) -> RateLimitWindow:
    """Return what is known after Northflank refused a request for its rate (429).

    `wait_seconds`: how long it asks us to wait, if it does. What good answers said of the window is
    kept, unless the pause lasts until its end: then the hour is spent.
    """
    requested_pause = None
    if retry_after_seconds is not None:
        requested_pause = timedelta(seconds=min(retry_after_seconds, MAX_PAUSE.total_seconds()))
        requested_pause = max(requested_pause, MIN_PAUSE)
    if window is None:
        backoff_until = now + (requested_pause or DEFAULT_PAUSE)
        return RateLimitWindow(
            DEFAULT_LIMIT,
            0,
            backoff_until,
            now,
            DEFAULT_LIMIT,
            backoff_until=backoff_until,
            refusals=1,
        )
    if window.backoff_until is not None and window.backoff_until > now:
        # What was under way when the pause began is refused with it: no further one.
        refusals, backoff_until = window.refusals, window.backoff_until
        if requested_pause is not None:
            backoff_until = max(backoff_until, now + requested_pause)
    else:
        refusals = window.refusals + 1
        backoff = min((requested_pause or DEFAULT_PAUSE) * 2 ** min(refusals - 1, 10), MAX_BACKOFF)
        backoff_until = now + max(backoff, requested_pause or backoff)
        if requested_pause is None and window.resets_at > now:
            is_spent = window.remaining <= 0
            backoff_until = window.resets_at if is_spent else min(backoff_until, window.resets_at)
    window = replace(window, backoff_until=backoff_until, refusals=refusals, probe_until=None)
    if not now < window.resets_at <= backoff_until + SAME_WINDOW_TOLERANCE:
        return window
    # Who has spent the rest is not said: it counts as ours, so that others' habits stay as seen.
    own_requests = max(window.limit - window.other_requests, window.own_requests)
    return replace(window, remaining=0, own_requests=own_requests)


def start_probe(window: RateLimitWindow, now: datetime) -> RateLimitWindow | None:
    """Return what is known once a request has been let through to try; None: not now."""
    budget = compute(window, 0, now)
    if not budget.is_probing or budget.probe_until is not None:
        return None
    return replace(window, probe_until=now + PROBE_LEASE)
