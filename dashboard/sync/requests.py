"""Ask the reading process for what a user wants to see sooner than planned.

A request is a row (`ReadRequest`) and a notification; the sync reads (`search.py`). So a page costs
nothing that the sync does not grant, and people who want the same share one request.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext as _

from dashboard.db import notify as db_notify
from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import ReadRequest, Run, Stage, Upstream
from dashboard.models.catalog import ID_LENGTH
from dashboard.models.sync.read_requests import LINK_WAIT, SEARCH_AHEAD
from dashboard.sync import search as search_rules
from dashboard.sync.reports import sync_state
from dashboard.sync.reports.sync_state import SyncHealth
from dashboard.sync.search import HOUR
from dashboard.upstream import budget_store

MAX_LINKS = 300  # an hour, for all people
ANSWER_LIFETIME = timedelta(minutes=5)  # how long “not found” counts for all who ask
KEPT_FOR = timedelta(hours=12)  # how long requests are kept; the longest that a search can take
FLOW_CHECK_AGE = timedelta(minutes=5)  # until when a stage found without a flow is not asked
POLL_INTERVAL = 0.1  # seconds between two looks for an answer


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """Progress of a search: `stages_asked` of `stages_total` stages have been read since."""

    stages_asked: int
    stages_total: int
    blocked_reason: str = ""  # why it does not go faster, or not at all
    resumes_at: datetime | None = None  # when reading can continue, if it is paused until then
    planned_at: datetime | None = None  # by when the other stages are read as planned
    is_found: bool = False

    @property
    def is_exhausted(self) -> bool:
        return self.stages_asked == self.stages_total


async def find_in_stage(
    stage: Stage, run_id: str, *, seconds: float = LINK_WAIT.total_seconds()
) -> str:
    """Have an unknown run read in one stage at Northflank; wait for up to `seconds`.

    Returns "" if the run is in the mirror now, else a sentence with the reason.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    answer = await run_in_db_thread(_ask_for_link, stage, run_id)
    while answer is None and loop.time() < deadline:
        await asyncio.sleep(POLL_INTERVAL)
        answer = await run_in_db_thread(_link_answer, stage, run_id)
    return _("The search for this run is under way. Reload the page.") if answer is None else answer


def has_no_runs(stage: Stage) -> bool:
    """Return whether a stage had no release flow a moment ago: reading a run is pointless."""
    checked_at = stage.flow_synced_at
    is_recent = checked_at is not None and db_threads.now() - checked_at < FLOW_CHECK_AGE
    return stage.has_flow is False and is_recent


def search(stages: Collection[int], run_id: str) -> SearchProgress:
    """Have the lists of `stages` (keys) read for a run, and return the progress.

    Each call returns the progress of the one search for this id, whoever began it.
    """
    if not _is_valid_id(run_id):
        return SearchProgress(len(stages), len(stages))
    request = _ask_for_search(set(stages), run_id)
    fields = ("synced_at", "next_sync_at", "failures")
    rows = search_rules.searchable(request.stages).order_by("next_sync_at").only(*fields)
    unread = [stage for stage in rows if not search_rules.is_searched(stage, request)]
    if not unread and request.answered_at is None:
        ReadRequest.objects.filter(pk=request.pk).update(answered_at=db_threads.now())
    unread = [stage for stage in unread if stage.pk in stages]
    is_found = Run.objects.filter(run_id=run_id, stage__in=stages).exists()
    progress = SearchProgress(len(stages) - len(unread), len(stages), is_found=is_found)
    return _with_outlook(progress, request, unread) if unread else progress


def _with_outlook(
    progress: SearchProgress, request: ReadRequest, unread: Sequence[Stage]
) -> SearchProgress:
    """Return the progress with by when the `unread` stages will be read, and what is in the way."""
    now = db_threads.now()
    obstacle = find_obstacle(now)
    if obstacle is not None:
        return replace(progress, blocked_reason=obstacle.reason, resumes_at=obstacle.until)
    is_ahead = request.requested_at > now - SEARCH_AHEAD and search_rules.remaining_reads(now)
    if is_ahead and not any(stage.failures for stage in unread):
        return progress
    return replace(progress, planned_at=max(unread[-1].next_sync_at, now))


