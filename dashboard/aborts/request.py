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
from dashboard.aborts.severity import Severity
from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, BulkAbort, Run, Stage
from dashboard.models.aborts import AbortState, EventType
from dashboard.models.bulk_aborts import Via
from dashboard.models.runs import mark_changed
from dashboard.runs import abort_clock

log = structlog.get_logger(__name__)

MAX_REASON_LENGTH = 500
# Control characters, and those that turn the direction of the text around them.
_INVISIBLE_CHARACTERS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
# So long Northflank is waited for, from the moment at which an act was marked as sent.
RESPONSE_TIMEOUT = 12.0  # seconds
# Longer than that, by what clocks may differ: past it, the sending process is taken for dead.
SEND_LEASE = timedelta(seconds=15)


class NotAllowed(Exception):
    """The person may not abort this run; the message says why, and who may."""


class NotInFlight(Exception):
    """There is nothing to abort: the run has concluded, or Northflank knows it no more."""


class ReasonMissing(Exception):
    """Aborting there takes a reason, and none was given; the message says so."""


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """Who asks for an abort, why, and by which way."""

    user: User
    reason: str = ""
    client_address: str | None = None
    via: Via = Via.PAGE
    token_name: str = ""
    permissions: Permissions | None = None  # less than the account's, where a token narrows them
    origin: str = ""  # what else is known of it: whose shell, on which machine

    def model_fields(self, reason: str, requested_at: datetime) -> dict[str, Any]:
        """Return what is kept of it in an act or a list (AskedFor), with its clean reason."""
        return {
            "user": self.user,
            "username": self.user.get_username(),
            "reason": reason,
            "client_address": self.client_address,
            "via": self.via,
            "token_name": self.token_name,
            "requested_at": requested_at,
        }


@dataclass(frozen=True, slots=True)
class AbortResult:
    """An abort, and whether this press made it or joined one that was under way."""

    abort: Abort
    is_new: bool


def reason_required(stage: Stage) -> bool:
    """Say whether aborting a run of `stage` takes a reason."""
    return stage.name in settings.ABORT_REASON_REQUIRED


def clean_reason(text: str) -> str:
    """Return a reason as it is kept: one line of limited length that reads as it was written."""
    return " ".join(_INVISIBLE_CHARACTERS.sub(" ", text).split())[:MAX_REASON_LENGTH]


def can_retry(abort: Abort, now: datetime) -> bool:
    """Say whether an open abort is so long overdue that a new one makes sense."""
    if not abort.is_awaiting_northflank:
        return False
    current = max(abort.run.abort_severity, abort_severity.classify(abort.requested_at, now))
    return current >= Severity.CRITICAL


def request_abort(
    run: Run,
    abort_request: AbortRequest,
    *,
    retry_of_pk: int | None = None,
    bulk_abort: BulkAbort | None = None,
) -> AbortResult:
    """Write down that somebody wants `run` aborted, before anything is sent.

    Raises NotAllowed, NotInFlight and ReasonMissing. A press while an abort is open joins that one
    (and hurries it, if it has to be sent again), unless it says that this abort (`again`, its key)
    is to be tried again and its time has come.
    """
    permission = (
        abort_request.permissions or permissions.for_user(abort_request.user)
    ).abort_permission(run.stage)
    if not permission.allowed:
        log.warning(
            "abort.denied",
            run=run.run_id,
            by=abort_request.user.get_username(),
            via=str(abort_request.via),
            token=abort_request.token_name,
            address=abort_request.client_address,
        )
        raise NotAllowed(permission.denied_reason)
    if not run.in_flight:
        raise NotInFlight
    reason = clean_reason(abort_request.reason)
    if not reason and reason_required(run.stage):
        template = _("Aborting a run in %(stage)s takes a reason.")
        raise ReasonMissing(template % {"stage": run.stage.name})
    try:
        return _create_abort(run, abort_request, reason, retry_of_pk, bulk_abort)
    except IntegrityError:
        open_abort = Abort.objects.open().filter(run=run).first()
        if open_abort is not None:
            _join_open_abort(open_abort, abort_request, reason)
            return AbortResult(open_abort, is_new=False)
        run.refresh_from_db(fields=["in_flight"])
        if not run.in_flight:
            raise NotInFlight from None
        # What was under way has settled this instant; a second refusal has another cause.
        return _create_abort(run, abort_request, reason, None, bulk_abort)


def _create_abort(
    run: Run,
    abort_request: AbortRequest,
    reason: str,
    retry_of_pk: int | None,
    bulk_abort: BulkAbort | None,
) -> AbortResult:
    now = db_threads.now()
    with transaction.atomic():
        retried = _settle_retried(run, abort_request, retry_of_pk, now)
        start = abort_clock.start(run, None)
        earlier_starts = [start.at] if start else []
        if retried is not None:
            earlier_starts.append(retried.already_aborting_since or retried.requested_at)
        started_at = min([now, *earlier_starts])  # its clock does not begin anew
        mark_changed(
            [run.pk],
            next_detail_sync_at=now + SEND_LEASE,
            abort_severity=abort_severity.classify(started_at, now),
        )
        abort = Abort.objects.create(
            run=run,
            **abort_request.model_fields(reason, now),
            claimed_at=now,
            retry_of=retried,
            bulk_abort=bulk_abort,
            already_aborting_since=started_at if started_at < now else None,
        )
        abort.add_event(EventType.REQUESTED, now, detail=abort_request.origin)
    log.info("abort.requested", run=run.run_id, by=abort.username, reason=abort.reason)
    return AbortResult(abort, is_new=True)


def _join_open_abort(abort: Abort, abort_request: AbortRequest, reason: str) -> None:
    """Keep a press that joins an act under way: who, by which way, from where and why."""
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
    requester = abort_request.user.get_username() + (f" ({origin_text})" if origin_text else "")
    detail = f"{requester}: “{reason}”" if reason else requester
    with transaction.atomic():
        mark_changed([abort.run_id])
        if not abort.events.filter(
            event_type=EventType.JOINED, detail=detail
        ).exists():  # pressed twice
            abort.add_event(EventType.JOINED, db_threads.now(), detail=detail)
        # One that may not have arrived rests no longer before it is sent again.
        unconfirmed = Abort.objects.open().filter(pk=abort.pk, state=AbortState.UNKNOWN)
        unconfirmed.filter(claimed_at__lte=db_threads.now()).update(
            claimed_at=F("requested_at") - SEND_LEASE
        )
    log.info(
        "abort.joined", run=abort.run.run_id, by=abort_request.user.get_username(), reason=reason
    )


def _settle_retried(
    run: Run, abort_request: AbortRequest, retry_of_pk: int | None, now: datetime
) -> Abort | None:
    """Settle the abort that is tried again, where there is one to give up, and return it."""
    if retry_of_pk is None:
        return None
    previous = Abort.objects.open().filter(pk=retry_of_pk, run=run).first()
    if previous is None or not can_retry(previous, now):
        return None
    username = abort_request.user.get_username()
    is_settled = previous.transition(
        AbortState.TRIED_AGAIN, EventType.TRIED_AGAIN, now, detail=username, settled_at=now
    )
    return previous if is_settled else None
