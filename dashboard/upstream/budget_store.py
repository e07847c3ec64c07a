"""The hour's requests in the database: one row, what the headers last said, for all processes."""

from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Greatest

from dashboard.models import RateBudget
from dashboard.northflank import RateLimit
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.rate_budget import DEFAULT_LIMIT, RateLimitWindow, ReadBudget

_WINDOW_FIELDS = [field.name for field in fields(RateLimitWindow)]


def abort_reserve(limit: int) -> int:
    """Return how many of `limit` requests are kept for aborts."""
    text: str = settings.NORTHFLANK_REQUEST_RESERVE
    share = float(text[:-1]) / 100 * limit if text.endswith("%") else float(text)
    return min(round(share), limit * 9 // 10)  # something has to be left for reading


def record_response(
    rate_limit: RateLimit | None, now: datetime, *, requested_at: datetime | None = None
) -> None:
    """Keep what one answer to us, no 429, said of the rate; None: its headers told nothing."""
    if (
        rate_limit is not None or RateBudget.objects.exists()
    ):  # without any header ever, nothing is made up
        _update(
            lambda window: rules.after_response(
                window, rate_limit, _abort_reserve(window), now, requested_at=requested_at
            )
        )


def record_rate_limited(retry_after_seconds: float | None, now: datetime) -> None:
    """Note that Northflank refused a request for its rate, and how long it asks us to wait."""
    _update(lambda window: rules.after_rate_limited(window, retry_after_seconds, now))


def claim_probe(now: datetime) -> bool:
    """Take the one request that may try, after a pause, whether Northflank answers again."""
    with transaction.atomic():
        window = _load_window(RateBudget.objects.select_for_update().first())
        updated = rules.start_probe(window, now) if window is not None else None
        if updated is None:
            return False
        RateBudget.objects.update(**asdict(updated))
        return True


def exclude_from_burst(requests: int) -> None:
    """Note that so many requests, recorded just now, were first reads or no reading.

    They are no part of the even rate, so that they hold up nothing that is read at it.
    """
    burst = Greatest(F("burst") - float(requests), 0.0)
    RateBudget.objects.filter(burst__gt=0).update(burst=burst)


def load_limit() -> int:
    """Return how many requests an hour Northflank allows, as last heard."""
    stored_limit = RateBudget.objects.values_list("limit", flat=True).first()
    return DEFAULT_LIMIT if stored_limit is None else stored_limit


def load(now: datetime) -> ReadBudget:
    """Return what reading may spend from `now` until the window ends, aborts' reserve left out."""
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
        # Another process was first, whose row is there now; anything else is a defect.
        if not _update_existing(transition):
            raise


def _update_existing(transition: Callable[[RateLimitWindow | None], RateLimitWindow]) -> bool:
    # The row is locked while the rule looks at it: no request of any process is lost or counted
    # twice.
    with transaction.atomic():
        window = _load_window(RateBudget.objects.select_for_update().first())
        if window is None:
            return False
        RateBudget.objects.update(**asdict(transition(window)))
        return True
