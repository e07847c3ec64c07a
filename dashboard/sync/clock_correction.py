"""Correct timestamps in the database after its clock was set back.

Answers are ordered by RequestCounter, not by time, but schedules, leases and rate limit windows are
times: written by a clock that was an hour ahead, they would stop reading for an hour. The clock was
set back if the latest write lies in the future; all future timestamps are then moved back by the
same amount. The check needs the database only, so it works after a restart, and one of several
workers does the correction.

A clock set forward needs no correction: everything is due at once, within the rate budget.
"""

from datetime import datetime, timedelta
from functools import cache
from typing import Any

import structlog
from django.db import transaction
from django.db.models import F, QuerySet

from dashboard.db.prepared import PreparedQuery
from dashboard.models import (
    Abort,
    ApiToken,
    BulkAbort,
    CatalogSync,
    ChangeCounter,
    FailureCounter,
    Pipeline,
    Project,
    Pruning,
    RateBudget,
    Run,
    RunLookup,
    Stage,
    Upstream,
    WebhookStats,
    Worker,
)
from dashboard.models.runs import mark_changed
from dashboard.sync import leases, pruning
from dashboard.upstream.rate_budget import WINDOW

log = structlog.get_logger(__name__)

# Workers measure the database's clock every few seconds; they may differ by this.
TOLERANCE = timedelta(seconds=5)

# Timestamps of runs in flight that pages show.
_RUN_TIMESTAMPS = (
    "synced_at",
    "detail_synced_at",
    "status_since",
    "aborting_since",
    "first_synced_at",
)


def correct_timestamps(now: datetime) -> timedelta:
    """Move future timestamps back if the clock was set back; return by how much, or zero."""
    if _measure_setback(now) <= TOLERANCE:
        return timedelta()
    with transaction.atomic():
        ChangeCounter.lock()  # so that one worker corrects
        setback = _measure_setback(now)
        if setback <= TOLERANCE:
            return timedelta()
        keys = Stage.objects.order_by("pk").select_for_update().values_list("pk", flat=True)
        list(keys)  # locks them in order of key, as everywhere
        counters = FailureCounter.objects.order_by("key").select_for_update()
        list(counters.filter(drained_at__gt=now).values_list("pk", flat=True))  # as throttle.count
        _correct_runs(now, setback)
        for rows, fields, max_lead in _timestamp_fields():
            for field in fields:
                future_rows = rows.filter(**{f"{field}__gt": now + max_lead})
                future_rows.update(**{field: F(field) - setback})
    log.warning("clock.set_back", seconds=round(setback.total_seconds()))
    return setback


def _measure_setback(now: datetime) -> timedelta:
    """Return how far the latest write lies in the future; negative if it lies in the past."""
    latest_writes = _latest_writes_query().fetch()
    return max((timestamp - now for (timestamp,) in latest_writes), default=timedelta())


@cache
def _latest_writes_query() -> PreparedQuery:
    return PreparedQuery(
        Worker.objects.values_list("heartbeat_at")
        .union(Upstream.objects.exclude(last_success_at=None).values_list("last_success_at"))
        .union(RateBudget.objects.values_list("synced_at"))
    )


def _timestamp_fields() -> list[tuple[QuerySet[Any], tuple[str, ...], timedelta]]:
    """Return querysets, their time fields, and how far ahead these may regularly lie."""
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
        (Project.objects.all(), ("missing_since",), no_lead),
        (Pipeline.objects.all(), ("missing_since",), no_lead),
        # Current leases stay valid, and the next response corrects the rate limit window.
        (Stage.objects.all(), ("leased_until",), leases.LEASE),
        (RateBudget.objects.all(), ("resets_at",), WINDOW),
        (RateBudget.objects.all(), ("backoff_until", "probe_until", "synced_at"), no_lead),
        (Run.objects.all(), ("next_detail_sync_at", "last_viewed_at"), no_lead),
        (CatalogSync.objects.all(), ("next_sync_at", "synced_at", "error_since"), no_lead),
        (Abort.objects.open(), ("claimed_at",), leases.LEASE),
        (Abort.objects.open(), ("sent_at",), no_lead),  # its request cannot be changed
        (BulkAbort.objects.open(), ("claimed_at",), no_lead),
        (Pruning.objects.all(), ("leased_until",), pruning.LEASE),
        (Pruning.objects.all(), ("finished_at",), no_lead),
        (
            WebhookStats.objects.all(),
            ("reads_booked_until", "last_release_event_at", "last_event_at", "last_rejected_at"),
            no_lead,
        ),
        (ApiToken.objects.all(), ("window_started_at",), no_lead),
        (FailureCounter.objects.all(), ("drained_at",), no_lead),
        # In this order: run lookups lock these rows in the same one.
        (Upstream.objects.all(), ("last_success_at", "error_since"), no_lead),
        (RunLookup.objects.all(), ("requested_at", "answered_at", "leased_until"), no_lead),
        (Worker.objects.all(), ("heartbeat_at", "started_at"), no_lead),
    ]


def _correct_runs(now: datetime, setback: timedelta) -> None:
    """Move back future timestamps of runs in flight, with a new version for their pages."""
    in_flight = Run.objects.in_flight()
    mark_changed(in_flight.filter(status_since__gt=now).values_list("pk", flat=True))
    for field in _RUN_TIMESTAMPS:
        in_flight.filter(**{f"{field}__gt": now}).update(**{field: F(field) - setback})
