"""Aborting many runs by one press: a frozen list, worked through one after another.

The process that took the press works through the list. At each turn the batch's row is locked: the
run and the rights are looked at again, and the act is written together with its place in the list.
No turn comes while an act of the list is unanswered, so any number of processes may be at one list.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from uuid import UUID

import structlog
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from dashboard.aborts.request import (
    NotAllowed,
    NotInFlight,
    Press,
    ReasonMissing,
    clean_reason,
    reason_required,
    request,
)
from dashboard.aborts.send import ADOPTED_FOR, send
from dashboard.accounts import permissions
from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.db.threads import in_database, retry_while_away
from dashboard.models import Abort, AbortBatch, BatchItem, ChangeCounter, Run
from dashboard.models.aborts import AbortState, What
from dashboard.models.bulk_aborts import ItemResult, Via
from dashboard.models.runs import touch
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection, connection
from dashboard.upstream.rate_budget import PROBE

log = structlog.get_logger(__name__)

MOST = 200  # runs in one list; more are no longer read before they are confirmed
# Each turn renews it, and may last as long as Northflank takes to answer, and to be read.
LEASE = timedelta(seconds=45)
LOOK_AGAIN = 0.5  # seconds until a list that has to wait is looked at again

_working: dict[int, asyncio.Task[None]] = {}


class TooMany(Exception):
    """The list is longer than one press may be; the message says how long it is."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look at a list came to."""

    send: int | None = None  # an act that has to be sent now
    waits: bool = False
    over: bool = False


@dataclass(frozen=True, slots=True)
class _End:
    """Why the rest of a list is not sent, and when Northflank takes requests again."""

    why: str
    retry_at: datetime | None = None


def request_many(run_keys: Iterable[int], press: Press, key: UUID) -> AbortBatch:
    """Freeze a list of runs, in its order, to be aborted one after another.

    The same `key` sent twice returns the first list. Runs that the person may not see are left out.
    Raises TooMany, NotInFlight (there is no run at all), NotAllowed (the person may abort none of
    them) and ReasonMissing.
    """
    if first := AbortBatch.objects.filter(key=key).first():
        return first
    rights = permissions.rights(press.user)
    runs = visible(run_keys, rights)
    _judge(runs, rights)
    reason = clean_reason(press.reason)
    strict = {run.stage.name for run in runs if reason_required(run.stage)}
    if strict and not reason:
        said = _("Aborting runs in %(stages)s takes a reason.")
        raise ReasonMissing(said % {"stages": reduce(_and, sorted(strict))})
    now = db_threads.now()
    try:
        with transaction.atomic():
            batch = AbortBatch.objects.create(
                key=key,
                **press.fields(reason, now),
                claimed_at=now,
            )
            BatchItem.objects.bulk_create(
                BatchItem(batch=batch, position=position, run=run)
                for position, run in enumerate(runs, start=1)
            )
    except IntegrityError:  # sent twice at the same moment
        return AbortBatch.objects.get(key=key)
    log.info("abort.many_requested", runs=len(runs), by=batch.username, reason=reason)
    return batch


def visible(run_keys: Iterable[int], rights: permissions.Rights) -> list[Run]:
    """Return those of the runs that a person may see, each once, in the order of the keys."""
    keys = list(dict.fromkeys(run_keys))
    seen = Run.objects.filter(rights.places("stage"), pk__in=keys)
    found = {run.pk: run for run in seen.with_place().without_detail()}
    return [found[key] for key in keys if key in found]


async def begin(batch_pk: int) -> int:
    """Have this process work through a list, and return its key at once."""
    _work_on(connection(), batch_pk)
    return batch_pk


async def adopt_batches(to: Connection) -> None:
    """Go on with the lists of processes that have died."""
    for batch_pk in await in_database(_adoptable, db_threads.now()):
        if batch_pk not in _working:
            log.warning("abort.many_adopted", batch=batch_pk)
            _work_on(to, batch_pk, late=True)


async def let_go() -> None:
    """Stop working through lists, wherever they are; another process, or the next one, goes on."""
    under_way = list(_working.values())
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


async def work_through(to: Connection, batch_pk: int, *, late: bool = False) -> None:
    """Abort the runs of a list one after another, until it is settled.

    `late`: nobody was at it for a while. Whoever has paused looks at the clock: an abort that is
    sent much later than it was asked for would come as a surprise.
    """
    while not (turn := await retry_while_away(take_turn, batch_pk, late=late)).over:
        # Looking at the clock ends with an abort that is still sent in time.
        late = turn.waits or (late and turn.send is None)
        if turn.send is not None:
            await send(to, turn.send, somebody_waits=False)
        elif turn.waits:
            await asyncio.sleep(LOOK_AGAIN)


def held_until(batch: AbortBatch, now: datetime) -> datetime | None:
    """Return until when a list waits for Northflank to take requests again; None: it need not."""
    spend = budget_store.allowance(now)
    if batch.settled_at is not None or spend.may_abort_many:
        return None
    if spend.probing:
        return spend.probe_until or now + PROBE
    return spend.refused_until or now + timedelta(seconds=spend.seconds)