def find_obstacle(now: datetime) -> SyncHealth | None:
    """Return why nothing is read from Northflank now, or None."""
    if outage := sync_state.load(now).outage:
        return outage
    budget = budget_store.load(now)
    if budget.requests > 0:
        return None
    text = _("Paused: this hour’s API requests are used up.")
    return SyncHealth("warning", text, until=now + timedelta(seconds=budget.seconds))


def _is_valid_id(run_id: str) -> bool:
    return "\x00" not in run_id and len(run_id) <= ID_LENGTH  # PostgreSQL rejects NUL


def _recent(run_id: str, stage: Stage | None) -> QuerySet[ReadRequest]:
    """Return the row of a link to a stage, or of a search, unless its answer is too old."""
    rows = ReadRequest.objects.links() if stage is not None else ReadRequest.objects.searches()
    now = db_threads.now()
    is_valid = Q(answered_at=None) | Q(answered_at__gt=now - ANSWER_LIFETIME)
    return rows.filter(is_valid, run_id=run_id, stage=stage, requested_at__gt=now - KEPT_FOR)


def lock_requests() -> datetime:
    """Lock out other requests in this transaction, delete old ones, and return the time."""
    Upstream.objects.select_for_update().first()
    now = db_threads.now()
    ReadRequest.objects.filter(requested_at__lte=now - KEPT_FOR).delete()
    return now


def _ask_for_link(stage: Stage, run_id: str) -> str | None:
    """Ask for a run, or return the result of `find_in_stage` if that needs, or gets, no answer."""
    if not _is_valid_id(run_id):
        return _not_found_message()
    if Run.objects.filter(stage=stage, run_id=run_id).exists():
        return ""
    with transaction.atomic():
        now = lock_requests()
        row = _recent(run_id, stage).first()
        if row is not None and row.answered_at is not None and not row.error:
            return _link_answer(stage, run_id)
        if obstacle := find_obstacle(now):
            return obstacle.reason
        if row is not None and not row.answered_at and row.requested_at > now - LINK_WAIT:
            return None  # somebody waits for it already
        links = ReadRequest.objects.links().filter(requested_at__gt=now - HOUR)
        if (links.aggregate(n=Sum("reads"))["n"] or 0) >= MAX_LINKS:
            return _("You have reached this hour’s limit for opening new runs. Try again later.")
        kind = ReadRequest.Kind.LINK
        row = row or ReadRequest(kind=kind, run_id=run_id, stage=stage, requested_at=now)
        _repeat(row, now, reads=1)
    return None


def _repeat(row: ReadRequest, now: datetime, *, reads: int = 0) -> None:
    """Store that a request is made now, for so many reads, and notify the sync."""
    row.reads = reads + (row.reads if row.requested_at > now - HOUR else 0)
    row.requested_at, row.answered_at, row.error = now, None, ""
    row.save()
    db_notify.send(db_notify.Topic.READS)


def _link_answer(stage: Stage, run_id: str) -> str | None:
    row = _recent(run_id, stage).first()
    if row is None or row.answered_at is None:
        return None
    if row.error:
        return _("The search on Northflank failed: %(error)s") % {"error": row.error}
    is_mirrored = Run.objects.filter(stage=stage, run_id=run_id).exists()
    return "" if is_mirrored else _not_found_message()


def _not_found_message() -> str:
    return _("Not found on Northflank either.")


def _ask_for_search(stages: set[int], run_id: str) -> ReadRequest:
    """Return the search for a run, which covers `stages` and may have begun earlier."""
    row = _recent(run_id, None).first()
    if row is not None and stages.issubset(row.stages):
        return row
    with transaction.atomic():
        now = lock_requests()
        row = _recent(run_id, None).first()
        kind = ReadRequest.Kind.SEARCH
        row = row or ReadRequest(kind=kind, run_id=run_id, requested_at=now)
        if not stages.issubset(row.stages):  # else somebody else has asked meanwhile
            row.stages = sorted(stages.union(row.stages))
            _repeat(row, now)
    return row
