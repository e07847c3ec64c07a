"""Resend an abort that may not have arrived, where the run goes on (see resend_policy.py)."""

from datetime import datetime

import structlog

from dashboard.aborts import resend_policy
from dashboard.aborts.request import LEASE
from dashboard.aborts.send import LOOK_BEFORE, deliver, look, review, why_not_again
from dashboard.db import threads as db_threads
from dashboard.db.threads import in_database
from dashboard.models import Abort
from dashboard.models.aborts import AbortState
from dashboard.northflank import NorthflankError
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)


async def repeat(to: Connection, abort: Abort) -> None:
    """Read the run of a claimed act, and send the act again if the run goes on as before."""
    try:
        await look(to, abort.run, LOOK_BEFORE)
    except NorthflankError as error:
        log.info("abort.reading_failed", run=abort.run.run_id, cause=error.cause)
        # Without a reading nothing is sent. It is looked at again after as long a rest.
        await in_database(_rest, abort)
        return
    await in_database(review, db_threads.now())
    await deliver(to, abort)


def due(now: datetime) -> list[Abort]:
    """Claim the acts that have to be sent again now, each for one process."""
    resting = Abort.objects.open().filter(state=AbortState.UNKNOWN)
    resting = resting.unclaimed(now, now + 2 * LEASE)
    doubtful = list(resting.select_related("run__stage__pipeline__project"))
    if not doubtful or (spend := budget_store.allowance(now)).refused_until is not None:
        return []
    return [
        abort
        for abort in doubtful
        if abs(now - abort.claimed_at) >= resend_policy.pause(abort.sendings)
        and (abort.batch_id is None or spend.may_abort_many)
        and not why_not_again(abort, now)
        and _claimed(abort, now)
    ]


def _claimed(abort: Abort, now: datetime) -> bool:
    """Claim an act for as long as its run is read; False: somebody was faster."""
    here = Abort.objects.open().filter(pk=abort.pk, state=AbortState.UNKNOWN)
    before, abort.claimed_at = abort.claimed_at, now + LEASE
    return bool(here.filter(claimed_at=before).update(claimed_at=abort.claimed_at))


def _rest(abort: Abort) -> None:
    ours = Abort.objects.open().filter(pk=abort.pk, state=AbortState.UNKNOWN)
    ours.filter(claimed_at=abort.claimed_at).update(claimed_at=db_threads.now())
