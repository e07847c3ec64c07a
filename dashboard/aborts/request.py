"""Check and record an abort request, before anything is sent."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import BigIntegerField, F
from django.utils.translation import gettext as _

from dashboard.aborts import severity as abort_severity
from dashboard.aborts import target
from dashboard.aborts.abort_rules import can_abort_again, denied_reason
from dashboard.accounts.permissions import Permissions
from dashboard.db import durable
from dashboard.db import threads as db_threads
from dashboard.db.prepared import Parameter, PreparedQuery, PreparedUpdate, parameters
from dashboard.models import (
    Abort,
    AbortEvent,
    BulkAbort,
    ChangeCounter,
    RequestCounter,
    Run,
    Stage,
    Work,
)
from dashboard.models.abort_lifecycle import NO_EFFECT_STATES, AbortState, EventType
from dashboard.models.aborts import insert_of_aborts, insert_of_events
from dashboard.models.bulk_aborts import Via
from dashboard.models.counters import CounterName, increment, store
from dashboard.models.runs import mark_changed
from dashboard.models.severity import Severity
from dashboard.runs import abort_clock

log = structlog.get_logger(__name__)

MAX_REASON_LENGTH = 500
# Control characters, and those that change the direction of the text around them.
_INVISIBLE_CHARACTERS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
# How long to wait for Northflank's response, from the moment an abort is marked as sent.
RESPONSE_TIMEOUT = 12.0  # seconds
# Longer by a margin for clock differences; after it the sending process is considered dead.
SEND_LEASE = timedelta(seconds=15)


class NotAllowed(Exception):
    """The user may not abort this run; the message states why, and who may."""


class NotInFlight(Exception):
    """There is nothing to abort: it has concluded, or the run was removed and dismissed."""


class ReasonMissing(Exception):
    """The stage requires a reason and none was given; the message names the stage."""


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """Who requests an abort, why, from where and how."""

    user: User | None  # None: deleted since
    reason: str = ""
    client_address: str | None = None
    via: Via = Via.PAGE
    token_name: str = ""
    permissions: Permissions | None = None  # None: the account's; a token may narrow them
    origin: str = ""  # further details on the source: shell user, machine

    deleted_username: str = ""

    @property
    def username(self) -> str:
        """The user's name."""
        return self.user.get_username() if self.user is not None else self.deleted_username

    def model_fields(self, reason: str, requested_at: datetime) -> dict[str, Any]:
        """Return the fields to store with an abort or bulk abort; `reason` is already clean."""
        return {
            "user": self.user,
            "username": self.username,
            "reason": reason,
            "client_address": self.client_address,
            "via": self.via,
            "token_name": self.token_name,
            "requested_at": requested_at,
        }


@dataclass(frozen=True, slots=True)
class AbortResult:
    """An abort, and whether the request created it or joined an open one.

    If it was recorded as sent, `request_seq` is the number of the request that sends it.
    """

    abort: Abort
    is_new: bool
    request_seq: int | None = None


def reason_required(stage: Stage) -> bool:
    """Return whether aborting a run of `stage` requires a reason."""
    return stage.name in settings.ABORT_REASON_REQUIRED


def check_reason(reason: str, stages: Iterable[Stage]) -> None:
    """Raise ReasonMissing if there is no reason, and one of the stages requires one."""
    names = {stage.name for stage in stages if reason_required(stage)}
    if names and not reason:
        template = _("A reason is required to abort runs in %(stage)s.")
        raise ReasonMissing(template % {"stage": ", ".join(sorted(names))})


def clean_reason(text: str) -> str:
    """Return a reason as one line of visible characters, cut to MAX_REASON_LENGTH."""
    return " ".join(_INVISIBLE_CHARACTERS.sub(" ", text).split())[:MAX_REASON_LENGTH]


