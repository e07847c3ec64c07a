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
    ApiToken,
    BulkAbort,
    CatalogSync,
    ChangeCounter,
    RateBudget,
    Run,
    RunLookup,
    Stage,
    Upstream,
    WebhookStats,
    Worker,
)
from dashboard.models.runs import mark_changed
from dashboard.sync import leases
from dashboard.upstream.rate_budget import WINDOW

log = structlog.get_logger(__name__)

# Machines measure the database's clock every few seconds; by so much they may differ.
TOLERANCE = timedelta(seconds=5)

# Of runs in flight, what their pages tell.
_RUN_TIMESTAMPS = (
    "synced_at",
    "detail_synced_at",
    "status_since",
    "aborting_since",
    "first_synced_at",
)


def correct_timestamps(now: datetime) -> timedelta:
    """Move back what lies ahead by a clock that was set back; return by how much it was, or 0."""
    if _measure_setback(now) <= TOLERANCE:
        return timedelta()
    with transaction.atomic():
        ChangeCounter.reserve(0)  # first, as all writers: of several workers one does it
        setback = _measure_setback(now)
        if setback <= TOLERANCE:
            return timedelta()
        keys = Stage.objects.order_by("pk").select_for_update().values_list("pk", flat=True)
        list(keys)  # locked in their order, as everywhere
        _correct_runs(now, setback)
        for rows, fields, max_lead in _timestamp_fields():
            for field in fields:
                future_rows = rows.filter(**{f"{field}__gt": now + max_lead})
                future_rows.update(**{field: F(field) - setback})
    log.warning("clock.set_back", seconds=round(setback.total_seconds()))
    return setback


def _measure_setback(now: datetime) -> timedelta:
    """Return how far what was written last is ahead of the clock."""
    latest_writes = (
        Worker.objects.values_list("heartbeat_at")
        .union(Upstream.objects.exclude(last_success_at=None).values_list("last_success_at"))
        .union(RateBudget.objects.values_list("synced_at"))
    )
    return max((timestamp - now for (timestamp,) in latest_writes), default=timedelta())


def _timestamp_fields() -> list[tuple[QuerySet[Any], tuple[str, ...], timedelta]]:
    """Return what is booked, and the stamps beside it, with how far ahead they may lie anyway."""
    no_lead = timedelta()
    return [
        (
            Stage.objects.all(),
            (
                "next_sync_at",
                "fresh_until",
                "synced_at",
                "last_viewed_at",
                "last_run_change_at",
                "last_release_event_at",
                "flow_synced_at",
                "missing_since",
                "error_since",
            ),
            no_lead,
        ),
        # Those that hold one now go on, and the next answer tells of the window.
        (Stage.objects.all(), ("leased_until",), leases.LEASE),
        (RateBudget.objects.all(), ("resets_at",), WINDOW),
        (RateBudget.objects.all(), ("backoff_until", "probe_until", "synced_at"), no_lead),
        (Run.objects.all(), ("next_detail_sync_at", "last_viewed_at"), no_lead),
        (CatalogSync.objects.all(), ("next_sync_at", "synced_at", "error_since"), no_lead),
        (Abort.objects.open(), ("claimed_at",), leases.LEASE),
        (BulkAbort.objects.open(), ("claimed_at",), no_lead),
        (
            WebhookStats.objects.all(),
            ("reads_booked_until", "last_release_event_at", "last_event_at", "last_rejected_at"),
            no_lead,
        ),
        (ApiToken.objects.all(), ("window_started_at",), no_lead),
        # In this order, in which lookups lock them too.
        (Upstream.objects.all(), ("last_success_at", "error_since"), no_lead),
        (RunLookup.objects.all(), ("requested_at", "answered_at", "leased_until"), no_lead),
        (Worker.objects.all(), ("heartbeat_at", "started_at"), no_lead),
    ]


def _correct_runs(now: datetime, setback: timedelta) -> None:
    """Move back what is told of runs in flight, which their pages hear of."""
    in_flight = Run.objects.in_flight()
    mark_changed(in_flight.filter(status_since__gt=now).values_list("pk", flat=True))
    for field in _RUN_TIMESTAMPS:
        in_flight.filter(**{f"{field}__gt": now}).update(**{field: F(field) - setback})