def _and(one: str, other: str) -> str:
    return _("%(one)s and %(other)s") % {"one": one, "other": other}


def _judge(runs: list[Run], rights: permissions.Rights) -> None:
    """Refuse a list that can't be asked for; raises TooMany, NotInFlight and NotAllowed."""
    if not runs:
        raise NotInFlight
    if len(runs) > MOST:
        said = _("At most %(most)d runs can be aborted at once; these are %(count)d.")
        raise TooMany(said % {"most": MOST, "count": len(runs)})
    verdicts = [rights.may_abort(run.stage) for run in runs]
    if not any(verdict.allowed for verdict in verdicts):
        raise NotAllowed(verdicts[0].why_not)


def _work_on(to: Connection, batch_pk: int, *, late: bool = False) -> None:
    if batch_pk in _working:
        return
    task = _working[batch_pk] = asyncio.create_task(work_through(to, batch_pk, late=late))
    task.add_done_callback(lambda ended: _worked(batch_pk, ended))


def _worked(batch_pk: int, ended: asyncio.Task[None]) -> None:
    _working.pop(batch_pk, None)
    error = None if ended.cancelled() else ended.exception()
    if error is not None and not db_health.is_outage(error):
        # Its lease runs out, and a worker goes on with it.
        log.error("abort.many_failed", batch=batch_pk, exc_info=error)


def _adoptable(now: datetime) -> list[int]:
    return [
        batch.pk
        for batch in AbortBatch.objects.stranded(now - LEASE)
        if AbortBatch.objects.filter(pk=batch.pk, claimed_at=batch.claimed_at).update(
            claimed_at=now
        )
    ]


def take_turn(batch_pk: int, *, late: bool = False) -> Turn:
    """Bring the next run of a list to its turn, unless the list has to wait or is over.

    `late` as for `work_through`.
    """
    now = db_threads.now()
    with transaction.atomic():
        ChangeCounter.reserve(0)  # the counter first, as all writers
        open_ = AbortBatch.objects.open().filter(pk=batch_pk)
        batch = open_.select_for_update().first()
        if batch is None:
            return Turn(over=True)
        item = batch.items.filter(result=ItemResult.WAITING).first()
        if item is None:
            open_.update(settled_at=now)
            return Turn(over=True)
        end = _end(batch, now, late=late)
        if end is None:
            open_.update(claimed_at=now)
            unanswered = Abort.objects.filter(batch=batch, state=AbortState.REQUESTED)
            if unanswered.exists() or held_until(batch, now):
                return Turn(waits=True)
        return Turn(send=_act(batch, item, end))


def _end(batch: AbortBatch, now: datetime, *, late: bool) -> _End | None:
    """Say why the rest of a list should not be sent any more; None: it should, now or soon."""
    deadline = batch.requested_at + ADOPTED_FOR
    if late and now > deadline:
        return _End(_("It could not be sent in time."))
    until = held_until(batch, now)
    if until is not None and until > deadline:
        return _End(_("Northflank’s request allowance is spent."), until)
    return None


def _act(batch: AbortBatch, item: BatchItem, end: _End | None) -> int | None:
    """Make an act of an item, and return its key where it has to be sent."""
    run = Run.objects.with_place().without_detail().get(pk=item.run_id)
    if batch.user is None:
        note = _("The account that asked for it exists no more.")
        _settle(item, ItemResult.NOT_ALLOWED, note=note)
        return None
    if run.in_flight and run.status == "aborting" and not run.aborts.open().exists():
        _settle(item, ItemResult.JOINED, note=_("It was being aborted already."))
        return None
    press = Press(batch.user, batch.reason, batch.client_address, Via(batch.via), batch.token_name)
    try:
        pressed = request(run, press, batch=batch)
    except NotInFlight:
        _settle(item, ItemResult.ENDED)
        return None
    except (NotAllowed, ReasonMissing) as refused:
        _settle(item, ItemResult.NOT_ALLOWED, note=str(refused))
        return None
    abort = pressed.abort
    if not pressed.made:
        _settle(item, ItemResult.JOINED, abort=abort)
        return None
    _settle(item, ItemResult.ABORT, abort=abort)
    if end is None:
        return abort.pk
    now = db_threads.now()
    abort.move(
        AbortState.NOT_SENT, What.NOT_SENT, now,
        detail=end.why, answer=end.why, retry_at=end.retry_at, settled_at=now,
    )  # fmt: skip
    return None


def _settle(
    item: BatchItem, result: ItemResult, *, abort: Abort | None = None, note: str = ""
) -> None:
    touch([item.run_id])  # open pages hear of it; the counter first: see Abort.move
    item.result, item.abort, item.note = result, abort, note
    item.save(update_fields=["result", "abort", "note"])
