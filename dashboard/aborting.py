"""Aborting a run: write the act down, send it once, keep what Northflank says, follow to the end.

Sources: https://northflank.com/docs/v1/api/project/pipelines/abort-release-flow-run says that 200
means accepted. It does not say what happens to a run that has concluded, nor how long aborting
lasts, so after anything but a 2xx the run is read again before we say what is true.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from dashboard import access, database
from dashboard.database import in_database
from dashboard.models import Abort, Run
from dashboard.models.aborts import AbortState
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
from dashboard.sync.worker import read_run
from dashboard.upstream import Connection, connection

log = structlog.get_logger(__name__)

REASON_LENGTH = 500
# Longer than the client waits for an answer: past it, the sending process is taken for dead.
LEASE = timedelta(seconds=45)
# An abort that a dead process has not sent is still sent this long after it was asked for; later it
# would come as a surprise.
ADOPTED_FOR = timedelta(minutes=5)
# An abort without an answer did not arrive if the run goes on as before for so long after it.
CHECKED_FOR = timedelta(seconds=60)


class NotAllowed(Exception):
    """The person may not abort this run; the message says why, and who may."""


class NotInFlight(Exception):
    """There is nothing to abort: the run has concluded, or Northflank knows it no more."""


@dataclass(frozen=True, slots=True)
class Pressed:
    """An abort, and whether this press made it or joined one that was under way."""

    abort: Abort
    made: bool


def request(
    run: Run, user: User, *, reason: str = "", client_address: str | None = None
) -> Pressed:
    """Write down that `user` wants `run` aborted, before anything is sent.

    Raises NotAllowed and NotInFlight. A second press while an abort is open joins that one.
    """
    verdict = access.may_abort(user, run.stage)
    if not verdict.allowed:
        raise NotAllowed(verdict.why_not)
    if not run.in_flight:
        raise NotInFlight
    now = database.now()
    try:
        with transaction.atomic():
            abort = Abort.objects.create(
                run=run,
                user=user,
                username=user.get_username(),
                reason=" ".join(reason.replace("\0", " ").split())[:REASON_LENGTH],
                client_address=client_address,
                requested_at=now,
                claimed_at=now,
            )
            touch([run.pk], next_read_at=now + LEASE)
    except IntegrityError:
        under_way = Abort.objects.open().filter(run=run).first()
        if under_way is None:  # it has settled this instant
            return request(run, user, reason=reason, client_address=client_address)
        return Pressed(under_way, made=False)
    log.info("abort.requested", run=run.run_id, by=abort.username, reason=abort.reason)
    return Pressed(abort, made=True)


_sending: dict[int, asyncio.Task[None]] = {}


async def answered(pressed: Pressed) -> int:
    """Return the abort's key once Northflank has answered it, or is known not to have.

    Sends it if this press made it. The sending goes on when the one who waits has left.
    """
    pk = pressed.abort.pk
    if pressed.made and pk not in _sending:
        task = _sending[pk] = asyncio.create_task(send(connection(), pk))
        task.add_done_callback(lambda _: _sending.pop(pk, None))
    if pk in _sending:
        await asyncio.shield(_sending[pk])
        return pk
    # Another process is sending it: its answer comes through the database.
    for _ in range(int(LEASE.total_seconds() * 4)):
        if not await in_database(Abort.objects.filter(pk=pk, state="requested").exists):
            break
        await asyncio.sleep(0.25)
    return pk


async def send(to: Connection, abort_pk: int) -> None:
    """Send one abort that was written down, once, and keep what came of it."""
    abort = await in_database(_take_for_sending, abort_pk)
    if abort is None:
        return
    run, stage = abort.run, abort.run.stage
    project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
    try:
        said = await to.ask(
            lambda nf: nf.abort_run(project, pipeline, stage.path, run.run_id),
            somebody_waits=True,
        )
    except NorthflankError as error:
        await _after_error(to, abort, error)
    else:
        await in_database(_accepted, abort, said)


async def look_after_open_aborts(to: Connection) -> None:
    """Adopt aborts whose process died, and settle those whose answer never came.

    A chore of the sync's worker: cheap when nothing is open.
    """
    adoptable = await in_database(_adoptable, database.now())
    # Side by side: one after the other they would outlive their leases while Northflank is slow.
    await asyncio.gather(*(_adopt(to, abort) for abort in adoptable))
    await in_database(_review, database.now())


async def _adopt(to: Connection, abort: Abort) -> None:
    log.warning("abort.adopted", run=abort.run.run_id, by=abort.username)
    try:
        run = await read_run(to, abort.run)
    except NorthflankError as error:
        log.info("abort.adoption_waits", run=abort.run.run_id, cause=error.cause)
        return
    if abort.sent_at is not None:
        await in_database(_unknown, abort, "The process that sent it ended before the answer.")
    elif run is None or not run.in_flight:
        await in_database(_too_late, abort, run)
    elif why_not := await in_database(_no_longer_wanted, abort):
        await in_database(_withdrawn, abort, why_not)
    else:
        await send(to, abort.pk)


def _no_longer_wanted(abort: Abort) -> str:
    """Say why an abort that was never sent should not be sent now; empty: it should."""
    if database.now() - abort.requested_at > ADOPTED_FOR:
        return "It could not be sent in time."
    if abort.user is None:
        return "The account that asked for it exists no more."
    return access.may_abort(abort.user, abort.run.stage).why_not


def _withdrawn(abort: Abort, why: str) -> None:
    with transaction.atomic():
        _keep(abort, state=AbortState.NOT_SENT, answer=why, settled_at=database.now())
        touch([abort.run_id])
    log.warning("abort.withdrawn", run=abort.run.run_id, by=abort.username, why=why)


def _take_for_sending(abort_pk: int) -> Abort | None:
    # Conditional: of two processes that hold the same abort only one passes.
    now = database.now()
    unsent = Abort.objects.open().filter(pk=abort_pk, state=AbortState.REQUESTED, sent_at=None)
    if not unsent.update(sent_at=now, claimed_at=now):
        return None
    return Abort.objects.select_related("run__stage__pipeline__project").get(pk=abort_pk)


async def _after_error(to: Connection, abort: Abort, error: NorthflankError) -> None:
    if isinstance(error, RateLimited) or (isinstance(error, Unreachable) and not error.sent):
        await in_database(_not_sent, abort, error)
        return
    if not isinstance(error, (Refused, NotFound, Rejected)):
        # It may have arrived. Only what Northflank says of the run can tell.
        await in_database(_unknown, abort, str(error))
    run: Run | None = abort.run
    try:
        run = await read_run(to, abort.run)
    except NorthflankError as second:
        log.info("abort.reading_failed", run=abort.run.run_id, cause=second.cause)
    if isinstance(error, (Refused, NotFound, Rejected)):
        if run is not None and run.concluded:
            await in_database(_too_late, abort, run, error)
        else:
            await in_database(_refused, abort, error)
    else:
        await in_database(_review, database.now())


def _accepted(abort: Abort, said: RunDetail | None) -> None:
    now = database.now()
    if said is not None and said.run.id != abort.run.run_id:
        said = None  # accepted, but what it says is of another run
    status = said.run.status if said else ""
    answer = {"answered_at": now, "answer": status, "answer_status": 200}
    with transaction.atomic():
        # The list or a detail may be read only seconds later: the follow-up starts now.
        touch([abort.run_id], next_read_at=now)
        if said is not None and said.run.concluded and status != "aborted":
            # Accepted in name only: an abort that has just begun ends no run in success.
            _keep(abort, state=AbortState.TOO_LATE, outcome=status, settled_at=now, **answer)
        else:
            _keep(abort, state=AbortState.ACCEPTED, **answer)
        if said is not None:
            run = mirror.detail(abort.run.stage_id, said, asked_at=now)
        else:
            run = Run.objects.get(pk=abort.run_id)
        if run.concluded:  # told by this answer, or by a list that overtook it
            Abort.objects.all().conclude(run.pk, run.status, now)
    log.info("abort.accepted", run=abort.run.run_id, by=abort.username, status=status)


def _not_sent(abort: Abort, error: NorthflankError) -> None:
    now = database.now()
    retry_at = (
        now + timedelta(seconds=error.reset_seconds) if error.reset_seconds is not None else None
    )
    _settle(abort, AbortState.NOT_SENT, error, now, retry_at=retry_at)


def _refused(abort: Abort, error: NorthflankError) -> None:
    _settle(abort, AbortState.REFUSED, error, database.now())


def _too_late(abort: Abort, run: Run | None, error: NorthflankError | None = None) -> None:
    outcome = run.status if run is not None else ""
    _settle(abort, AbortState.TOO_LATE, error, database.now(), outcome=outcome)


def _settle(
    abort: Abort, state: AbortState, error: NorthflankError | None, now: datetime, **more: object
) -> None:
    with transaction.atomic():
        _keep(
            abort,
            state=state,
            answered_at=now if error is not None and error.http_status else None,
            answer=str(error) if error is not None else "",
            answer_status=error.http_status if error is not None else None,
            settled_at=now,
            **more,
        )
        touch([abort.run_id])
    log.warning(
        "abort.settled",
        state=str(state),
        run=abort.run.run_id,
        by=abort.username,
        answer=abort.answer,
    )


def _unknown(abort: Abort, why: str) -> None:
    now = database.now()
    with transaction.atomic():
        _keep(abort, state=AbortState.UNKNOWN, answer=why)
        touch([abort.run_id], next_read_at=now)
    log.warning("abort.unknown", run=abort.run.run_id, by=abort.username, why=why)


def _keep(abort: Abort, **what: object) -> None:
    for field, value in what.items():
        setattr(abort, field, value)
    abort.save(update_fields=list(what))


def _adoptable(now: datetime) -> list[Abort]:
    stranded = Abort.objects.stranded(now - LEASE).select_related("run__stage__pipeline__project")
    return [
        abort
        for abort in stranded
        if Abort.objects.filter(pk=abort.pk, claimed_at=abort.claimed_at).update(claimed_at=now)
    ]


def _review(now: datetime) -> None:
    heard = Abort.objects.open().exclude(state=AbortState.REQUESTED)
    for abort in heard.select_related("run"):
        run = abort.run
        became: dict[str, object] = {}
        if not run.in_flight:
            outcome = run.status if run.concluded else ""  # gone: how it ended, nobody says
            became = {"state": AbortState.CONCLUDED, "outcome": outcome, "settled_at": now}
        elif abort.state == AbortState.ACCEPTED:
            continue
        elif run.status == "aborting":
            became = {"state": AbortState.ACCEPTED}
        elif run.seen_at - (abort.sent_at or abort.requested_at) > CHECKED_FOR:
            became = {"settled_at": now}
            log.warning("abort.did_not_arrive", run=run.run_id, by=abort.username)
        if became:
            with transaction.atomic():
                touch([run.pk])
                # Unless the sync, which learns of an end too, was faster.
                Abort.objects.open().filter(pk=abort.pk, state=abort.state).update(**became)