def request_abort(
    run: Run,
    abort_request: AbortRequest,
    *,
    work: Work | None = None,
    again_of_pk: int | None = None,
    bulk_abort: BulkAbort | None = None,
    mark_sent: bool = False,
    will_be_sent: bool = True,
) -> AbortResult:
    """Record an abort of `run`, or of `work`, which it has left running; return it, not yet sent.

    Raise NotAllowed, NotInFlight or ReasonMissing. While an abort is open, the request joins it,
    and makes a pending resend due at once. If `again_of_pk` is the key of the open abort and
    `can_abort_again` holds, or if Northflank refused a resend of the open abort, that is settled
    and a new one recorded instead.

    With `mark_sent` the abort is recorded as sent in the same transaction, unless its run is read
    first (`is_run_read_first`). The caller then sends it at once, by `wait_for_response`; `run` is
    loaded with its stage. Unless `will_be_sent`, the caller settles a new abort as not sent, and
    its run is not read for it.
    """
    if reason := denied_reason(abort_request.user, run.stage, abort_request.permissions):
        log.warning(
            "abort.denied",
            run=run.run_id,
            by=abort_request.username,
            via=str(abort_request.via),
            token=abort_request.token_name,
            address=abort_request.client_address,
        )
        raise NotAllowed(reason)
    if not (work or run).in_flight:
        raise NotInFlight
    reason = clean_reason(abort_request.reason)
    check_reason(reason, [run.stage])
    replaced_pk = again_of_pk
    attempts_left = 3
    while True:
        attempts_left -= 1
        try:
            return _create_abort(
                run, work, abort_request, reason, replaced_pk, bulk_abort, mark_sent, will_be_sent
            )
        except NotInFlight:
            _reload(run)
            raise
        except IntegrityError:
            open_abort = Abort.every.open().filter(run=run, work=work).first()
            if open_abort is not None and not open_abort.is_resend_refused:
                _join_open_abort(open_abort, abort_request, reason)
                return AbortResult(open_abort, is_new=False)
            if not attempts_left:
                raise  # it has another cause
            _reload(run)
            if not (work or run).in_flight:
                raise NotInFlight from None
            # The open abort is replaced, or was settled meanwhile.
            replaced_pk = open_abort.pk if open_abort is not None else None


def _create_abort(
    run: Run,
    work: Work | None,
    abort_request: AbortRequest,
    reason: str,
    replaced_pk: int | None,
    bulk_abort: BulkAbort | None,
    mark_sent: bool,
    will_be_sent: bool,
) -> AbortResult:
    now = db_threads.now()
    with durable.atomic():  # before it is sent
        version = ChangeCounter.take(1)
        earlier_abort = _settle_replaced(run, work, abort_request, replaced_pk, now)
        if work is None:
            started_at = _update_run(run, earlier_abort, now, version, will_be_sent)
        else:
            started_at = _update_work(work, earlier_abort, now, version)
        if not (work or run).in_flight:
            raise NotInFlight
        abort = Abort(
            run=run,
            work=work,
            **abort_request.model_fields(reason, now),
            claimed_at=now,
            again_of=earlier_abort,
            bulk_abort=bulk_abort,
            already_aborting_since=started_at if started_at < now else None,
        )
        request_seq = None
        events = [AbortEvent(event_type=EventType.REQUESTED, detail=abort_request.origin)]
        if mark_sent and not is_run_read_first(abort):
            request_seq = RequestCounter.take_next()
            abort.sent_at, abort.send_count = now, 1
            events.append(AbortEvent(event_type=EventType.SENT))
        insert_of_aborts().execute(abort)
        for event in events:
            event.abort, event.occurred_at = abort, now
        insert_of_events().execute(*events)
        store([increment(CounterName.ABORTS_REQUESTED, abort.via, stage=run.stage_id)])
    log.info("abort.requested", **target.log_fields(abort), reason=abort.reason)
    return AbortResult(abort, is_new=True, request_seq=request_seq)


def _update_run(
    run: Run, earlier_abort: Abort | None, now: datetime, version: int, will_be_sent: bool
) -> datetime:
    """Store in a run that it is being aborted; return since when."""
    start = abort_clock.start(run, None)
    earlier_starts = [start.at] if start else []
    if earlier_abort is not None or run.abort_severity >= Severity.CRITICAL:
        earlier_starts += _starts_of_aborted_again(run)
    started_at = min([now, *earlier_starts])  # the clock of a run's abort never restarts
    severity = abort_severity.classify(started_at, now)
    fields: dict[str, Any] = {"version": version, "abort_severity": severity}
    if will_be_sent:
        fields["next_detail_sync_at"] = now + SEND_LEASE
    # Its status as it is now that no other can change it: it was read before.
    [(run.status, run.in_flight)] = _run_update(tuple(fields)).fetch(run=run.pk, **fields)
    return started_at


