"""Settle an abort: by a refusal, by the status of its run, or because it is no longer wanted."""

from datetime import datetime, timedelta
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _

from dashboard.aborts import resend_policy, target
from dashboard.aborts.abort_rules import denied_reason
from dashboard.db import threads as db_threads
from dashboard.models import Abort, ChangeCounter, Run, Work
from dashboard.models.abort_lifecycle import AbortState, EventType, event_of_run
from dashboard.models.runs import mark_changed
from dashboard.models.severity import Severity
from dashboard.northflank import AccessDenied, NorthflankError
from dashboard.runs.log_fields import run_fields

log = structlog.get_logger(__name__)

# How long after its request an abort left unsent by a dead process is still sent; later it would
# come as a surprise.
SEND_DEADLINE = timedelta(minutes=5)


def cancel_if_unwanted(abort: Abort) -> bool:
    """Settle an unsent abort that is too old or no longer allowed; return whether it is.

    One that another process has sent meanwhile stays as it is.
    """
    reason = _cancel_reason(abort)
    if not reason:
        return False
    now = db_threads.now()
    if abort.apply(EventType.NOT_SENT, now, reason, of_this_send=True):
        log.warning("abort.cancelled", **target.log_fields(abort), why=reason)
    return True


def _cancel_reason(abort: Abort) -> str:
    """Return why an unsent abort should not be sent now; empty if it should."""
    if is_past_deadline(abort.requested_at, db_threads.now()):
        return _("Sending timed out.")
    return _denied_reason(abort)


def is_past_deadline(requested_at: datetime, now: datetime) -> bool:
    """Return whether an unsent abort, or bulk abort, was requested longer ago than SEND_DEADLINE.

    Also if by the clock that is far in the future: it was set back, by an unknown time since.
    """
    return abs(now - requested_at) > SEND_DEADLINE


def no_resend_reason(abort: Abort, now: datetime) -> str:
    """Return why an abort that may not have arrived is not resent; empty if it is."""
    if abort.response_status is not None:  # to an earlier resend
        return abort.response
    if abort.send_count >= resend_policy.MAX_SENDS:
        return _("Already sent %(n)d times.") % {"n": abort.send_count}
    if resend_policy.is_exhausted(abort.send_count, abort.first_sent_at, now):
        return _("The time limit for resending has passed.")
    return _denied_reason(abort)


def _denied_reason(abort: Abort) -> str:
    user = User.objects.filter(aborts=abort).first()  # read again, as the account may have changed
    return str(denied_reason(user, abort.run.stage))


def record_not_sent(abort: Abort, error: NorthflankError) -> None:
    """Settle an abort that did not reach Northflank, with the time at which it may be repeated."""
    now, wait = db_threads.now(), error.retry_after_seconds
    retry_at = None if wait is None else now + timedelta(seconds=wait)
    _record_response(abort, EventType.NOT_SENT, error, now=now, retry_at=retry_at)


def record_refused(abort: Abort, found: Run | Work | None, error: NorthflankError) -> None:
    """Record a refusal, unless what is aborted, read after it, has ended or is aborting.

    `found` is None if Northflank no longer has it. After the refusal of a resend the abort stays
    open, since an earlier send may have arrived: later reads decide.
    """
    is_resend = abort.send_count > 1
    if found is None or found.concluded:  # an earlier send may have aborted it
        event_type = EventType.CONCLUDED if is_resend else EventType.TOO_LATE
        _record_response(abort, event_type, error, detail=found.status if found is not None else "")
    elif found.status == "aborting" and (is_resend or not isinstance(error, AccessDenied)):
        _record_response(abort, EventType.ABORTING, error, detail="")
    elif not is_resend:
        _record_response(abort, EventType.REFUSED, error)
    elif not has_response(abort):
        _record_response(abort, EventType.UNKNOWN, error)


def settle_too_late(abort: Abort, found: Run | Work | None) -> None:
    """Settle an unsent abort that came too late; `found` is None if Northflank did not know it."""
    outcome = found.status if found is not None else ""
    if abort.apply(EventType.TOO_LATE, db_threads.now(), outcome, of_this_send=True):
        _log_effect(abort)


