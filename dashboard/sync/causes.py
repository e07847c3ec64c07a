"""Schedule the details of failed runs, which say at which step each failed.

One at a time, each with the plan (`reads.py`): so that they are read within its budget and delay
nothing else, and a wave of failures does not take the requests of the hour.
"""

from datetime import datetime, timedelta
from functools import cache

from django.db.models import Case, Q, When

from dashboard.db.prepared import NOW, PreparedQuery
from dashboard.models import Run
from dashboard.models.catalog import StageName
from dashboard.models.runs import RunQuerySet
from dashboard.runs import acknowledgements

MAX_READS_PER_HOUR = 60
MAX_SHOWN = 10  # failures that *Now* shows without a click


def schedule_next_detail(now: datetime) -> None:
    """Make the detail of a failed run due that *Now* lists and whose cause is not known.

    Those that *Now* shows without a click come first, then Production, then the latest. None while
    another is due, or after MAX_READS_PER_HOUR.
    """
    reads = 0
    for failures, planned_at in _reads_query().fetch(now=now):
        if planned_at is not None and not failures:
            return
        reads += max(failures, 1)  # those of a detail that cannot be read, too
    if reads >= MAX_READS_PER_HOUR:
        return
    keys = [key for (key,) in _next_query().fetch(now=now)]
    if keys:
        unplanned = Run.objects.filter(pk__in=keys, next_detail_sync_at=None)
        unplanned.update(next_detail_sync_at=now)


@cache
def _reads_query() -> PreparedQuery:
    was_read = Q(failed_step__isnull=False, detail_synced_at__gt=NOW - timedelta(hours=1))
    read = _recent_failures().filter(was_read | Q(next_detail_sync_at__isnull=False))
    return PreparedQuery(read.values_list("failures", "next_detail_sync_at"))


@cache
def _next_query() -> PreparedQuery:
    unread = _recent_failures().filter(
        failed_step=None, next_detail_sync_at=None, removed_at=None, failures=0
    )
    shown = _recent_failures().order_by("-ended_at", "-pk").values("pk")[:MAX_SHOWN]
    is_shown, is_production = Q(pk__in=shown), Q(stage__name=StageName.PRODUCTION)
    rank = Case(When(is_shown, then=0), When(is_production, then=1), default=2)
    return PreparedQuery(unread.order_by(rank, "-ended_at", "-pk").values_list("pk")[:1])


def _recent_failures() -> RunQuerySet:
    since = NOW - acknowledgements.MAX_FAILURE_AGE
    return Run.objects.filter(status="failure", concluded=True, ended_at__gt=since)
