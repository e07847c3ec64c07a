"""Compute from rate limit headers how many requests reading may send, and how fast. Pure.

https://northflank.com/docs/v1/api/use-the-api#rate-limits: a fixed window of an hour starts with
its first request; headers give the limit, the remaining requests, and the seconds until its end.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dashboard.northflank import RateLimit

DEFAULT_LIMIT = 1000  # requests per hour, until a header gives the limit
WINDOW = timedelta(hours=1)
# Window ends that differ by less than this may be the same one.
SAME_WINDOW_TOLERANCE = timedelta(seconds=30)
# An answer to a request that was sent later than this after the last answer is newer than it. With
# less, the order is unsure: answers are recorded some time after they come, and clocks differ.
MAX_OVERTAKING_TIME = timedelta(seconds=2)
# Share of the limit by which planned reads may run ahead of the even rate: enough for a new
# installation to show its first pages at once, and a bound on what a backlog takes from the
# window's later minutes.
MARGIN = 0.1
# Weight of the request rate of others in earlier windows, as time in the current one: their usage
# outlasts a window, and one burst in a window's first minute is not representative.
SMOOTHING_PERIOD = timedelta(hours=1)
# Share of the remaining requests that is always ours: the usage of others is an estimate and may
# have ended, and reading must not stop for an hour because of it.
MIN_OWN_SHARE = 0.25
# Share of an hour's even rate that first reads leave to reading runs in flight.
IN_FLIGHT_SHARE = 0.25
# Minimum time base of the first rate estimate: with less, a few requests look like a flood.
MIN_ELAPSED = timedelta(minutes=5)
# Pauses after a 429. The pause it asks for is kept within these bounds. Each further 429 after a
# completed pause doubles it, up to MAX_BACKOFF unless Northflank asks for more.
MIN_PAUSE, MAX_PAUSE = timedelta(seconds=1), WINDOW
DEFAULT_PAUSE = timedelta(seconds=60)  # if the 429 asks for none
MAX_BACKOFF = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class RateLimitWindow:
    """The account's rate limit window: its counts, our share of them, and the usage of others."""

    limit: int
    remaining: int
    resets_at: datetime
    synced_at: datetime  # time of the last response
    own_requests: int = 0  # sent by all our processes in this window
    others_rate_before: float | None = None  # requests per second of others in earlier windows
    burst: float = 0.0  # requests ahead of the even rate at `synced_at`
    backoff_until: datetime | None = None
    refusals: int = 0  # consecutive 429s, each after the previous pause
    log_requests: int = 0  # of our own, those for logs that people look at

    @property
    def other_requests(self) -> int:
        """Requests that other clients of the account sent in this window."""
        return max(self.limit - self.remaining - self.own_requests, 0)

    @property
    def others_rate(self) -> float:
        """Estimated requests per second of others, smoothed over this and earlier windows."""
        elapsed = max(WINDOW - (self.resets_at - self.synced_at), timedelta())
        if self.others_rate_before is None:
            return self.other_requests / max(elapsed, MIN_ELAPSED).total_seconds()
        smoothing = SMOOTHING_PERIOD.total_seconds()
        return (self.other_requests + self.others_rate_before * smoothing) / (
            elapsed.total_seconds() + smoothing
        )


@dataclass(frozen=True, slots=True)
class ReadBudget:
    """What reading may spend: `requests` within the next `seconds`."""

    requests: int
    seconds: float
    limit: int = DEFAULT_LIMIT  # requests of a whole window
    reserve: int = 0  # requests kept for aborts; the last half is for sending them only
    backoff_until: datetime | None = None
    other_requests: float = 0.0  # expected from other clients in these seconds
    burst: float = 0.0  # requests ahead of the even rate
    # The pause after a 429 is over, but no request was answered since: one request at a time.
    is_probing: bool = False
    log_requests: int = 0  # of what was sent in this window, those for logs

    @property
    def margin(self) -> float:
        """The largest burst of planned reads; urgent ones may reach twice as much."""
        return self.limit * MARGIN

    @property
    def in_flight_requests(self) -> float:
        """The requests that first reads leave to runs in flight in these seconds."""
        hours = self.seconds / WINDOW.total_seconds()
        usable = (self.limit - self.reserve) * hours
        return IN_FLIGHT_SHARE * max(usable - self.other_requests, MIN_OWN_SHARE * usable)

    @property
    def first_read_requests(self) -> int:
        """How many requests first reads may send at once, ahead of the even rate.

        Excludes the requests expected from others, whom such a burst would leave none, and the
        unused margin, which planned reads may use in addition.
        """
        margin = max(self.margin - self.burst, 0.0)
        return max(int(self.requests - self.other_requests - self.in_flight_requests - margin), 0)

    @property
    def may_reconcile_aborts(self) -> bool:
        """Whether open aborts may be reconciled: the last half of the reserve is for sending."""
        return self.requests > -self.reserve // 2

    @property
    def is_paused(self) -> bool:
        """Whether everything but single aborts waits: from a 429 until a request is answered."""
        return self.backoff_until is not None or self.is_probing

    @property
    def may_bulk_abort(self) -> bool:
        """Whether bulk aborts may continue: the reserve's last quarter is for single aborts."""
        return not self.is_paused and self.requests + self.reserve > self.reserve // 4

    @property
    def may_read(self) -> bool:
        """Whether reading may continue now without taking from the window's later minutes."""
        return self.requests > 0 and self.burst < 2 * self.margin

    @property
    def may_read_planned(self) -> bool:
        """Whether planned reads may continue; they stop earlier than urgent ones, for these."""
        return self.requests > 0 and self.burst < self.margin

    @property
    def requests_per_second(self) -> float:
        """The even rate that lasts until the window ends, without the share of others."""
        return self._own_requests / max(self.seconds, 1.0)

    @property
    def _own_requests(self) -> float:
        """Our share of the requests left in the window, at least MIN_OWN_SHARE of them."""
        return max(self.requests - self.other_requests, MIN_OWN_SHARE * self.requests, 0.0)


