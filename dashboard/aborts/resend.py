"""Resend an abort that may not have arrived, if the run goes on (see resend_policy.py)."""

from datetime import datetime

import structlog

from dashboard.aborts import resend_policy
from dashboard.aborts.request import SEND_LEASE
from dashboard.aborts.send import READ_BEFORE_TIMEOUT, attempt_send, read_run_with_timeout
from dashboard.aborts.settle import no_resend_reason, settle_resolved_aborts
from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Abort
from dashboard.models.aborts import AbortQuerySet, AbortState
from dashboard.northflank import NorthflankError
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)


async def resend_abort(upstream: Connection, abort: Abort) -> None:
    """Read the run of a claimed abort, and resend the abort if it still has no effect."""
    try:
        await read_run_with_timeout(upstream, abort.run, READ_BEFORE_TIMEOUT)
    except NorthflankError as error:
        log.info("abort.run_read_failed", run=abort.run.run_id, cause=error.cause)
        # Without a current status nothing is sent; the next try comes after the same delay.
        await run_in_db_thread(postpone, abort)
        return
    await run_in_db_thread(settle_resolved_aborts, db_threads.now())
    await attempt_send(upstream, abort)


def claim_due_resends(now: datetime) -> list[Abort]:
    """Claim and return the aborts due to be resent; each is claimed by one process only."""
    claimable = _unconfirmed_aborts().claimed_outside(now, now + 2 * SEND_LEASE)
    candidates = list(claimable.select_related("run__stage__pipeline__project"))
    if not candidates or (request_budget := budget_store.load(now)).backoff_until is not None:
        return []
    return [
        abort
        for abort in candidates
        if abs(now - abort.claimed_at) >= resend_policy.delay(abort.send_count)
        and (abort.bulk_abort_id is None or request_budget.may_bulk_abort)
        and not no_resend_reason(abort, now)
        and _claim(abort, now)
    ]


def _claim(abort: Abort, now: datetime) -> bool:
    """Take the lease of an abort while its run is read; False if another process was faster."""
    previous_lease, abort.claimed_at = abort.claimed_at, now + SEND_LEASE
    claimable_abort = _unconfirmed_aborts().filter(pk=abort.pk, claimed_at=previous_lease)
    return bool(claimable_abort.update(claimed_at=abort.claimed_at))


def postpone(abort: Abort) -> None:
    """Renew the claim of an abort that is not resent now, unless another process has it."""
    claimed_abort = _unconfirmed_aborts().filter(pk=abort.pk, claimed_at=abort.claimed_at)
    claimed_abort.update(claimed_at=db_threads.now())


def _unconfirmed_aborts() -> AbortQuerySet:
    return Abort.objects.open().filter(state=AbortState.UNKNOWN)
