"""Send the aborts of a bulk abort, one after another.

The process that recorded the request (bulk_request.py) processes its list of runs. For each item
the bulk abort's row is locked, the run and the permissions are checked again, and the abort is
recorded in one transaction with the item's result. No item is processed while an abort of the bulk
abort is unanswered, so several processes may work on the same bulk abort.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Case, When
from django.utils.translation import gettext as _

from dashboard.aborts.request import (
    AbortRequest,
    NotAllowed,
    NotInFlight,
    ReasonMissing,
    request_abort,
)
from dashboard.aborts.send import send_abort
from dashboard.aborts.settle import SEND_DEADLINE, is_past_deadline
from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.db.threads import retry_during_outage, run_in_db_thread
from dashboard.models import Abort, BulkAbort, BulkAbortItem, ChangeCounter, Run
from dashboard.models.abort_lifecycle import AbortState, EventType
from dashboard.models.bulk_aborts import BulkAbortItemResult, Via
from dashboard.models.runs import mark_changed
from dashboard.runs import removals
from dashboard.runs.overdue import NOT_STARTED_STATUSES
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection, get_connection

log = structlog.get_logger(__name__)

# After a 429, one request at a time is tried; longer than a request's timeout.
PROBE_TIMEOUT = timedelta(seconds=20)

# Renewed for each item. Longer than one abort takes: Northflank's response and reads of the run.
BULK_LEASE = timedelta(seconds=45)
# Queued runs are aborted before those ahead of them, which would let them start. It must not keep
# the runs that do harm waiting for longer.
MAX_QUEUE_TIME = timedelta(seconds=20)
POLL_INTERVAL = 0.5  # seconds between checks while a bulk abort has to wait

running_tasks: dict[int, asyncio.Task[None]] = {}


@dataclass(frozen=True, slots=True)
class TurnResult:
    """Result of processing the next item of a bulk abort."""

    abort_pk: int | None = None  # the recorded abort to be sent now
    is_waiting: bool = False
    is_finished: bool = False


async def start_bulk_abort(bulk_abort_pk: int) -> int:
    """Start processing a bulk abort in this process, and return its key at once."""
    start_task(get_connection(), bulk_abort_pk)
    return bulk_abort_pk


async def adopt_bulk_aborts(upstream: Connection) -> None:
    """Continue the bulk aborts of processes that died."""
    for bulk_abort_pk in await run_in_db_thread(claim_expired, db_threads.now()):
        if bulk_abort_pk not in running_tasks:
            log.warning("abort.bulk_adopted", bulk_abort=bulk_abort_pk)
            start_task(upstream, bulk_abort_pk, is_delayed=True)


async def process_bulk_abort(
    upstream: Connection, bulk_abort_pk: int, *, is_delayed: bool = False
) -> None:
    """Abort the runs of a bulk abort one after another, until it is settled.

    `is_delayed`: processing was interrupted, so past SEND_DEADLINE the remaining runs are not sent:
    an abort long after its request would come as a surprise.
    """
    while not (
        turn := await retry_during_outage(process_next, bulk_abort_pk, is_delayed=is_delayed)
    ).is_finished:
        # After a wait the deadline is checked until the next abort is sent in time.
        is_delayed = turn.is_waiting or (is_delayed and turn.abort_pk is None)
        if turn.abort_pk is not None:
            await send_abort(upstream, turn.abort_pk, interactive=False)
        elif turn.is_waiting:
            await asyncio.sleep(POLL_INTERVAL)


def process_next(bulk_abort_pk: int, *, is_delayed: bool = False) -> TurnResult:
    """Process the next item of a bulk abort, unless it has to wait or is finished.

    `is_delayed` as in `process_bulk_abort`.
    """
    now = db_threads.now()
    with transaction.atomic():
        ChangeCounter.lock()
        open_bulk_aborts = BulkAbort.objects.open().filter(pk=bulk_abort_pk)
        bulk_abort = open_bulk_aborts.select_for_update().first()
        if bulk_abort is None:
            return TurnResult(is_finished=True)
        item = _next_item(bulk_abort, now)
        if item is None:
            open_bulk_aborts.update(settled_at=now)
            return TurnResult(is_finished=True)
        stop_reason = _stop_reason(bulk_abort, now, is_delayed=is_delayed)
        if not stop_reason:
            open_bulk_aborts.update(claimed_at=now)
            unanswered_aborts = Abort.objects.filter(
                bulk_abort=bulk_abort, state=AbortState.REQUESTED
            )
            if unanswered_aborts.exists() or _pause_end(now):
                return TurnResult(is_waiting=True)
        return TurnResult(abort_pk=_create_abort(bulk_abort, item, stop_reason))


def _next_item(bulk_abort: BulkAbort, now: datetime) -> BulkAbortItem | None:
    """Return the next run: in order, but after MAX_QUEUE_TIME those that have started first."""
    waiting = bulk_abort.items.filter(result=BulkAbortItemResult.WAITING)
    if now - bulk_abort.requested_at > MAX_QUEUE_TIME:
        is_queued = When(run__status__in=NOT_STARTED_STATUSES, then=1)
        waiting = waiting.order_by(Case(is_queued, default=0), "position")
    return waiting.first()


def pause_end(bulk_abort: BulkAbort, now: datetime) -> datetime | None:
    """Return when the rate limit's pause ends, after which the remaining runs are sent.

    None if there is no pause, or if they are not sent after it: it ends too late.
    """
    ends_at = _pause_end(now) if bulk_abort.settled_at is None else None
    return ends_at if ends_at is not None and ends_at <= _deadline(bulk_abort) else None


def start_task(upstream: Connection, bulk_abort_pk: int, *, is_delayed: bool = False) -> None:
    """Process a bulk abort in the background, unless this process does so already."""
    if bulk_abort_pk in running_tasks:
        return
    task = running_tasks[bulk_abort_pk] = asyncio.create_task(
        process_bulk_abort(upstream, bulk_abort_pk, is_delayed=is_delayed)
    )
    task.add_done_callback(lambda done_task: _on_task_done(bulk_abort_pk, done_task))


def _on_task_done(bulk_abort_pk: int, task: asyncio.Task[None]) -> None:
    running_tasks.pop(bulk_abort_pk, None)
    error = None if task.cancelled() else task.exception()
    if error is not None and not db_health.is_outage(error):
        # A worker continues it once its lease has expired.
        log.error("abort.bulk_failed", bulk_abort=bulk_abort_pk, exc_info=error)


def claim_expired(now: datetime) -> list[int]:
    """Claim the unfinished bulk aborts whose lease has expired, and return their keys."""
    return [
        bulk_abort.pk
        for bulk_abort in BulkAbort.objects.lease_expired(now - BULK_LEASE)
        if BulkAbort.objects.filter(pk=bulk_abort.pk, claimed_at=bulk_abort.claimed_at).update(
            claimed_at=now
        )
    ]


def _stop_reason(bulk_abort: BulkAbort, now: datetime, *, is_delayed: bool) -> str:
    """Return why the remaining runs must not be sent; empty if they may be, now or later."""
    if is_delayed and is_past_deadline(bulk_abort.requested_at, now):
        return _("Sending timed out.")
    ends_at = _pause_end(now)
    if ends_at is None or ends_at <= _deadline(bulk_abort):
        return ""
    return _(
        "Northflank’s rate limit is used up, or reserved for single aborts. "
        "Abort this run by itself."
    )


def _deadline(bulk_abort: BulkAbort) -> datetime:
    return bulk_abort.requested_at + SEND_DEADLINE


def _pause_end(now: datetime) -> datetime | None:
    """Return until when the rate limit pauses all bulk aborts; None if it does not.

    The rest of the limit is reserved for single aborts.
    """
    request_budget = budget_store.load(now)
    if request_budget.may_bulk_abort:
        return None
    if request_budget.is_probing:
        return now + PROBE_TIMEOUT
    return request_budget.backoff_until or now + timedelta(seconds=request_budget.seconds)


def _create_abort(bulk_abort: BulkAbort, item: BulkAbortItem, stop_reason: str) -> int | None:
    """Record the item's abort or other result; return the abort's key if it has to be sent."""
    run = Run.objects.with_stage().without_detail().get(pk=item.run_id)
    will_be_sent = not stop_reason
    item.result, item.abort, item.note = _request_abort(bulk_abort, run, will_be_sent=will_be_sent)
    mark_changed([run.pk])  # updates open pages
    item.save(update_fields=["result", "abort", "note"])
    if item.result != BulkAbortItemResult.ABORT or item.abort is None:
        return None
    if stop_reason:
        item.abort.apply(EventType.NOT_SENT, db_threads.now(), stop_reason)
        return None
    return item.abort.pk


def _request_abort(
    bulk_abort: BulkAbort, run: Run, *, will_be_sent: bool
) -> tuple[BulkAbortItemResult, Abort | None, str]:
    """Request the abort of one run, like a single one; return its item's result, abort and note."""
    if run.in_flight and run.status == "aborting" and not run.aborts.open().exists():
        return BulkAbortItemResult.JOINED, None, _("The run was already being aborted.")
    abort_request = AbortRequest(
        bulk_abort.user,
        bulk_abort.reason,
        bulk_abort.client_address,
        Via(bulk_abort.via),
        bulk_abort.token_name,
        deleted_username=bulk_abort.username,
    )
    try:
        result = request_abort(run, abort_request, bulk_abort=bulk_abort, will_be_sent=will_be_sent)
    except NotInFlight:
        why = removals.unknown_end_reason(run) if run.has_unknown_end else ""
        note = _("Nothing was sent. %(why)s") % {"why": why} if why else ""
        return BulkAbortItemResult.ENDED, None, note
    except (NotAllowed, ReasonMissing) as error:
        return BulkAbortItemResult.NOT_ALLOWED, None, str(error)
    kind = BulkAbortItemResult.ABORT if result.is_new else BulkAbortItemResult.JOINED
    return kind, result.abort, ""
