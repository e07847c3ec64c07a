"""The hour's requests in the database: one row, what the headers last said, for all processes."""

from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Greatest

from dashboard.models import Budget
from dashboard.northflank import RateLimit
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.rate_budget import DEFAULT_LIMIT, Allowance, Window

_FIELDS = [field.name for field in fields(Window)]


def reserve_of(limit: int) -> int:
    """Return how many of `limit` requests are kept for aborts."""
    text: str = settings.NORTHFLANK_REQUEST_RESERVE
    share = float(text[:-1]) / 100 * limit if text.endswith("%") else float(text)
    return min(round(share), limit * 9 // 10)  # something has to be left for reading


def record(said: RateLimit | None, now: datetime, *, asked_at: datetime | None = None) -> None:
    """Keep what one answer to us, no 429, said of the rate; None: its headers told nothing."""
    if said is not None or Budget.objects.exists():  # without any header ever, nothing is made up
        _change(lambda known: rules.heard(known, said, _reserve(known), now, asked_at=asked_at))


def refuse(wait_seconds: float | None, now: datetime) -> None:
    """Note that Northflank refused a request for its rate, and how long it asks us to wait."""
    _change(lambda known: rules.refused(known, wait_seconds, now))


def take_probe(now: datetime) -> bool:
    """Take the one request that may try, after a pause, whether Northflank answers again."""
    with transaction.atomic():
        known = _window(Budget.objects.select_for_update().first())
        after = rules.probe(known, now) if known is not None else None
        if after is None:
            return False
        Budget.objects.update(**asdict(after))
        return True


def set_aside(requests: int) -> None:
    """Note that so many requests, recorded just now, were first reads or no reading.

    They are no part of the even rate, so that they hold up nothing that is read at it.
    """
    left = Greatest(F("ahead") - float(requests), 0.0)
    Budget.objects.filter(ahead__gt=0).update(ahead=left)


def limit() -> int:
    """Return how many requests an hour Northflank allows, as last heard."""
    known = Budget.objects.values_list("limit", flat=True).first()
    return DEFAULT_LIMIT if known is None else known


def allowance(now: datetime) -> Allowance:
    """Return what reading may spend from `now` until the window ends, aborts' reserve left out."""
    known = _window(Budget.objects.first())
    return rules.allowance(known, _reserve(known), now)


def _reserve(known: Window | None) -> int:
    return reserve_of(known.limit if known else DEFAULT_LIMIT)


def _window(row: Budget | None) -> Window | None:
    return Window(*(getattr(row, name) for name in _FIELDS)) if row is not None else None


def _change(rule: Callable[[Window | None], Window]) -> None:
    if _changed(rule):
        return
    try:
        with transaction.atomic():
            Budget.objects.create(pk=1, **asdict(rule(None)))
    except IntegrityError:
        # Another process was first, whose row is there now; anything else is a defect.
        if not _changed(rule):
            raise


def _changed(rule: Callable[[Window | None], Window]) -> bool:
    # The row is locked while the rule looks at it: no request of any process is lost or counted
    # twice.
    with transaction.atomic():
        known = _window(Budget.objects.select_for_update().first())
        if known is None:
            return False
        Budget.objects.update(**asdict(rule(known)))
        return True
