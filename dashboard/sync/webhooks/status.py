"""Determine whether Northflank's webhook works, for the sync and for pages.

No events come while nothing runs, so their absence alone proves nothing. The webhook counts as
broken when a run in flight has started and no event has arrived for it. Events
are handled in events.py.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache

from django.conf import settings
from django.utils.translation import gettext as _

from dashboard.db.expressions import Max
from dashboard.db.prepared import NOW, PreparedModels, PreparedQuery
from dashboard.models import Run, WebhookStats

# Allowed delay of an event, and allowed difference between Northflank's clock and ours.
DELIVERY_GRACE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """The state of the webhook: its events, and the last change without one."""

    is_configured: bool
    stats: WebhookStats = field(default_factory=WebhookStats)
    missed_event_at: datetime | None = None
    """When a run started without an event; None while the webhook works."""

    @property
    def is_alive(self) -> bool:
        """Whether webhook events can be expected to announce changes."""
        return (
            self.is_configured
            and self.stats.last_release_event_at is not None
            and self.missed_event_at is None
        )

    @property
    def message(self) -> str:
        """One sentence on the state, without times: pages format those themselves."""
        if not self.is_configured:
            return _("Webhook not configured; runs are found by polling.")
        if self.stats.last_release_event_at is None and self.stats.last_event_at is not None:
            return _("Webhook delivers events, but none about release flows yet.")
        if self.stats.last_release_event_at is None:
            return _("Webhook configured, but no event has arrived yet.")
        if self.missed_event_at is not None:
            return _("Webhook may be broken: a run started but no event arrived.")
        return _("Webhook is working.")


def load(now: datetime) -> WebhookStatus:
    """Return the state of the webhook; takes two indexed queries."""
    if not settings.NORTHFLANK_WEBHOOK_SECRET:
        return WebhookStatus(is_configured=False)
    stats = next(iter(_stats_query().fetch()), WebhookStats())
    ((started_at,),) = _latest_start_query().fetch(now=now)
    event_at = stats.last_release_event_at
    has_event = started_at is None or (event_at and event_at >= started_at - DELIVERY_GRACE)
    return WebhookStatus(True, stats, None if has_event else started_at)


@cache
def _stats_query() -> PreparedModels[WebhookStats]:
    return PreparedModels(WebhookStats.objects.order_by("pk")[:1])


@cache
def _latest_start_query() -> PreparedQuery:
    # Not by `created_at`: a run may be queued for long, and no event says so.
    latest = NOW - DELIVERY_GRACE
    started_runs = Run.objects.tracked().filter(started_at__lte=latest)
    # Implied by the start, but there is an index for it, of the runs in flight alone.
    started_runs = started_runs.filter(created_at__lte=latest)
    return PreparedQuery(started_runs.order_by().values_list(Max("started_at")))
