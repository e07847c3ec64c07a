"""Marks the runs that have become overdue: each gets its level once, and a new version with it.

Time alone makes a run overdue, so nothing else would have open pages hear of it.
"""

from datetime import datetime
from time import monotonic

import msgspec
import structlog
from django.db import DatabaseError, InterfaceError, transaction

from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import ChangeCounter, Run, StageTiming
from dashboard.models.runs import mark_changed
from dashboard.models.typical_duration import MIN_SAMPLES, Severity
from dashboard.northflank import Node
from dashboard.runs import overdue
from dashboard.sync import baselines, schedule
from dashboard.upstream.connection import Connection

log = structlog.get_logger(__name__)

CHECK_INTERVAL = 5.0  # seconds; each look decodes the steps of all runs in flight


class OverdueChecker:
    """A chore of the sync's worker: judges all runs in flight every few seconds."""

    def __init__(self) -> None:
        self._next_check = 0.0

    async def __call__(self, _: Connection) -> None:
        if monotonic() < self._next_check:
            return
        self._next_check = monotonic() + CHECK_INTERVAL
        await run_in_db_thread(check_runs, db_threads.now())


def _is_watched(run: Run, now: datetime) -> bool:
    return run.last_viewed_at is not None and now - run.last_viewed_at < schedule.WATCHED_FOR


def _needs_approval_detail(run: Run) -> bool:
    """Say whether people may have kept a run waiting for longer than is known without its steps."""
    is_first_status = run.status == "approval_wait" and run.status_since <= run.first_synced_at
    is_unread = run.detail_synced_at is None and run.next_detail_sync_at is None
    return is_first_status and is_unread and run.removed_at is None


def check_runs(now: datetime) -> None:
    """Judge all runs in flight by the time `now`."""
    in_flight_runs = list(
        Run.objects.tracked().select_related("stage").defer("raw", "description").order_by("pk")
    )
    stages = {run.stage_id for run in in_flight_runs}
    timings = {timing.stage_id: timing for timing in StageTiming.objects.filter(stage__in=stages)}
    for run in in_flight_runs:
        try:
            _check_run(run, timings.get(run.stage_id), now)
        except (DatabaseError, InterfaceError):
            raise
        except (
            Exception
        ):  # a defect in judging one run must neither stop the others nor pass unseen
            log.exception("overdue_check.crashed", run=run.run_id)


def _check_run(run: Run, timing: StageTiming | None, now: datetime) -> None:
    if (
        _is_watched(run, now)
        and timing
        and timing.detail_count < MIN_SAMPLES <= timing.success_count
    ):
        # Somebody will ask which step takes longer than usual, and waits.
        baselines.request_details(run.stage_id, now)
    if _needs_approval_detail(run):
        Run.objects.filter(pk=run.pk, next_detail_sync_at=None).update(next_detail_sync_at=now)
    root = msgspec.convert(run.steps, Node) if run.steps is not None else None
    finding = overdue.worst_finding(run, root, timing, now)
    severity, reason = (finding.severity, str(finding.reason)) if finding else (Severity.OK, "")
    if (severity, reason) == (run.overdue_severity, run.overdue_reason):
        return
    with transaction.atomic():
        ChangeCounter.reserve(0)  # the mirror waits: a run that has ended keeps no mark
        if not Run.objects.in_flight().filter(pk=run.pk).exists():
            return
        mark_changed([run.pk], overdue_severity=severity, overdue_reason=reason)
        if (
            severity > run.overdue_severity
            and run.next_detail_sync_at is None
            and run.removed_at is None
        ):
            # One request says at which step it is.
            Run.objects.filter(pk=run.pk).update(next_detail_sync_at=now)
    if severity > run.overdue_severity:
        log.warning(
            "run.overdue", run=run.run_id, reason=reason, critical=severity is Severity.CRITICAL
        )
