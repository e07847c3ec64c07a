"""*Refresh now*: have a stage or a run read at once, for everybody who may view it.

At most one request in `MIN_INTERVAL` for a page, whoever presses, and a tenth of the hour's for all
pages together.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy

from dashboard.db import notify as db_notify
from dashboard.models import ReadRequest, Run, Stage
from dashboard.sync.requests import find_obstacle, lock_requests
from dashboard.sync.search import HOUR
from dashboard.texts.rich_text import ClockTime, MessageTable, RichText
from dashboard.upstream import budget_store

MIN_INTERVAL = timedelta(seconds=15)
SHARE = 0.1  # of the rate limit, for all pages in an hour
_text = MessageTable(
    {
        "too_soon": gettext_lazy("Just requested. Again in %(seconds)s s."),
        "used_up": gettext_lazy(
            "“Refresh now” was used %(n)s times this hour. Try again at %(time)s."
        ),
    }
)


def refresh_stage(stage: Stage) -> RichText:
    """Have a stage read at once; return "", or why not."""
    with transaction.atomic():
        now = lock_requests()
        if reason := _refuse(ReadRequest(stage=stage), now):
            return reason
        row = Stage.objects.filter(pk=stage.pk)
        if stage.has_flow is False:
            row.update(flow_synced_at=None)  # it may have a release flow by now
        row.filter(next_sync_at__gt=now).update(next_sync_at=now)
    return ""


def refresh_run(run: Run) -> RichText:
    """Have a run read at once; return "", or why not."""
    with transaction.atomic():
        now = lock_requests()
        request = ReadRequest(stage_id=run.stage_id, run_id=run.run_id)
        if reason := _refuse(request, now):
            return reason
        is_later = Q(next_detail_sync_at=None) | Q(next_detail_sync_at__gt=now)
        Run.objects.filter(is_later, pk=run.pk).update(next_detail_sync_at=now)
    return ""


def _refuse(request: ReadRequest, now: datetime) -> RichText:
    """Return why a page can't be read now; else record that it is, and return ""."""
    if obstacle := find_obstacle(now):
        return obstacle.reason
    presses = ReadRequest.objects.filter(kind=ReadRequest.Kind.REFRESH, requested_at__gt=now - HOUR)
    page = presses.filter(stage=request.stage_id, run_id=request.run_id)
    last = page.filter(requested_at__gt=now - MIN_INTERVAL).order_by("requested_at").last()
    if last is not None:
        seconds_left = (last.requested_at + MIN_INTERVAL - now).total_seconds()
        return _text("too_soon", seconds=max(round(seconds_left), 1))
    limit = round(SHARE * budget_store.load_limit())
    times = list(presses.order_by("-requested_at").values_list("requested_at", flat=True)[:limit])
    if len(times) >= limit:
        return _text("used_up", n=limit, time=ClockTime(times[-1] + HOUR, None))
    request.kind, request.reads = ReadRequest.Kind.REFRESH, 1
    request.requested_at = request.answered_at = now
    request.save()
    db_notify.send(db_notify.Topic.READS)
    return ""
