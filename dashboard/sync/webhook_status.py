"""Is Northflank's webhook alive? For the planner and for pages; sync/doorbell heeds its events.

No events come while nothing runs, so silence alone says nothing. Push is taken to be silent when
a run has begun or concluded, as reading has shown, and no event has come since.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Max
from django.utils.translation import gettext as _

from dashboard.models import Run, WebhookStats

# An event may take this long to arrive, and Northflank's clock may differ from ours by as much.
DELIVERY_GRACE = timedelta(seconds=60)
EVENT_STATUSES = ("success", "failure", "aborted")  # other ends have no event of their own


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """What is known of the webhook."""

    is_configured: bool
    last_event_at: datetime | None = None
    """When any authentic event last came."""
    last_release_event_at: datetime | None = None
    """When one about a release flow last came."""
    missed_event_at: datetime | None = None
    """When a run changed that no event has announced; None while push is not silent."""
    event_count: int = 0
    duplicate_count: int = 0
    unrelated_count: int = 0
    last_rejected_at: datetime | None = None

    @property
    def is_alive(self) -> bool:
        """Say whether changes may be expected to announce themselves."""
        return (
            self.is_configured
            and self.last_release_event_at is not None
            and self.missed_event_at is None
        )

    @property
    def message(self) -> str:
        """Say how it stands, without times: pages write those their own way."""
        if not self.is_configured:
            return _("Northflank's webhook is not set up: runs are found by reading alone.")
        if self.last_release_event_at is None and self.last_event_at is not None:
            return _("Northflank's webhook sends events, but none about release flows so far.")
        if self.last_release_event_at is None:
            return _("Northflank's webhook is set up here, but nothing has come from it yet.")
        if self.missed_event_at is not None:
            return _("Northflank's webhook is silent: a run has changed and no event has come.")
        return _("Northflank's webhook announces changes.")


def load(now: datetime) -> WebhookStatus:
    """Return how the webhook stands; three indexed queries, for pages."""
    if not settings.NORTHFLANK_WEBHOOK_SECRET:
        return WebhookStatus(is_configured=False)
    row = WebhookStats.objects.first() or WebhookStats()
    changed_at = _last_run_change(now)
    has_event = changed_at is None or (
        row.last_release_event_at is not None
        and row.last_release_event_at >= changed_at - DELIVERY_GRACE
    )
    return WebhookStatus(
        is_configured=True,
        last_event_at=row.last_event_at,
        last_release_event_at=row.last_release_event_at,
        missed_event_at=None if has_event else changed_at,
        event_count=row.event_count,
        duplicate_count=row.duplicate_count,
        unrelated_count=row.unrelated_count,
        last_rejected_at=row.last_rejected_at,
    )


def is_alive(now: datetime) -> bool:
    """Say whether changes may be expected to announce themselves."""
    return load(now).is_alive


def _last_run_change(now: datetime) -> datetime | None:
    """Return when a run last began or concluded, by Northflank's clock, long enough ago."""
    cutoff = now - DELIVERY_GRACE
    started_runs = Run.objects.tracked().filter(created_at__lte=cutoff)
    ended_runs = Run.objects.filter(concluded_at__lte=cutoff, status__in=EVENT_STATUSES)
    times = [
        started_runs.aggregate(at=Max("created_at"))["at"],
        ended_runs.aggregate(at=Max("concluded_at"))["at"],
    ]
    return max((timestamp for timestamp in times if timestamp is not None), default=None)
