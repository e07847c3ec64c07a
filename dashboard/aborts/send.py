"""Sending an abort, and keeping what Northflank answers.

Never are two requests of ours under way for one run: each sending is written down by a conditional
update, and ends, answered or not, before the lease of its process does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _

from dashboard.aborts import resend_policy
from dashboard.aborts.request import ANSWER_WITHIN, LEASE, Pressed
from dashboard.aborts.severity import Level
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.db.threads import in_database, retry_while_away
from dashboard.models import Abort, QuestionCounter, Run
from dashboard.models.aborts import AbortState, What
from dashboard.models.runs import touch
from dashboard.northflank import (
    NorthflankError,
    NotFound,
    RateLimited,
    Refused,
    Rejected,
    RunDetail,
    Unreachable,
)
from dashboard.sync import mirror
from dashboard.sync.stage_reader import read_run
from dashboard.upstream.connection import Connection, connection

log = structlog.get_logger(__name__)

# An abort that a dead process has not sent is still sent this long after it was asked for; later it
# would come as a surprise.
ADOPTED_FOR = timedelta(minutes=5)
# Seconds for which a reading is waited for: the sync reads the run, too, as soon as it can.
LOOK_BEFORE, LOOK_AFTER = 10.0, 3.0

_sending: dict[int, asyncio.Task[None]] = {}  # by this process, by the act's key
_watching: dict[int, asyncio.Task[None]] = {}  # what another process sends


async def answered(pressed: Pressed) -> int:
    """Return the abort's key once Northflank has answered it, or is known not to have.

    Sends it if this press made it. The sending goes on when the one who waits has left.
    """
    pk = pressed.abort.pk
    if pressed.made:
        _begin(_sending, pk, lambda: send(connection(), pk))
    elif pk not in _sending:
        _begin(_watching, pk, lambda: _watch(pk))
    # However many wait here, there is one task that sends or watches.
    await asyncio.shield(_sending.get(pk) or _watching[pk])
    return pk


def _begin(
    tasks: dict[int, asyncio.Task[None]], pk: int, work: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    if pk not in tasks:
        task = tasks[pk] = asyncio.create_task(work())
        task.add_done_callback(lambda _: tasks.pop(pk, None))


async def _watch(pk: int) -> None:
    """Wait until another process has got its answer, which comes through the database."""
    requested = Abort.objects.filter(pk=pk, state=AbortState.REQUESTED)
    for _wait in range(int(LEASE.total_seconds() * 4)):
        if not await in_database(requested.exists):
            return
        await asyncio.sleep(0.25)


async def send(to: Connection, abort_pk: int, *, somebody_waits: bool = True) -> None:
    """Send one abort that was written down, for the first time, and keep what came of it.

    One that tries another again is sent only if the run, read anew, has not ended meanwhile. Where
    nobody waits for the answer, what it tells of the budget is kept before this returns.
    """
    abort = await retry_while_away(_unsent, abort_pk)
    if abort is None:
        return
    if abort.retry_of_id is not None or abort.run.status == "aborting":
        try:
            run = await look(to, abort.run, LOOK_BEFORE)
        except NorthflankError as error:  # the abort itself is worth its try
            log.info("abort.reading_failed", run=abort.run.run_id, cause=error.cause)
        else:
            if run is None or not run.in_flight:
                await in_database(too_late, abort, run)
                return
    await deliver(to, abort)
    if not somebody_waits:
        await to.noted()


async def deliver(to: Connection, abort: Abort, *, within: float = ANSWER_WITHIN) -> None:
    """Mark an abort as sent once more, unless somebody else has; send it; keep what came of it.

    All of that takes no longer than `within` seconds, a reading of the run after it left aside.
    """
    until = monotonic() + within
    number = await retry_while_away(QuestionCounter.take)  # before it is marked as sent
    if not await retry_while_away(_take_for_sending, abort):
        return
    run, stage = abort.run, abort.run.stage
    project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
    try:
        said = await to.ask(
            lambda nf: nf.abort_run(project, pipeline, stage.spelling, run.run_id, until=until),
            somebody_waits=True,
            asked_seq=number,
        )
    except NorthflankError as error:
        await _after_error(to, abort, error, in_time=monotonic() < until)
    else:
        await retry_while_away(_accepted, abort, said, number)


async def look(to: Connection, run: Run, seconds: float) -> Run | None:
    """Read a run as `read_run` does, within so many seconds; raises NorthflankError."""
    try:
        async with asyncio.timeout(seconds):
            return await read_run(to, run)
    except TimeoutError:
        said = f"The run could not be read within {seconds:g} seconds."
        raise Unreachable(said, sent=True, cause="timeout") from None


def _unsent(abort_pk: int) -> Abort | None:
    waiting = Abort.objects.open().filter(pk=abort_pk, state=AbortState.REQUESTED, sent_at=None)
    return waiting.select_related("run__stage__pipeline__project").first()


def withdrawn(abort: Abort) -> bool:
    """End an abort that should not be sent any more; False: it should."""
    why_not = _no_longer_wanted(abort)
    if why_not:
        now = db_threads.now()
        abort.move(
            AbortState.NOT_SENT, What.NOT_SENT, now, detail=why_not, answer=why_not, settled_at=now
        )
        log.warning("abort.withdrawn", run=abort.run.run_id, by=abort.username, why=why_not)
    return bool(why_not)


def _take_for_sending(abort: Abort) -> bool:
    """Mark an abort as sent, unless it is no longer wanted: rights are looked at here again."""
    first = abort.sent_at is None
    if withdrawn(abort) if first else why_not_again(abort, db_threads.now()):
        return False
    now = db_threads.now()
    with transaction.atomic():
        touch([abort.run_id])  # the counter first: see Abort.move
        # Conditional: of all who hold the same abort one passes, and nobody whose claim is over.
        ours = Abort.objects.open().filter(
            pk=abort.pk, sendings=abort.sendings, claimed_at=abort.claimed_at
        )
        if first:
            ours = ours.filter(state=AbortState.REQUESTED, sent_at=None, claimed_at__gt=now - LEASE)
        else:
            running = Run.objects.in_flight().exclude(status="aborting")
            ours = ours.filter(state=AbortState.UNKNOWN, claimed_at__gt=now, run__in=running)
        number = abort.sendings + 1
        if not ours.update(
            state=AbortState.REQUESTED, sent_at=now, claimed_at=now, sendings=number
        ):
            return False
        abort.note(What.SENT, now, detail="" if first else str(number))
    abort.state, abort.sendings = AbortState.REQUESTED, number
    abort.sent_at = abort.claimed_at = now
    return True


def _no_longer_wanted(abort: Abort) -> str:
    """Say why an abort that was never sent should not be sent now; empty: it should."""
    if db_threads.now() - abort.requested_at > ADOPTED_FOR:
        return _("It could not be sent in time.")
    return _not_allowed(abort)


def why_not_again(abort: Abort, now: datetime) -> str:
    """Say why an abort that may not have arrived is not sent again any more; empty: it is."""
    if abort.sendings >= resend_policy.MOST:
        return _("It was sent %(n)d times.") % {"n": abort.sendings}
    if resend_policy.is_over(abort.sendings, abort.first_sent_at, now):
        return _("Too much time has passed.")
    return _not_allowed(abort)


def _not_allowed(abort: Abort) -> str:
    user = User.objects.filter(aborts=abort).first()  # as it is now, not as it was read
    if user is None:
        return _("The account that asked for it exists no more.")
    if not user.is_active:
        return _("The account that asked for it is not active any more.")
    return permissions.may_abort(user, abort.run.stage).why_not


async def _after_error(
    to: Connection, abort: Abort, error: NorthflankError, *, in_time: bool
) -> None:
    never_came = isinstance(error, RateLimited) or (
        isinstance(error, Unreachable) and not error.sent and in_time
    )
    if never_came and abort.sendings == 1:
        await retry_while_away(_not_sent, abort, error)
        return
    refused = isinstance(error, (Refused, NotFound, Rejected))
    if not refused:
        # It, or one before it, may have arrived. Only what Northflank says of the run can tell.
        await retry_while_away(unknown, abort, str(error), error.error_id or "")
    run: Run | None = abort.run
    try:
        run = await look(to, abort.run, LOOK_AFTER)
    except NorthflankError as second:
        log.info("abort.reading_failed", run=abort.run.run_id, cause=second.cause)
    if refused:
        await retry_while_away(_refused, abort, run, error)
    else:
        await in_database(review, db_threads.now())


def _accepted(abort: Abort, said: RunDetail, number: int) -> None:
    now = db_threads.now()
    status = said.run.status
    answer: dict[str, Any] = {"answered_at": now, "answer": status, "answer_status": 200}
    with transaction.atomic():
        # The list or a detail may be read only seconds later: the follow-up starts now.
        touch([abort.run_id], next_read_at=now)
        if said.run.concluded and status != "aborted" and abort.sendings == 1:
            # Accepted in name only: an abort that has just begun ends no run in success.
            heard = abort.move(
                AbortState.TOO_LATE, What.TOO_LATE, now,
                detail=status, outcome=status, settled_at=now, **answer,
            )  # fmt: skip
        else:
            heard = abort.move(AbortState.ACCEPTED, What.ACCEPTED, now, detail=status, **answer)
        if not heard:  # it took so long that the act was settled without it
            abort.note(What.ANSWERED_LATE, now, detail=status)
        run = Run.objects.get(pk=abort.run_id)
        # What was read after the abort was sent, and says that the run has concluded, is newer.
        overtaken = run.concluded and run.asked_seq > number
        said_by = number if overtaken else None
        run = mirror.detail(abort.run.stage_id, said, asked_at=now, asked_seq=said_by)
        if not run.in_flight:  # told by a list that overtook the answer
            conclude(abort, run, now)
    log.info("abort.accepted", run=abort.run.run_id, by=abort.username, status=status)


def conclude(abort: Abort, run: Run, now: datetime) -> None:
    outcome = run.status if run.concluded else ""  # gone: how it ended, nobody says
    abort.move(
        AbortState.CONCLUDED, What.CONCLUDED, now, detail=outcome, outcome=outcome, settled_at=now
    )


def _not_sent(abort: Abort, error: NorthflankError) -> None:
    now = db_threads.now()
    retry_at = (
        now + timedelta(seconds=error.reset_seconds) if error.reset_seconds is not None else None
    )
    _settle(abort, AbortState.NOT_SENT, What.NOT_SENT, error, now, retry_at=retry_at)


def _refused(abort: Abort, run: Run | None, error: NorthflankError) -> None:
    """Keep a refusal, unless it says that the goal is reached; `run` as read after it."""
    now = db_threads.now()
    over = run is None or run.concluded
    if over and abort.sendings == 1:
        too_late(abort, run, error)
    elif over:  # one that was sent before it may have done so
        _settle_as(abort, run, error, now)
    elif run is not None and run.status == "aborting" and not isinstance(error, Refused):
        abort.move(
            AbortState.ACCEPTED, What.ABORTING, now, of_sending=abort.sendings,
            answered_at=now, answer=str(error), answer_status=error.http_status,
            error_id=error.error_id or "",
        )  # fmt: skip
    else:
        _settle(abort, AbortState.REFUSED, What.REFUSED, error, now)


def _settle_as(abort: Abort, run: Run | None, error: NorthflankError, now: datetime) -> None:
    outcome = run.status if run is not None else ""
    _settle(
        abort, AbortState.CONCLUDED, What.CONCLUDED, error, now, detail=outcome, outcome=outcome
    )


def too_late(abort: Abort, run: Run | None, error: NorthflankError | None = None) -> None:
    """Settle an abort whose run had ended before it; None: Northflank knew the run no more."""
    outcome = run.status if run is not None else ""
    _settle(
        abort, AbortState.TOO_LATE, What.TOO_LATE, error, db_threads.now(),
        detail=outcome, outcome=outcome,
    )  # fmt: skip


def _settle(
    abort: Abort,
    state: AbortState,
    what: What,
    error: NorthflankError | None,
    now: datetime,
    *,
    detail: str | None = None,
    **more: Any,
) -> None:
    answer = str(error) if error is not None else ""
    settled = abort.move(
        state,
        what,
        now,
        detail=answer if detail is None else detail,
        of_sending=abort.sendings,
        answered_at=now if error is not None and error.http_status else None,
        answer=answer,
        answer_status=error.http_status if error is not None else None,
        error_id=(error.error_id or "") if error is not None else "",
        settled_at=now,
        **more,
    )
    if not settled:
        abort.note(What.ANSWERED_LATE, now, detail=answer)
    log.warning(
        "abort.settled", state=str(state), run=abort.run.run_id, by=abort.username, answer=answer
    )


def unknown(abort: Abort, why: str, error_id: str = "") -> None:
    """Note that nobody knows whether an abort arrived; only the run can tell.

    It rests from now on, until it is sent again.
    """
    now = db_threads.now()
    with transaction.atomic():
        touch([abort.run_id], next_read_at=now)
        doubted = abort.move(
            AbortState.UNKNOWN, What.UNKNOWN, now,
            detail=why, of_sending=abort.sendings, answer=why, error_id=error_id, claimed_at=now,
        )  # fmt: skip
    if doubted:
        log.warning("abort.unknown", run=abort.run.run_id, by=abort.username, why=why)


def review(now: datetime) -> None:
    """Settle what has become clear: mostly the mirror tells an act of its end (Abort.hear)."""
    heard = Abort.objects.open().exclude(state=AbortState.REQUESTED)
    for abort in heard.select_related("run__stage__pipeline__project"):
        run = abort.run
        if not run.in_flight:
            conclude(abort, run, now)
        elif abort.state == AbortState.ACCEPTED:
            continue
        elif run.status == "aborting":
            abort.move(AbortState.ACCEPTED, What.ABORTING, now)
        elif run.seen_at - (abort.sent_at or abort.requested_at) > resend_policy.CHECKED_FOR and (
            why := why_not_again(abort, now)
        ):
            _give_up(abort, why, now)


def _give_up(abort: Abort, why: str, now: datetime) -> None:
    """Settle an abort that has not arrived and is not sent again: somebody has to see to it."""
    with transaction.atomic():
        given_up = abort.move(
            AbortState.UNKNOWN, What.NOT_ARRIVED, now,
            detail=why, of_sending=abort.sendings, settled_at=now,
        )  # fmt: skip
        if given_up:
            touch([abort.run_id], aborting_level=Level.RED)
    if given_up:
        log.warning("abort.did_not_arrive", run=abort.run.run_id, by=abort.username)