def _record_response(
    abort: Abort,
    event_type: EventType,
    error: NorthflankError,
    *,
    detail: str | None = None,
    now: datetime | None = None,
    **fields: Any,
) -> None:
    """Apply what a response means, and store it; it came too late if the abort has moved on."""
    now, response = now or db_threads.now(), str(error)
    fields |= {
        "responded_at": now if error.http_status else None,
        "response": response,
        "response_status": error.http_status,
        "error_id": error.error_id or "",
    }
    with transaction.atomic():
        is_recorded = abort.apply(
            event_type, now, response if detail is None else detail, of_this_send=True, **fields
        )
        if not is_recorded and not has_response(abort):
            abort.add_event(EventType.LATE_RESPONSE, now, detail=response)
    if is_recorded:
        _log_effect(abort)


def has_response(abort: Abort) -> bool:
    """Return whether the response to the latest send is stored already.

    Then the reply to that commit was lost, and the work runs for a second time.
    """
    stored_responses = Abort.every.filter(pk=abort.pk, responded_at__gte=abort.sent_at)
    response_events = abort.events.filter(
        event_type__in=[EventType.NOT_SENT, EventType.LATE_RESPONSE],
        occurred_at__gte=abort.sent_at,
    )
    return stored_responses.exists() or response_events.exists()


def mark_unknown(abort: Abort, reason: str, error_id: str = "") -> None:
    """Record that it is unknown whether an abort arrived, and have what is aborted read next.

    The delay before the next send starts now.
    """
    now = db_threads.now()
    with transaction.atomic():
        target.mark_abort_changed(abort, read_at=now)
        is_recorded = abort.apply(
            EventType.UNKNOWN,
            now,
            reason,
            of_this_send=True,
            with_run=False,
            error_id=error_id,
            claimed_at=now,
        )
    if is_recorded:
        _log_effect(abort)


def _log_effect(abort: Abort) -> None:
    """Log how an abort stands that ended without an effect, or may not have arrived."""
    fields = target.log_fields(abort)
    if abort.settled_at is None and abort.state == AbortState.UNKNOWN:
        log.warning("abort.unknown", **fields, why=abort.response)
    elif abort.settled_at is not None:
        log.warning("abort.settled", state=str(abort.state), **fields, response=abort.response)


def settle_resolved_aborts(now: datetime) -> None:
    """Settle or accept open aborts by the status of what is aborted, also those not arrived.

    Usually the mirror has done so already (`Abort.apply_run_status`).
    """
    sent_aborts = Abort.every.open().exclude(state=AbortState.REQUESTED)
    for abort in sent_aborts.with_target():
        found = abort.target
        if event_type := event_of_run(abort.state, status=found.status, in_flight=found.in_flight):
            # Removed and dismissed, it has not concluded: how it ended is unknown.
            abort.apply(event_type, now, found.status if found.concluded else "")
        elif (
            abort.state == AbortState.UNKNOWN
            and found.synced_at - (abort.sent_at or abort.requested_at)
            > resend_policy.NOT_ARRIVED_AFTER
            and (reason := no_resend_reason(abort, now))
        ):
            if abort.response_status is None:
                mark_not_arrived(abort, reason, now)
            elif abort.apply(EventType.REFUSED, now, abort.response, of_this_send=True):
                _log_effect(abort)


def mark_not_arrived(abort: Abort, reason: str, now: datetime) -> None:
    """Settle an abort that has not arrived and is not resent; if of a run, that is critical."""
    with transaction.atomic():
        ChangeCounter.lock()
        is_settled = abort.apply(
            EventType.NOT_ARRIVED, now, reason, of_this_send=True, with_run=False
        )
        if is_settled:
            severity = {} if abort.work_id else {"abort_severity": Severity.CRITICAL}
            mark_changed([abort.run_id], **severity)
    if is_settled:
        log.warning("abort.not_arrived", **run_fields(abort.run) | target.log_fields(abort))
