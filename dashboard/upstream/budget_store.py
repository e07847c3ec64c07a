"""Store the rate budget in the database: one row, shared by all processes.

The rules are in `rate_budget`; this module loads, locks and saves their state.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from functools import cache
from http import HTTPStatus

from django.conf import settings
from django.db import transaction

from dashboard.db.prepared import PreparedQuery, PreparedUpdate, parameters
from dashboard.db.threads import now
from dashboard.models import MetricCounter, RateBudget, counters
from dashboard.models.counters import CounterName
from dashboard.northflank import Call
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.log_share import LogShare
from dashboard.upstream.rate_budget import DEFAULT_LIMIT, RateLimitWindow, ReadBudget

WINDOW_FIELDS = [field.name for field in fields(RateLimitWindow)]


def abort_reserve(limit: int) -> int:
    """Return how many of `limit` requests an hour are reserved for aborts.

    The setting NORTHFLANK_REQUEST_RESERVE is a number or a percentage.
    """
    reserve = _part(settings.NORTHFLANK_REQUEST_RESERVE, limit)
    return min(reserve, limit * 9 // 10)  # leaves at least 10% for reading


def _part(text: str, limit: int) -> int:
    """Return how many of `limit` requests a setting means: a number or a percentage."""
    return round(float(text[:-1]) / 100 * limit if text.endswith("%") else float(text))


def record_calls(
    calls: Collection[Call], *, excluded_from_burst: int = 0, log_requests: int = 0
) -> None:
    """Record requests that were just sent, and the rate limit headers of their responses.

    `excluded_from_burst`: how many of them do not count against the even rate, so that first reads
    and those for links, searches and logs delay no regular read. `log_requests`: how many of them
    are for logs.
    """
    # A 429 may come from a burst limiter with other counts: its headers are ignored.
    answered = [call for call in calls if call.status not in {None, HTTPStatus.TOO_MANY_REQUESTS}]

    def record(window: RateLimitWindow | None) -> RateLimitWindow | None:
        # They were sent one after another and are recorded after the last answer, so the first was
        # sent at least this long ago.
        elapsed = timedelta(seconds=sum(call.seconds for call in answered))
        for call in answered:
            moment = now()
            if window or call.rate_limit:  # do not invent a window before the first headers
                window = rules.after_response(
                    window,
                    call.rate_limit,
                    abort_reserve(_limit(window)),
                    moment,
                    requested_at=moment - elapsed,
                )
            elapsed -= timedelta(seconds=call.seconds)
        if window is None:
            return None
        return replace(
            window,
            log_requests=window.log_requests + log_requests,
            burst=max(window.burst - excluded_from_burst, 0.0),
        )

    if not calls and not excluded_from_burst:
        return
    with transaction.atomic():
        if answered or excluded_from_burst:
            _update(record)
        counters.store(row for call in calls for row in _increments(call))


def _increments(call: Call) -> Iterator[MetricCounter]:
    yield from counters.observe(CounterName.UPSTREAM_DURATION, call.seconds, call.route)
    if call.status is None or call.status >= HTTPStatus.BAD_REQUEST:
        cause = f"http_{call.status}" if call.status else "no_response"
        yield counters.increment(CounterName.UPSTREAM_FAILED, call.route, cause)


def record_rate_limited(retry_after_seconds: float | None, now: datetime) -> None:
    """Record a 429 and the pause it asks for in seconds, if any."""
    _update(lambda window: rules.after_rate_limited(window, retry_after_seconds, now))


def load_limit() -> int:
    """Return the rate limit (requests per hour) as last reported, or the default."""
    return _limit(_fetch_window(_window_query()))


def _limit(window: RateLimitWindow | None) -> int:
    return window.limit if window else DEFAULT_LIMIT


def load(now: datetime) -> ReadBudget:
    """Return the requests reading may send from `now` until the window ends, reserve excluded."""
    window = _fetch_window(_window_query())
    return rules.compute(window, abort_reserve(_limit(window)), now)


def load_log_share(now: datetime) -> LogShare:
    """Return what may be read of logs until the window ends, by NORTHFLANK_LOG_REQUESTS."""
    window = _fetch_window(_window_query())
    budget = rules.compute(window, 0, now)
    total = _part(settings.NORTHFLANK_LOG_REQUESTS, _limit(window))
    return LogShare(total, budget.log_requests, budget.seconds)


def _fetch_window(query: PreparedQuery) -> RateLimitWindow | None:
    return next((RateLimitWindow(*row) for row in query.fetch()), None)


@cache
def _window_query() -> PreparedQuery:
    return PreparedQuery(RateBudget.objects.order_by("pk").values_list(*WINDOW_FIELDS)[:1])


@cache
def _locked_window_query() -> PreparedQuery:
    locked = RateBudget.objects.select_for_update().order_by("pk")
    return PreparedQuery(locked.values_list(*WINDOW_FIELDS)[:1])


@cache
def _window_update() -> PreparedUpdate:
    return PreparedUpdate(RateBudget.objects.all(), **parameters(RateBudget, WINDOW_FIELDS))


type _Transition = Callable[[RateLimitWindow | None], RateLimitWindow | None]


def _update(transition: _Transition) -> None:
    """Store what a transition makes of the window; of None, there is none yet."""
    if _update_existing(transition) or (window := transition(None)) is None:
        return
    if not RateBudget.objects.get_or_create(pk=1, defaults=asdict(window))[1]:
        _update_existing(transition)  # another process has created the row meanwhile


def _update_existing(transition: _Transition) -> bool:
    # The row stays locked from load to save: concurrent processes lose no request.
    with transaction.atomic(savepoint=False):
        window = _fetch_window(_locked_window_query())
        if window is None:
            return False
        updated = transition(window)
        if updated is not None and updated != window:
            _window_update().execute(**asdict(updated))
        return True