def compute(window: RateLimitWindow | None, reserve: int, now: datetime) -> ReadBudget:
    """Return what reading may spend from `now` until the window ends, `reserve` excluded."""
    if window is None:
        window = RateLimitWindow(DEFAULT_LIMIT, DEFAULT_LIMIT, now + WINDOW, now)
    backoff_until = (
        window.backoff_until if window.backoff_until and window.backoff_until > now else None
    )
    is_over = window.resets_at <= now  # the next request starts a new window
    seconds = (WINDOW if is_over else window.resets_at - now).total_seconds()
    budget = ReadBudget(
        requests=(window.limit if is_over else window.remaining) - reserve,
        seconds=seconds,
        limit=window.limit,
        reserve=reserve,
        backoff_until=backoff_until,
        other_requests=window.others_rate * seconds,
        is_probing=window.refusals > 0 and backoff_until is None,
        log_requests=0 if is_over else window.log_requests,
    )
    elapsed = max((now - window.synced_at).total_seconds(), 0.0)
    return replace(budget, burst=max(window.burst - budget.requests_per_second * elapsed, 0.0))


def after_response(
    window: RateLimitWindow | None,
    rate_limit: RateLimit | None,
    reserve: int,
    now: datetime,
    *,
    requested_at: datetime | None = None,
) -> RateLimitWindow:
    """Return the window after one more response to us, which was not a 429.

    `rate_limit` is None if the response had no such headers. A response to a request that was sent
    (`requested_at`, default `now`) after a pause ends the backoff. Raises ValueError if both
    `window` and `rate_limit` are None.
    """
    if window is not None and window.refusals:
        sent_at = requested_at or now
        if window.backoff_until is None or window.backoff_until <= sent_at:
            window = replace(window, backoff_until=None, refusals=0)
    burst = compute(window, reserve, now).burst + 1
    if rate_limit is None:
        if window is None:
            raise ValueError("The rate limit is unknown.")
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
    is_open = window.resets_at > now
    is_close = abs(window.resets_at - resets_at) < SAME_WINDOW_TOLERANCE
    has_risen = rate_limit.remaining > window.remaining
    if not is_close and resets_at < min(window.resets_at, now + SAME_WINDOW_TOLERANCE):
        # A late response from the previous window.
        return replace(window, burst=burst, synced_at=now)
    # Two of three, since each misleads at times: a step of the clock moves both ends, responses
    # arrive out of order, and the last ones of a window are recorded after its end.
    if is_open + is_close + (not has_risen) >= 2:
        if has_risen and window.limit == rate_limit.limit:
            if (requested_at or now) - window.synced_at > MAX_OVERTAKING_TIME:
                # Northflank has not counted all answers without headers, such as a gateway's.
                uncounted = rate_limit.remaining - window.remaining
                own_requests = max(window.own_requests - uncounted, 1)
            else:
                # Within a window the smallest count is the latest.
                remaining = window.remaining
    else:
        own_requests, others_rate = 1, window.others_rate
        window = replace(window, log_requests=0)
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
    """Return the window after a 429.

    `retry_after_seconds` is the pause it asks for, None if it asks for none. The window's counts
    are kept unless the pause lasts until its end: then nothing remains of it.
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
        # Sent before the pause began: counts as the same refusal.
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
    window = replace(window, backoff_until=backoff_until, refusals=refusals)
    if not now < window.resets_at <= backoff_until + SAME_WINDOW_TOLERANCE:
        return window
    # Who used the rest is unknown: it counts as ours, so that the rate of others stays as measured.
    own_requests = max(window.limit - window.other_requests, window.own_requests)
    return replace(window, remaining=0, own_requests=own_requests)