def _update_work(work: Work, earlier_abort: Abort | None, now: datetime, version: int) -> datetime:
    """Store that what a run has left running is being aborted; return since when."""
    Run.objects.filter(pk=work.run_id).update(version=version)
    started_at = now
    if earlier_abort is not None:
        started_at = earlier_abort.already_aborting_since or earlier_abort.requested_at
    Work.objects.filter(pk=work.pk).update(
        next_sync_at=now + SEND_LEASE, abort_severity=abort_severity.classify(started_at, now)
    )
    work.refresh_from_db(fields=["status", "concluded", "removed_at", "abort_severity"])
    return started_at


def _reload(run: Run) -> None:
    """Read all of a run again: what the caller shows of it must be of one time."""
    stage = run.stage
    run.refresh_from_db()
    run.stage = stage


def _starts_of_aborted_again(run: Run) -> list[datetime]:
    """Return when the abort of `run` that had no effect started, if it settled as aborted again.

    Later ones that certainly had no effect are ignored: the run is aborted again after the one
    before them, and is critical.
    """
    return [
        already_aborting_since or requested_at
        for state, already_aborting_since, requested_at in _latest_abort_query().fetch(run=run.pk)
        if state == AbortState.ABORTED_AGAIN
    ]


@cache
def _latest_abort_query() -> PreparedQuery:
    aborts = Abort.objects.filter(run=Parameter("run", BigIntegerField()))
    latest = aborts.exclude(state__in=NO_EFFECT_STATES).order_by("-pk")[:1]
    return PreparedQuery(latest.values_list("state", "already_aborting_since", "requested_at"))


@cache
def _run_update(fields: tuple[str, ...]) -> PreparedUpdate:
    run = Run.objects.filter(pk=Parameter("run", BigIntegerField()))
    return PreparedUpdate(run, returning=["status", "in_flight"], **parameters(Run, fields))


def is_run_read_first(abort: Abort) -> bool:
    """Return whether what is aborted is read before the first send, as it may have ended."""
    return abort.again_of_id is not None or abort.target.status == "aborting"


def _join_open_abort(abort: Abort, abort_request: AbortRequest, reason: str) -> None:
    """Record a request that joins an open abort: who, how, from where and why."""
    via_labels = {
        Via.PAGE: "",
        Via.API: _("API token “%(token)s”") % {"token": abort_request.token_name},
        Via.COMMAND: _("command line"),
    }
    origin = (
        via_labels[abort_request.via],
        abort_request.client_address or "",
        abort_request.origin,
    )
    origin_text = ", ".join(part for part in origin if part)
    requester = abort_request.username + (f" ({origin_text})" if origin_text else "")
    detail = f"{requester}: “{reason}”" if reason else requester
    with transaction.atomic():
        mark_changed([abort.run_id])
        if not abort.events.filter(
            event_type=EventType.JOINED, detail=detail
        ).exists():  # the same request sent twice
            abort.add_event(EventType.JOINED, db_threads.now(), detail=detail)
        # An abort that may not have arrived is due to be resent without further delay.
        unconfirmed = Abort.every.open().filter(pk=abort.pk, state=AbortState.UNKNOWN)
        unconfirmed.filter(claimed_at__lte=db_threads.now()).update(
            claimed_at=F("requested_at") - SEND_LEASE
        )
    names = target.log_fields(abort) | {"by": abort_request.username}
    log.info("abort.joined", **names, reason=reason)


def _settle_replaced(
    run: Run, work: Work | None, abort_request: AbortRequest, replaced_pk: int | None, now: datetime
) -> Abort | None:
    """Settle the abort to be replaced, if it may be; return it if the run is aborted again.

    Part of the transaction that gives the run its new version.
    """
    if replaced_pk is None:
        return None
    previous = Abort.every.open().filter(pk=replaced_pk, run=run, work=work).first()
    if previous is None:
        return None
    if can_abort_again(previous, now):
        username = abort_request.username
        is_settled = previous.apply(EventType.ABORTED_AGAIN, now, username, with_run=False)
        return previous if is_settled else None
    if previous.is_resend_refused:
        previous.apply(EventType.REFUSED, now, previous.response, with_run=False)
    return None
