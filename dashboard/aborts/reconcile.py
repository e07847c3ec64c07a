"""Reconcile open aborts: adopt those of dead processes, resend, settle, update severities."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache

import structlog
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils.translation import gettext as _

from dashboard.aborts import bulk_send, resend_policy, severity, target
from dashboard.aborts.request import SEND_LEASE
from dashboard.aborts.resend import resend_due_aborts
from dashboard.aborts.send import READ_BEFORE_TIMEOUT, send_abort
from dashboard.aborts.settle import (
    cancel_if_unwanted,
    mark_unknown,
    settle_resolved_aborts,
    settle_too_late,
)
from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.db.prepared import PreparedQuery
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Abort, BulkAbort, Run, Work
from dashboard.models.abort_lifecycle import AbortState, EventType
from dashboard.models.bulk_aborts import Via
from dashboard.models.runs import ChangeCounter, mark_changed
from dashboard.models.severity import Severity
from dashboard.northflank import NorthflankError
from dashboard.runs import abort_clock
from dashboard.runs.log_fields import run_fields
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

MAX_CONCURRENT = 8  # reconciliations in progress at the same time
# How far the time of a reconciliation may be behind that of another one, which raised a severity.
CLOCK_MARGIN = timedelta(minutes=1)

running_tasks: set[asyncio.Task[None]] = set()


async def reconcile_in_background(upstream: Connection, max_wait: float = 1.0) -> None:
    """Reconcile open aborts, waiting at most `max_wait` seconds for it to finish.

    A chore of the sync worker. A longer reconciliation continues in the background beside the next
    ones, so that a slow Northflank delays no other abort for more than `max_wait` seconds.
    """
    if len(running_tasks) >= MAX_CONCURRENT:
        return
    task = asyncio.create_task(reconcile_open_aborts(upstream))
    running_tasks.add(task)
    done_tasks, _pending = await asyncio.wait({task}, timeout=max_wait)
    if done_tasks:
        running_tasks.discard(task)
        await task  # re-raises its exception
    else:
        task.add_done_callback(_on_task_done)


async def cancel_tasks() -> None:
    """Cancel the reconciliations and bulk aborts of this process.

    Another process, or this one after a restart, continues them.
    """
    tasks = [*running_tasks, *bulk_send.running_tasks.values()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _on_task_done(task: asyncio.Task[None]) -> None:
    running_tasks.discard(task)
    error = None if task.cancelled() else task.exception()
    if error is not None and not db_health.is_outage(error):
        log.error("abort.reconcile_failed", exc_info=error)


async def reconcile_open_aborts(upstream: Connection) -> None:
    """Adopt aborts whose process died, settle or resend open ones, and update severities.

    One statement if there is nothing to do. May run concurrently, in this process and in others.
    """
    if not await run_in_db_thread(is_work_pending):
        return
    adoptable = await run_in_db_thread(claim_unanswered, db_threads.now())
    # Concurrently: in sequence they would outlive their leases while Northflank is slow.
    await asyncio.gather(*(_adopt(upstream, abort) for abort in adoptable))
    await bulk_send.adopt_bulk_aborts(upstream)
    await run_in_db_thread(settle_resolved_aborts, db_threads.now())
    await resend_due_aborts(upstream)
    await run_in_db_thread(update_severities, db_threads.now())
    await run_in_db_thread(update_work_severities, db_threads.now())


def release_all_leases() -> None:
    """Release the leases of all unsent or unanswered aborts and of all open bulk aborts.

    They are then adopted at once. Only for the start of a process that serves from the database
    alone. The command `abort` may be sending its aborts meanwhile: those keep their leases.
    """
    states = [AbortState.REQUESTED, AbortState.UNKNOWN]
    leased = Abort.every.open().filter(state__in=states).exclude(via=Via.COMMAND)
    leased.update(claimed_at=F("requested_at") - SEND_LEASE)
    BulkAbort.objects.open().update(claimed_at=F("requested_at") - bulk_send.BULK_LEASE)


def release_lease(abort: Abort) -> None:
    """Release the lease of an unsent abort, so that a worker sends it at once.

    For a process that recorded the abort and cannot send it.
    """
    unsent = Abort.every.open().filter(pk=abort.pk, state=AbortState.REQUESTED, sent_at=None)
    unsent.update(claimed_at=F("requested_at") - SEND_LEASE)


def is_work_pending() -> bool:
    """Return whether an abort is open, or the severity of a run may change with its abort."""
    return bool(_pending_work_query().fetch())


@cache
def _pending_work_query() -> PreparedQuery:
    is_aborting = Q(status="aborting", removed_at=None)
    runs = Run.objects.in_flight().filter(is_aborting | Q(abort_severity__gt=Severity.OK))
    # As a subquery: for a join, SQLite would read all aborts.
    had_abort = Exists(Abort.objects.not_arrived_or_aborted_again().filter(run=OuterRef("pk")))
    runs_that_go_on = Run.objects.tracked().filter(
        ~Q(status="aborting"), had_abort, abort_severity__lt=Severity.CRITICAL
    )
    others = (rows.values_list("pk") for rows in (BulkAbort.objects.open(), runs, runs_that_go_on))
    return PreparedQuery(Abort.every.open().values_list("pk").union(*others, all=True)[:1])


async def _adopt(upstream: Connection, abort: Abort) -> None:
    log.warning("abort.adopted", **target.log_fields(abort))
    if abort.sent_at is not None:
        # No process waits for the response any more; the sync reads the run next.
        await run_in_db_thread(abort.add_event, EventType.ADOPTED, db_threads.now())
        reason = _("The sending process stopped before Northflank responded.")
        await run_in_db_thread(mark_unknown, abort, reason)
        return
    if await run_in_db_thread(cancel_if_unwanted, abort):
        return
    request_budget = await run_in_db_thread(budget_store.load, db_threads.now())
    if request_budget.backoff_until is not None:
        log.info("abort.adoption_postponed", run=abort.run.run_id, cause="rate_limited")
        return
    try:
        found = await target.read(upstream, abort, READ_BEFORE_TIMEOUT)
    except NorthflankError as error:
        log.info("abort.adoption_postponed", run=abort.run.run_id, cause=error.cause)
        return
    await run_in_db_thread(abort.add_event, EventType.ADOPTED, db_threads.now())
    if found is None or not found.in_flight:
        await run_in_db_thread(settle_too_late, abort, found)
    else:
        # The lease leaves time for one slow read, not for a second one.
        await send_abort(upstream, abort.pk, is_run_read=True)


def claim_unanswered(now: datetime) -> list[Abort]:
    """Claim the aborts without a response whose lease has expired, and return them.

    Of those that were never sent only a few: their runs are read.
    """
    expired = Abort.every.unanswered_expired(now, SEND_LEASE)
    aborts = expired.with_target().order_by("claimed_at", "pk")
    sent_aborts = [abort for abort in aborts if abort.sent_at is not None]
    unsent_aborts = [abort for abort in aborts if abort.sent_at is None]
    return [
        abort
        for abort in sent_aborts + unsent_aborts[: resend_policy.MAX_READS]
        # Its process may have recorded a response meanwhile, late after an outage of the database.
        if expired.filter(pk=abort.pk, claimed_at=abort.claimed_at).update(claimed_at=now)
    ]


def update_severities(now: datetime) -> None:
    """Raise the severity of runs whose abort is overdue or not arrived, and lower it for others."""
    # Read first: another worker may settle an abort as not arrived, and raise its run, meanwhile.
    raised_runs = Run.objects.in_flight().filter(abort_severity__gt=Severity.OK)
    old_severities = dict(raised_runs.values_list("pk", "abort_severity"))
    severities = _severities(now)
    _raise_severities(severities)
    # A run that was aborting may continue without an abort, and one not arrived take effect late.
    lower_pks = {pk for pk, old in old_severities.items() if severities.get(pk, Severity.OK) < old}
    # Not only because `now` is earlier than that of the worker which raised it.
    later_severities = _severities(now + CLOCK_MARGIN) if lower_pks else {}
    for run_pk in sorted(lower_pks):
        if later_severities.get(run_pk, Severity.OK) >= old_severities[run_pk]:
            continue
        with transaction.atomic():
            ChangeCounter.lock()
            if raised_runs.filter(pk=run_pk, abort_severity=old_severities[run_pk]).exists():
                mark_changed([run_pk], abort_severity=severities.get(run_pk, Severity.OK))


def update_work_severities(now: datetime) -> None:
    """Raise the severity of what runs have left running, whose abort is overdue."""
    for abort in Abort.every.open().exclude(work=None).with_target():
        started_at = abort.already_aborting_since or abort.requested_at
        new_severity = severity.classify(started_at, now)
        with transaction.atomic():
            ChangeCounter.lock()  # so that only one of several workers reports it
            lower = Work.objects.filter(pk=abort.work_id or 0, abort_severity__lt=new_severity)
            if not lower.update(abort_severity=new_severity):
                continue
            mark_changed([abort.run_id])
        fields = run_fields(abort.run) | target.log_fields(abort)
        log.warning("abort.overdue", **fields, severity=new_severity.name.lower())


def _severities(now: datetime) -> dict[int, Severity]:
    """Return the severities of runs whose abort is overdue or not arrived, by the runs' keys."""
    severities = {pk: severity.classify(at, now) for pk, at in _overdue_since(now).items()}
    return severities | dict.fromkeys(_runs_that_go_on(now), Severity.CRITICAL)


