"""A press of Abort: judged, and written down before anything is sent."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils.translation import gettext as _

from dashboard.aborts import severity as abort_severity
from dashboard.aborts.severity import Level
from dashboard.accounts import permissions
from dashboard.accounts.permissions import Rights
from dashboard.db import threads as db_threads
from dashboard.models import Abort, AbortBatch, Run, Stage
from dashboard.models.aborts import AbortState, What
from dashboard.models.bulk_aborts import Via
from dashboard.models.runs import touch
from dashboard.runs import abort_clock

log = structlog.get_logger(__name__)

REASON_LENGTH = 500
# Control characters, and those that turn the direction of the text around them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# So long Northflank is waited for, from the moment at which an act was marked as sent.
ANSWER_WITHIN = 12.0  # seconds
# Longer than that, by what clocks may differ: past it, the sending process is taken for dead.
LEASE = timedelta(seconds=15)


class NotAllowed(Exception):
    """The person may not abort this run; the message says why, and who may."""


class NotInFlight(Exception):
    """There is nothing to abort: the run has concluded, or Northflank knows it no more."""


class ReasonMissing(Exception):
    """Aborting there takes a reason, and none was given; the message says so."""


@dataclass(frozen=True, slots=True)
class Press:
    """Who asks for an abort, why, and by which way."""

    user: User
    reason: str = ""
    client_address: str | None = None
    via: Via = Via.PAGE
    token_name: str = ""
    rights: Rights | None = None  # less than the account's, where a token narrows them
    origin: str = ""  # what else is known of it: whose shell, on which machine

    def fields(self, reason: str, at: datetime) -> dict[str, Any]:
        """Return what is kept of it in an act or a list (AskedFor), with its clean reason."""
        return {
            "user": self.user,
            "username": self.user.get_username(),
            "reason": reason,
            "client_address": self.client_address,
            "via": self.via,
            "token_name": self.token_name,
            "requested_at": at,
        }


@dataclass(frozen=True, slots=True)
class Pressed:
    """An abort, and whether this press made it or joined one that was under way."""

    abort: Abort
    made: bool


def reason_required(stage: Stage) -> bool:
    """Say whether aborting a run of `stage` takes a reason."""
    return stage.name in settings.ABORT_REASON_REQUIRED


def clean_reason(text: str) -> str:
    """Return a reason as it is kept: one line of limited length that reads as it was written."""
    return " ".join(_UNSEEN.sub(" ", text).split())[:REASON_LENGTH]


def may_try_again(abort: Abort, now: datetime) -> bool:
    """Say whether an open abort is so long overdue that a new one makes sense."""
    if not abort.waits:
        return False
    late = max(abort.run.aborting_level, abort_severity.level(abort.requested_at, now))
    return late >= Level.RED


def request(
    run: Run, press: Press, *, again: int | None = None, batch: AbortBatch | None = None
) -> Pressed:
    """Write down that somebody wants `run` aborted, before anything is sent.

    Raises NotAllowed, NotInFlight and ReasonMissing. A press while an abort is open joins that one
    (and hurries it, if it has to be sent again), unless it says that this abort (`again`, its key)
    is to be tried again and its time has come.
    """
    verdict = (press.rights or permissions.rights(press.user)).may_abort(run.stage)
    if not verdict.allowed:
        log.warning(
            "abort.not_allowed",
            run=run.run_id,
            by=press.user.get_username(),
            via=str(press.via),
            token=press.token_name,
            address=press.client_address,
        )
        raise NotAllowed(verdict.why_not)
    if not run.in_flight:
        raise NotInFlight
    reason = clean_reason(press.reason)
    if not reason and reason_required(run.stage):
        said = _("Aborting a run in %(stage)s takes a reason.")
        raise ReasonMissing(said % {"stage": run.stage.name})
    try:
        return _write_down(run, press, reason, again, batch)
    except IntegrityError:
        under_way = Abort.objects.open().filter(run=run).first()
        if under_way is not None:
            _join(under_way, press, reason)
            return Pressed(under_way, made=False)
        run.refresh_from_db(fields=["in_flight"])
        if not run.in_flight:
            raise NotInFlight from None
        # What was under way has settled this instant; a second refusal has another cause.
        return _write_down(run, press, reason, None, batch)


def _write_down(
    run: Run, press: Press, reason: str, again: int | None, batch: AbortBatch | None
) -> Pressed:
    now = db_threads.now()
    with transaction.atomic():
        given_up = _given_up(run, press, again, now)
        found = abort_clock.since(run, None)
        before = [found.at] if found else []
        if given_up is not None:
            before.append(given_up.begun_at or given_up.requested_at)
        begun = min([now, *before])  # its clock does not begin anew
        touch([run.pk], next_read_at=now + LEASE, aborting_level=abort_severity.level(begun, now))
        abort = Abort.objects.create(
            run=run,
            **press.fields(reason, now),
            claimed_at=now,
            retry_of=given_up,
            batch=batch,
            begun_at=begun if begun < now else None,
        )
        abort.note(What.REQUESTED, now, detail=press.origin)
    log.info("abort.requested", run=run.run_id, by=abort.username, reason=abort.reason)
    return Pressed(abort, made=True)


def _join(abort: Abort, press: Press, reason: str) -> None:
    """Keep a press that joins an act under way: who, by which way, from where and why."""
    ways = {
        Via.PAGE: "",
        Via.API: _("API token “%(token)s”") % {"token": press.token_name},
        Via.COMMAND: _("command line"),
    }
    origin = (ways[press.via], press.client_address or "", press.origin)
    came_by = ", ".join(part for part in origin if part)
    who = press.user.get_username() + (f" ({came_by})" if came_by else "")
    detail = f"{who}: “{reason}”" if reason else who
    with transaction.atomic():
        touch([abort.run_id])
        if not abort.events.filter(what=What.JOINED, detail=detail).exists():  # pressed twice
            abort.note(What.JOINED, db_threads.now(), detail=detail)
        # One that may not have arrived rests no longer before it is sent again.
        resting = Abort.objects.open().filter(pk=abort.pk, state=AbortState.UNKNOWN)
        resting.filter(claimed_at__lte=db_threads.now()).update(
            claimed_at=F("requested_at") - LEASE
        )
    log.info("abort.joined", run=abort.run.run_id, by=press.user.get_username(), reason=reason)


def _given_up(run: Run, press: Press, again: int | None, now: datetime) -> Abort | None:
    """Settle the abort that is tried again, where there is one to give up, and return it."""
    if again is None:
        return None
    old = Abort.objects.open().filter(pk=again, run=run).first()
    if old is None or not may_try_again(old, now):
        return None
    by = press.user.get_username()
    moved = old.move(AbortState.TRIED_AGAIN, What.TRIED_AGAIN, now, detail=by, settled_at=now)
    return old if moved else None
