"""Is Northflank's webhook alive? For the planner and for pages; sync/doorbell heeds its events.

No events come while nothing runs, so silence alone says nothing. Push is taken to be silent when
a run has begun or concluded, as reading has shown, and no event has come since.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Max
from django.utils.translation import gettext as _

from dashboard.models import Push, Run

# An event may take this long to arrive, and Northflank's clock may differ from ours by as much.
GRACE = timedelta(seconds=60)
ANNOUNCED = ("success", "failure", "aborted")  # other ends have no event of their own


@dataclass(frozen=True, slots=True)
class PushState:
    """What is known of the webhook."""

    set_up: bool
    heard_at: datetime | None = None
    """When any authentic event last came."""
    rung_at: datetime | None = None
    """When one about a release flow last came."""
    missed_at: datetime | None = None
    """When a run changed that no event has announced; None while push is not silent."""
    events: int = 0
    duplicates: int = 0
    others: int = 0
    refused_at: datetime | None = None

    @property
    def alive(self) -> bool:
        """Say whether changes may be expected to announce themselves."""
        return self.set_up and self.rung_at is not None and self.missed_at is None

    @property
    def sentence(self) -> str:
        """Say how it stands, without times: pages write those their own way."""
        if not self.set_up:
            return _("Northflank's webhook is not set up: runs are found by reading alone.")
        if self.rung_at is None and self.heard_at is not None:
            return _("Northflank's webhook sends events, but none about release flows so far.")
        if self.rung_at is None:
            return _("Northflank's webhook is set up here, but nothing has come from it yet.")
        if self.missed_at is not None:
            return _("Northflank's webhook is silent: a run has changed and no event has come.")
        return _("Northflank's webhook announces changes.")


def state(now: datetime) -> PushState:
    """Return how the webhook stands; three indexed queries, for pages."""
    if not settings.NORTHFLANK_WEBHOOK_SECRET:
        return PushState(set_up=False)
    row = Push.objects.first() or Push()
    changed_at = _last_change(now)
    heeded = changed_at is None or (row.rung_at is not None and row.rung_at >= changed_at - GRACE)
    return PushState(
        set_up=True,
        heard_at=row.heard_at,
        rung_at=row.rung_at,
        missed_at=None if heeded else changed_at,
        events=row.events,
        duplicates=row.duplicates,
        others=row.others,
        refused_at=row.refused_at,
    )


def alive(now: datetime) -> bool:
    """Say whether changes may be expected to announce themselves."""
    return state(now).alive


def _last_change(now: datetime) -> datetime | None:
    """Return when a run last began or concluded, by Northflank's clock, long enough ago."""
    before = now - GRACE
    began = Run.objects.followed().filter(created_at__lte=before)
    ended = Run.objects.filter(concluded_at__lte=before, status__in=ANNOUNCED)
    times = [
        began.aggregate(at=Max("created_at"))["at"],
        ended.aggregate(at=Max("concluded_at"))["at"],
    ]
    return max((at for at in times if at is not None), default=None)
