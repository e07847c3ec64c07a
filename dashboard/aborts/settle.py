"""Settle an abort: by a refusal, by the status of its run, or because it is no longer wanted."""

from datetime import datetime, timedelta
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _

from dashboard.aborts import resend_policy
from dashboard.accounts import permissions
from dashboard.db import clock_jumps
from dashboard.db import threads as db_threads
from dashboard.models import Abort, ChangeCounter, Run
from dashboard.models.aborts import AbortState, EventType
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
    is_cancelled = abort.transition(
        AbortState.NOT_SENT,
        EventType.NOT_SENT,
        now,
        detail=reason,
        send_number=abort.send_count,
        answer=reason,
        settled_at=now,
    )
    if is_cancelled:
        log.warning("abort.cancelled", run=abort.run.run_id, by=abort.username, why=reason)
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
    if abort.answer_status is not None:  # to an earlier resend
        return abort.answer
    if abort.send_count >= resend_policy.MAX_SENDS:
        return _("Already sent %(n)d times.") % {"n": abort.send_count}
    if resend_policy.is_exhausted(abort.send_count, abort.first_sent_at, now):
        return _("The time limit for resending has passed.")
    return _denied_reason(abort)


def _denied_reason(abort: Abort) -> str:
    user = User.objects.filter(aborts=abort).first()  # read again, as the account may have changed
    denied_reason = account_denied_reason(user)
    if user is None or denied_reason:
        return denied_reason
    return str(permissions.abort_permission(user, abort.run.stage).denied_reason)


def account_denied_reason(user: User | None) -> str:
    """Return why an account that requested an abort can't abort any run now; empty if it can.

    `user` is None if it was deleted.
    """
    if user is None:
        return _("The requesting account was deleted.")
    return "" if user.is_active else _("The requesting account is inactive.")


def record_not_sent(abort: Abort, error: NorthflankError) -> None:
    """Settle an abort that did not reach Northflank, with the time at which it may be repeated."""
    now = db_threads.now()
    retry_at = (
        now + timedelta(seconds=error.retry_after_seconds)
        if error.retry_after_seconds is not None
        else None
    )
    _settle(abort, AbortState.NOT_SENT, EventType.NOT_SENT, error, now, retry_at=retry_at)


def record_refused(abort: Abort, run: Run | None, error: NorthflankError) -> None:
    """Record a refusal, unless `run`, read after it, has ended or is aborting.

    `run` is None if Northflank no longer has it. After the refusal of a resend the abort stays
    open, since an earlier send may have arrived: later reads of the run decide.
    """
    now = db_threads.now()
    is_over = run is None or run.concluded
    is_resend = abort.send_count > 1
    if is_over and not is_resend:
        settle_too_late(abort, run, error)
    elif is_over:  # an earlier send may have aborted it
        _settle_concluded(abort, run, error, now)
    elif (
        run is not None
        and run.status == "aborting"
        and (is_resend or not isinstance(error, AccessDenied))
    ):
        abort.transition(
            AbortState.ACCEPTED,
            EventType.ABORTING,
            now,
            send_number=abort.send_count,
            answered_at=now,
            answer=str(error),
            answer_status=error.http_status,
            error_id=error.error_id or "",
        )
    elif not is_resend:
        _settle(abort, AbortState.REFUSED, EventType.REFUSED, error, now)
    elif not has_answer(abort) and _record_answer(
        abort, AbortState.UNKNOWN, EventType.UNKNOWN, error, now
    ):
        _log_unknown(abort)


def _settle_concluded(abort: Abort, run: Run | None, error: NorthflankError, now: datetime) -> None:
    outcome = run.status if run is not None else ""
    _settle(
        abort,
        AbortState.CONCLUDED,
        EventType.CONCLUDED,
        error,
        now,
        detail=outcome,
        outcome=outcome,
    )


def settle_too_late(abort: Abort, run: Run | None, error: NorthflankError | None = None) -> None:
    """Settle an abort that came too late; `run` is None if Northflank no longer knew it."""
    outcome = run.status if run is not None else ""
    _settle(
        abort,
        AbortState.TOO_LATE,
        EventType.TOO_LATE,
        error,
        db_threads.now(),
        detail=outcome,
        outcome=outcome,
    )


def _settle(
    abort: Abort,
    state: AbortState,
    event_type: EventType,
    error: NorthflankError | None,
    now: datetime,
    *,
    detail: str | None = None,
    **fields: Any,
) -> None:
    if _record_answer(
        abort, state, event_type, error, now, detail=detail, settled_at=now, **fields
    ):
        _log_settled(abort)


