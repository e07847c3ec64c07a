"""After a clock was set back: what was booked by the old one is booked anew.

Which answer is newer no clock decides (QuestionCounter), but when something is read next, how long
a lease holds and when a window ends are times. Booked by a clock that was an hour ahead, they would
stop reading for an hour. What was written last tells: where it is ahead of the clock, the clock was
set back, by that much, and all that lies ahead is moved back by as much. It is told from the
database, so it is noticed after a restart too, and by one of several workers.

A clock that is set forward needs none of it: all is due at once, as far as the budget goes.
"""

from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import F, QuerySet

from dashboard.models import (
    Abort,
    AbortBatch,
    ApiToken,
    Budget,
    CatalogueSweep,
    ChangeCounter,
    Push,
    Run,
    RunLookup,
    Stage,
    Upstream,
    Worker,
)
from dashboard.models.runs import touch
from dashboard.sync import leases
from dashboard.upstream.rate_budget import WINDOW

log = structlog.get_logger(__name__)

# Machines measure the database's clock every few seconds; by so much they may differ.
SLACK = timedelta(seconds=5)

# Of runs in flight, what their pages tell.
_STAMPS = ("seen_at", "detail_seen_at", "status_since", "aborting_since", "first_seen_at")


def rebook(now: datetime) -> timedelta:
    """Move back what lies ahead by a clock that was set back; return by how much it was, or 0."""
    if _set_back(now) <= SLACK:
        return timedelta()
    with transaction.atomic():
        ChangeCounter.reserve(0)  # first, as all writers: of several workers one does it
        by = _set_back(now)
        if by <= SLACK:
            return timedelta()
        keys = Stage.objects.order_by("pk").select_for_update().values_list("pk", flat=True)
        list(keys)  # locked in their order, as everywhere
        _move_back_runs(now, by)
        for rows, fields, legal in _booked():
            for field in fields:
                ahead = rows.filter(**{f"{field}__gt": now + legal})
                ahead.update(**{field: F(field) - by})
    log.warning("clock.set_back", seconds=round(by.total_seconds()))
    return by


def _set_back(now: datetime) -> timedelta:
    """Return how far what was written last is ahead of the clock."""
    written = (
        Worker.objects.values_list("beat_at")
        .union(Upstream.objects.exclude(answered_at=None).values_list("answered_at"))
        .union(Budget.objects.values_list("seen_at"))
    )
    return max((at - now for (at,) in written), default=timedelta())


def _booked() -> list[tuple[QuerySet[Any], tuple[str, ...], timedelta]]:
    """Return what is booked, and the stamps beside it, with how far ahead they may lie anyway."""
    any_time = timedelta()
    return [
        (
            Stage.objects.all(),
            (
                "next_sync_at", "promised_at", "synced_at", "watched_at", "active_at", "rung_at",
                "flow_seen_at", "missing_at", "error_since",
            ),
            any_time,
        ),
        # Those that hold one now go on, and the next answer tells of the window.
        (Stage.objects.all(), ("claimed_until",), leases.LEASE),
        (Budget.objects.all(), ("resets_at",), WINDOW),
        (Budget.objects.all(), ("refused_until", "probe_until", "seen_at"), any_time),
        (Run.objects.all(), ("next_read_at", "watched_at"), any_time),
        (CatalogueSweep.objects.all(), ("next_at", "swept_at", "error_since"), any_time),
        (Abort.objects.open(), ("claimed_at",), leases.LEASE),
        (AbortBatch.objects.open(), ("claimed_at",), any_time),
        (Push.objects.all(), ("paced_until", "rung_at", "heard_at", "refused_at"), any_time),
        (ApiToken.objects.all(), ("window_at",), any_time),
        # In this order, in which lookups lock them too.
        (Upstream.objects.all(), ("answered_at", "error_since"), any_time),
        (RunLookup.objects.all(), ("asked_at", "answered_at", "lease_until"), any_time),
        (Worker.objects.all(), ("beat_at", "started_at"), any_time),
    ]  # fmt: skip


def _move_back_runs(now: datetime, by: timedelta) -> None:
    """Move back what is told of runs in flight, which their pages hear of."""
    flying = Run.objects.in_flight()
    touch(flying.filter(status_since__gt=now).values_list("pk", flat=True))
    for field in _STAMPS:
        flying.filter(**{f"{field}__gt": now}).update(**{field: F(field) - by})