def _overdue_since(now: datetime) -> dict[int, datetime]:
    """Return since when the aborts of runs that are overdue are under way, by the runs' keys."""
    open_aborts = (
        Abort.objects.open().filter(run__in_flight=True, run__removed_at=None).select_related("run")
    )
    abort_by_run = {abort.run_id: abort for abort in open_aborts.defer("run__steps")}
    # Aborts requested elsewhere can be overdue as well.
    aborting = Run.objects.tracked().filter(status="aborting").without_detail()
    runs = {run.pk: run for run in aborting} | {pk: abort.run for pk, abort in abort_by_run.items()}
    start_by_run = {pk: abort_clock.start(run, abort_by_run.get(pk)) for pk, run in runs.items()}
    warning_cutoff = now - severity.threshold(Severity.WARNING)
    return {
        pk: start.at
        for pk, start in start_by_run.items()
        if start is not None and start.at <= warning_cutoff
    }


def _raise_severities(severities: Mapping[int, Severity]) -> None:
    """Raise the severity of runs, by key; those with the same or a higher one are left alone."""
    for run in Run.objects.filter(pk__in=severities).with_stage().without_detail():
        new_severity = severities[run.pk]
        if new_severity <= run.abort_severity:
            continue
        with transaction.atomic():
            ChangeCounter.lock()  # so that only one of several workers reports it
            lower = Run.objects.in_flight().filter(pk=run.pk, abort_severity__lt=new_severity)
            if not lower.exists():  # or the run has ended meanwhile
                continue
            mark_changed([run.pk], abort_severity=new_severity)
        log.warning("abort.overdue", **run_fields(run), severity=new_severity.name.lower())


def _runs_that_go_on(now: datetime) -> set[int]:
    """Return the keys of runs that go on after an abort that is not resent any more."""
    running = Run.objects.tracked().exclude(status="aborting")
    unconfirmed_aborts = Abort.objects.open().filter(state=AbortState.UNKNOWN, run__in=running)
    exhausted_run_pks = {
        abort.run_id  # not settled yet: the run has not been read since
        for abort in unconfirmed_aborts
        if resend_policy.is_exhausted(0, abort.first_sent_at, now)
    }
    # Last: another worker may settle one of those as not arrived meanwhile.
    settled_aborts = Abort.objects.not_arrived_or_aborted_again().filter(run__in=running)
    return exhausted_run_pks | set(settled_aborts.values_list("run_id", flat=True))
