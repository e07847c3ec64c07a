"""Send an abort, and store Northflank's response.

At most one abort request of a run, or of one thing that it left running, is in progress: each send
is recorded by a conditional update, and ends, answered or not, before its lease expires.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from time import monotonic
from typing import Any

import structlog
from django.db import transaction

from dashboard.aborts import target
from dashboard.aborts.request import (
    RESPONSE_TIMEOUT,
    SEND_LEASE,
    AbortResult,
    is_run_read_first,
)
from dashboard.aborts.settle import (
    cancel_if_unwanted,
    has_response,
    mark_unknown,
    no_resend_reason,
    record_not_sent,
    record_refused,
    settle_resolved_aborts,
    settle_too_late,
)
from dashboard.db import durable
from dashboard.db import threads as db_threads
from dashboard.db.threads import retry_during_outage, run_in_db_thread
from dashboard.models import Abort, ChangeCounter, RequestCounter, Run, Work
from dashboard.models.abort_lifecycle import AbortState, EventType
from dashboard.models.runs import mark_changed
from dashboard.northflank import (
    AccessDenied,
    NorthflankError,
    NotFound,
    RateLimited,
    RequestRejected,
    RunDetail,
    Unreachable,
)
from dashboard.sync import mirror
from dashboard.upstream.connection import Connection, get_connection

log = structlog.get_logger(__name__)

# Seconds to wait for a read of the run: the sync worker reads it too, as soon as it can.
READ_BEFORE_TIMEOUT, READ_AFTER_TIMEOUT = 10.0, 3.0

_send_tasks: dict[int, asyncio.Task[Abort]] = {}  # sends of this process, by abort key
_wait_tasks: dict[int, asyncio.Task[Abort]] = {}  # waits for other processes, by abort key


async def wait_for_response(result: AbortResult) -> Abort:
    """Return the abort, with its run, once Northflank has answered or no response is expected.

    An abort that the request created is sent; the send continues if the caller is cancelled.
    """
    pk = result.abort.pk
    if result.is_new:
        _start_once(_send_tasks, pk, lambda: _send_new(get_connection(), result))
    elif pk not in _send_tasks:
        _start_once(_wait_tasks, pk, lambda: wait_for_other_process(pk))
    # One task per abort sends or waits, however many callers there are.
    return await asyncio.shield(_send_tasks.get(pk) or _wait_tasks[pk])


def _start_once(
    tasks: dict[int, asyncio.Task[Abort]], pk: int, work: Callable[[], Coroutine[Any, Any, Abort]]
) -> None:
    if pk not in tasks:
        task = tasks[pk] = asyncio.create_task(work())
        task.add_done_callback(lambda _: tasks.pop(pk, None))


async def _send_new(upstream: Connection, result: AbortResult) -> Abort:
    abort = result.abort
    if result.request_seq is None:
        await send_abort(upstream, abort.pk)
    else:
        # It was marked as sent when it was requested.
        since_marked = max(db_threads.now() - abort.requested_at, timedelta())
        deadline = monotonic() + RESPONSE_TIMEOUT - since_marked.total_seconds()
        if await _deliver(upstream, abort, result.request_seq, deadline):
            return abort  # as just stored
    return await run_in_db_thread(_load, abort.pk)


async def wait_for_other_process(pk: int) -> Abort:
    """Return the abort once another process has stored its response, or after SEND_LEASE."""
    unanswered = Abort.every.filter(pk=pk, state=AbortState.REQUESTED)
    for _wait in range(int(SEND_LEASE.total_seconds() * 4)):
        if not await run_in_db_thread(unanswered.exists):
            break
        await asyncio.sleep(0.25)
    return await run_in_db_thread(_load, pk)


async def send_abort(
    upstream: Connection, abort_pk: int, *, interactive: bool = True, is_run_read: bool = False
) -> None:
    """Send a recorded abort for the first time, and store the result.

    If the run is aborted again, or is already aborting, it is read first, and the abort is not sent
    if the run has ended; `is_run_read`: the caller has just done so. Unless `interactive`, the
    response's rate limit is stored before returning.
    """
    abort = await retry_during_outage(_load_unsent, abort_pk)
    if abort is None:
        return
    if not is_run_read and is_run_read_first(abort):
        try:
            found = await target.read(upstream, abort, READ_BEFORE_TIMEOUT)
        except NorthflankError as error:  # the abort is sent all the same
            log.info("abort.run_read_failed", run=abort.run.run_id, cause=error.cause)
        else:
            if found is None or not found.in_flight:
                await run_in_db_thread(settle_too_late, abort, found)
                return
    await attempt_send(upstream, abort)
    if not interactive:
        await upstream.flush()


async def attempt_send(
    upstream: Connection, abort: Abort, *, time_limit: float = RESPONSE_TIMEOUT
) -> None:
    """Mark an abort as sent once more, send it, and store the result.

    Do nothing if another process was faster or the abort is no longer wanted. Takes at most
    `time_limit` seconds, plus a read of the run if Northflank did not accept the abort.
    """
    deadline = monotonic() + time_limit
    request_seq = await retry_during_outage(RequestCounter.take_next)  # before it is marked as sent
    if await retry_during_outage(_claim_for_sending, abort):
        await _deliver(upstream, abort, request_seq, deadline)


async def _deliver(upstream: Connection, abort: Abort, request_seq: int, deadline: float) -> bool:
    """Send an abort that is marked as sent, and store the result.

    Return whether it was accepted and is under way; if so, `abort` and its run are as stored.
    `deadline` is a time of `time.monotonic`.
    """
    try:
        detail = await upstream.call(
            lambda nf: target.send(nf, abort, deadline),
            defer_recording=True,
            request_seq=request_seq,
        )
    except NorthflankError as error:
        await _handle_error(upstream, abort, error, is_in_time=monotonic() < deadline)
        return False
    return await retry_during_outage(record_accepted, abort, detail, request_seq)


def _load(abort_pk: int) -> Abort:
    return Abort.every.with_target().get(pk=abort_pk)


def _load_unsent(abort_pk: int) -> Abort | None:
    unsent = Abort.every.open().filter(pk=abort_pk, state=AbortState.REQUESTED, sent_at=None)
    return unsent.with_target().first()


def _claim_for_sending(abort: Abort) -> bool:
    """Mark an abort as sent, unless it is no longer wanted; permissions are checked again."""
    is_first = abort.sent_at is None
    if cancel_if_unwanted(abort) if is_first else no_resend_reason(abort, db_threads.now()):
        return False
    now = db_threads.now()
    with durable.atomic():
        mark_changed([abort.run_id])  # first, as it locks the change counter
        # Conditional: only one process with this abort succeeds, and none with an expired lease.
        claimable = Abort.every.open().filter(
            pk=abort.pk, send_count=abort.send_count, claimed_at=abort.claimed_at
        )
        if is_first:
            claimable = claimable.filter(
                state=AbortState.REQUESTED, sent_at=None, claimed_at__gt=now - SEND_LEASE
            )
        else:
            claimable = claimable.filter(
                target.may_be_resent(), state=AbortState.UNKNOWN, claimed_at__gt=now
            )
        send_count = abort.send_count + 1
        if not claimable.update(
            state=AbortState.REQUESTED, sent_at=now, claimed_at=now, send_count=send_count
        ):
            return False
        abort.add_event(EventType.SENT, now, detail="" if is_first else str(send_count))
    abort.state, abort.send_count = AbortState.REQUESTED, send_count
    abort.sent_at = abort.claimed_at = now
    return True


async def _handle_error(
    upstream: Connection, abort: Abort, error: NorthflankError, *, is_in_time: bool
) -> None:
    never_arrived = isinstance(error, RateLimited) or (
        isinstance(error, Unreachable) and not error.may_have_arrived and is_in_time
    )
    if never_arrived and abort.send_count == 1:
        await retry_during_outage(record_not_sent, abort, error)
        return
    is_refused = isinstance(error, (AccessDenied, NotFound, RequestRejected))
    if not is_refused:
        # This or an earlier send may have arrived; only the run's status can show it.
        await retry_during_outage(mark_unknown, abort, str(error), error.error_id or "")
    found: Run | Work | None = abort.target
    try:
        found = await target.read(upstream, abort, READ_AFTER_TIMEOUT)
    except NorthflankError as read_error:
        log.info("abort.run_read_failed", run=abort.run.run_id, cause=read_error.cause)
    if is_refused:
        await retry_during_outage(record_refused, abort, found, error)
    else:
        await run_in_db_thread(settle_resolved_aborts, db_threads.now())


def record_accepted(abort: Abort, detail: RunDetail | None, request_seq: int) -> bool:
    """Store a 2xx with the run that it contains; return whether the abort is now under way.

    If so, `abort` and its run are as stored; else the mirror, or another process, has settled it.
    What a run has left running is read next (`detail` is None): how it stands the answer tells not.
    """
    now = db_threads.now()
    api_run = detail.run if detail is not None else None
    status = api_run.status if api_run is not None else ""
    response: dict[str, Any] = {"responded_at": now, "response": status, "response_status": 200}
    with transaction.atomic():
        version = ChangeCounter.take(1)
        # Too late in spite of the 200: an abort just started ends no run like this.
        is_ended = api_run is not None and api_run.concluded
        is_late = is_ended and status != "aborted" and abort.send_count == 1
        event_type = EventType.TOO_LATE if is_late else EventType.ACCEPTED
        is_recorded = abort.apply(event_type, now, status, with_run=False, **response)
        if not is_recorded and has_response(abort):
            abort.refresh_from_db()
            return abort.state == AbortState.ACCEPTED and abort.target.in_flight
        if not is_recorded:  # the abort was settled before its response came
            abort.add_event(EventType.LATE_RESPONSE, now, detail=status)
        if detail is None:
            target.mark_abort_changed(abort, read_at=now)
        else:
            abort.run = mirror.apply_abort_response(
                abort,
                detail,
                responded_at=now,
                request_seq=request_seq,
                version=version,
                is_latest=is_recorded,
            )
        is_under_way = is_recorded and abort.target.in_flight
        if not abort.target.in_flight:  # a list read overtook the response
            outcome = abort.target.status if abort.target.concluded else ""
            abort.apply(EventType.CONCLUDED, now, outcome)
    log.info("abort.accepted", **target.log_fields(abort), status=status)
    return is_under_way
