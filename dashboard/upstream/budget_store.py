"""Store the rate budget in the database: one row, shared by all processes.

The rules are in `rate_budget`; this module loads, locks and saves their state.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from functools import cache
from http import HTTPStatus

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Greatest

from dashboard.db.prepared import PreparedQuery
from dashboard.db.threads import now
from dashboard.models import RateBudget
from dashboard.northflank import Call, RateLimit
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.rate_budget import DEFAULT_LIMIT, RateLimitWindow, ReadBudget

_WINDOW_FIELDS = [field.name for field in fields(RateLimitWindow)]


def abort_reserve(limit: int) -> int:
    """Return how many of `limit` requests an hour are reserved for aborts.

    The setting NORTHFLANK_REQUEST_RESERVE is a number or a percentage.
    """
    text: str = settings.NORTHFLANK_REQUEST_RESERVE
    share = float(text[:-1]) / 100 * limit if text.endswith("%") else float(text)
    return min(round(share), limit * 9 // 10)  # leaves at least 10% for reading


def record_calls(calls: Iterable[Call]) -> None:
    """Record the rate limit headers of requests that were just answered."""
    # A 429 may come from a burst limiter with other counts: its headers are ignored.
    for call in calls:
        if call.status not in {None, HTTPStatus.TOO_MANY_REQUESTS}:
            moment = now()
            record_response(
                call.rate_limit, moment, requested_at=moment - timedelta(seconds=call.seconds)
            )


def record_response(
    rate_limit: RateLimit | None, now: datetime, *, requested_at: datetime | None = None
) -> None:
    """Record the rate limit headers of one response to us that was not a 429.

    `rate_limit` is None if the response had no such headers.
    """
    # Do not invent a window before the first headers.
    if rate_limit is not None or RateBudget.objects.exists():
        _update(
            lambda window: rules.after_response(
                window, rate_limit, _abort_reserve(window), now, requested_at=requested_at
            )
        )


def record_rate_limited(retry_after_seconds: float | None, now: datetime) -> None:
    """Record a 429 and the pause it asks for in seconds, if any."""
    _update(lambda window: rules.after_rate_limited(window, retry_after_seconds, now))


def claim_probe(now: datetime) -> bool:
    """Return True if the caller may send the single probe request after a pause.

    Of all processes, one at a time gets True.
    """
    with transaction.atomic():
        window = _load_window(RateBudget.objects.select_for_update().first())
        updated = rules.start_probe(window, now) if window is not None else None
        if updated is None:
            return False
        RateBudget.objects.update(**asdict(updated))
        return True


def exclude_from_burst(requests: int) -> None:
    """Subtract requests that were just recorded from the burst.

    First reads and run lookups do not count against the even rate, so they delay no regular read.
    """
    burst = Greatest(F("burst") - float(requests), 0.0)
    RateBudget.objects.filter(burst__gt=0).update(burst=burst)


def load_limit() -> int:
    """Return the rate limit (requests per hour) as last reported, or the default."""
    for (limit,) in _limit_query().fetch():
        return int(limit)
    return DEFAULT_LIMIT


@cache
def _limit_query() -> PreparedQuery:
    return PreparedQuery(RateBudget.objects.order_by("pk").values_list("limit")[:1])


def load(now: datetime) -> ReadBudget:
    """Return the requests reading may send from `now` until the window ends, reserve excluded."""
    window = _load_window(RateBudget.objects.first())
    return rules.compute(window, _abort_reserve(window), now)


def _abort_reserve(window: RateLimitWindow | None) -> int:
    return abort_reserve(window.limit if window else DEFAULT_LIMIT)


def _load_window(row: RateBudget | None) -> RateLimitWindow | None:
    return (
        RateLimitWindow(*(getattr(row, name) for name in _WINDOW_FIELDS))
        if row is not None
        else None
    )


def _update(transition: Callable[[RateLimitWindow | None], RateLimitWindow]) -> None:
    if _update_existing(transition):
        return
    try:
        with transaction.atomic():
            RateBudget.objects.create(pk=1, **asdict(transition(None)))
    except IntegrityError:
        # Another process has created the row; any other conflict is a defect.
        if not _update_existing(transition):
            raise


def _update_existing(transition: Callable[[RateLimitWindow | None], RateLimitWindow]) -> bool:
    # The row stays locked from load to save: concurrent processes lose no request.
    with transaction.atomic():
        window = _load_window(RateBudget.objects.select_for_update().first())
        if window is None:
            return False
        RateBudget.objects.update(**asdict(transition(window)))
        return True
