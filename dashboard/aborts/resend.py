"""Resend an abort that may not have arrived, if the run goes on (see resend_policy.py)."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime

import structlog

from dashboard.aborts import resend_policy, target
from dashboard.aborts.request import SEND_LEASE
from dashboard.aborts.send import READ_BEFORE_TIMEOUT, attempt_send
from dashboard.aborts.settle import no_resend_reason, settle_resolved_aborts
from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Abort
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.aborts import AbortQuerySet
from dashboard.northflank import NorthflankError
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from dashboard.upstream.rate_budget import ReadBudget

log = structlog.get_logger(__name__)


async def resend_due_aborts(upstream: Connection) -> None:
    """Resend the aborts that are due, a few at a time, each once."""
    tried: set[int] = set()
    while due_aborts := await run_in_db_thread(
        claim_due_resends, upstream, db_threads.now(), tried
    ):
        tried.update(abort.pk for abort in due_aborts)
        await asyncio.gather(*(resend_abort(upstream, abort) for abort in due_aborts))
        await upstream.flush()  # the next few depend on what is left of the rate limit


async def resend_abort(upstream: Connection, abort: Abort) -> None:
    """Read what a claimed abort is of, and resend the abort if it still has no effect."""
    try:
        await target.read(upstream, abort, READ_BEFORE_TIMEOUT)
    except NorthflankError as error:
        log.info("abort.run_read_failed", run=abort.run.run_id, cause=error.cause)
        # Without a current status nothing is sent.
        await run_in_db_thread(postpone, abort)
        return
    if abort.target.failures:
        upstream.repeated_read_at = None  # others may be readable again, too
    await run_in_db_thread(settle_resolved_aborts, db_threads.now())
    await attempt_send(upstream, abort)


def claim_due_resends(
    upstream: Connection, now: datetime, tried: Collection[int] = ()
) -> list[Abort]:
    """Claim and return a few of the aborts due to be resent, by their keys none of `tried`.

    Each is claimed by one process only. At most MAX_READS runs are read at the same time. Those
    that could not be read take turns, and in an outage all do: this process reads few of them, at
    intervals as of a single one.
    """
    unconfirmed = list(_unconfirmed_aborts().with_target().order_by("claimed_at", "pk"))
    if not unconfirmed or (request_budget := budget_store.load(now)).backoff_until is not None:
        return []
    is_outage = bool(upstream.outage) or request_budget.is_probing
    due_aborts = [abort for abort in unconfirmed if _is_due(abort, request_budget, now)]
    repeated = {abort.pk for abort in due_aborts if is_outage or abort.target.failures > 0}
    reads_left = resend_policy.MAX_READS - sum(_is_claimed(abort, now) for abort in unconfirmed)
    repeated_reads_left = 1 if is_outage else resend_policy.MAX_REPEATED_READS
    if _is_too_early(upstream, [abort for abort in due_aborts if abort.pk in repeated], now):
        repeated_reads_left = 0
    claimed_aborts: list[Abort] = []
    for abort in due_aborts:
        is_repeated = abort.pk in repeated
        if len(claimed_aborts) >= reads_left or (is_repeated and not repeated_reads_left):
            continue
        if abort.pk not in tried and _claim(abort, now):
            claimed_aborts.append(abort)
            if is_repeated:
                repeated_reads_left -= 1
                upstream.repeated_read_at = now
    return claimed_aborts


def _is_due(abort: Abort, request_budget: ReadBudget, now: datetime) -> bool:
    return (
        not _is_claimed(abort, now)
        and abs(now - abort.claimed_at) >= resend_policy.delay(abort.send_count)
        and (abort.bulk_abort_id is None or request_budget.may_bulk_abort)
        and not no_resend_reason(abort, now)
    )


def _is_claimed(abort: Abort, now: datetime) -> bool:
    """Return whether the run of an abort is being read; later times are of a clock set back."""
    return now < abort.claimed_at <= now + 2 * SEND_LEASE


def _is_too_early(upstream: Connection, repeated: Sequence[Abort], now: datetime) -> bool:
    """Return whether one of these runs was read too recently to read the next one."""
    if upstream.repeated_read_at is None:
        return False
    first_sent_at = min((abort.sent_at or abort.requested_at for abort in repeated), default=now)
    interval = resend_policy.read_interval(now - first_sent_at)
    return abs(now - upstream.repeated_read_at) < interval


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
    return Abort.every.open().filter(state=AbortState.UNKNOWN)