def _record_answer(
    abort: Abort,
    state: AbortState,
    event_type: EventType,
    error: NorthflankError | None,
    now: datetime,
    *,
    detail: str | None = None,
    **fields: Any,
) -> bool:
    """Move an abort to `state` with its answer; return False if it had settled or was resent."""
    answer = str(error) if error is not None else ""
    with transaction.atomic():
        mark_changed([abort.run_id])
        is_recorded = abort.transition_with_run(
            state,
            event_type,
            now,
            detail=answer if detail is None else detail,
            send_number=abort.send_count,
            answered_at=now if error is not None and error.http_status else None,
            answer=answer,
            answer_status=error.http_status if error is not None else None,
            error_id=(error.error_id or "") if error is not None else "",
            **fields,
        )
        if not is_recorded and not has_answer(abort):
            abort.add_event(EventType.ANSWERED_LATE, now, detail=answer)
    return is_recorded


def has_answer(abort: Abort) -> bool:
    """Return whether the answer to the latest send is stored already.

    Then the reply to that commit was lost, and the work runs for a second time.
    """
    stored_answers = Abort.objects.filter(pk=abort.pk, answered_at__gte=abort.sent_at)
    answer_events = abort.events.filter(
        event_type__in=[EventType.NOT_SENT, EventType.ANSWERED_LATE],
        occurred_at__gte=abort.sent_at,
    )
    return stored_answers.exists() or answer_events.exists()


def conclude(abort: Abort, run: Run, now: datetime) -> None:
    """Settle an abort whose run is no longer in flight, with the status in which that ended."""
    outcome = run.status if run.concluded else ""  # removed: how it ended is unknown
    abort.transition(
        AbortState.CONCLUDED,
        EventType.CONCLUDED,
        now,
        detail=outcome,
        outcome=outcome,
        settled_at=now,
    )


def mark_unknown(abort: Abort, reason: str, error_id: str = "") -> None:
    """Record that it is unknown whether an abort arrived, and have its run read next.

    The delay before the next send starts now.
    """
    now = db_threads.now()
    with transaction.atomic():
        mark_changed([abort.run_id], next_detail_sync_at=now)
        is_recorded = abort.transition_with_run(
            AbortState.UNKNOWN,
            EventType.UNKNOWN,
            now,
            detail=reason,
            send_number=abort.send_count,
            answer=reason,
            error_id=error_id,
            claimed_at=now,
        )
    if is_recorded:
        _log_unknown(abort)


def _log_unknown(abort: Abort) -> None:
    log.warning("abort.unknown", run=abort.run.run_id, by=abort.username, why=abort.answer)


def settle_resolved_aborts(now: datetime) -> None:
    """Settle or accept open aborts by the status of their runs, also those not arrived.

    Usually the mirror has done so already (`Abort.apply_run_status`).
    """
    sent_aborts = Abort.objects.open().exclude(state=AbortState.REQUESTED)
    for abort in sent_aborts.select_related("run__stage__pipeline__project"):
        run = abort.run
        if not run.in_flight:
            conclude(abort, run, now)
        elif abort.state == AbortState.ACCEPTED:
            continue
        elif run.status == "aborting":
            abort.transition(AbortState.ACCEPTED, EventType.ABORTING, now)
        elif (
            run.synced_at - (abort.sent_at or abort.requested_at) > resend_policy.NOT_ARRIVED_AFTER
            and clock_jumps.is_steady(resend_policy.NOT_ARRIVED_AFTER)
            and (reason := no_resend_reason(abort, now))
        ):
            if abort.answer_status is None:
                mark_not_arrived(abort, reason, now)
            else:
                _settle_refused_resend(abort, now)


def _settle_refused_resend(abort: Abort, now: datetime) -> None:
    is_settled = abort.transition(
        AbortState.REFUSED,
        EventType.REFUSED,
        now,
        detail=abort.answer,
        send_number=abort.send_count,
        settled_at=now,
    )
    if is_settled:
        _log_settled(abort)


def _log_settled(abort: Abort) -> None:
    log.warning(
        "abort.settled",
        state=str(abort.state),
        run=abort.run.run_id,
        by=abort.username,
        answer=abort.answer,
    )


def mark_not_arrived(abort: Abort, reason: str, now: datetime) -> None:
    """Settle an abort that has not arrived and is not resent; its run becomes critical."""
    with transaction.atomic():
        ChangeCounter.lock()
        is_settled = abort.transition_with_run(
            AbortState.UNKNOWN,
            EventType.NOT_ARRIVED,
            now,
            detail=reason,
            send_number=abort.send_count,
            settled_at=now,
        )
        if is_settled:
            mark_changed([abort.run_id], abort_severity=Severity.CRITICAL)
    if is_settled:
        log.warning("abort.not_arrived", **run_fields(abort.run), by=abort.username)
