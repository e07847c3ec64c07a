"""Mark overdue runs: store each new severity once, with a new version of the run.

A run becomes overdue by time alone, without any read, so only this check updates open pages. Lists
of runs have no steps: those of runs that nobody watches are read again here, before a new mark that
depends on them.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Q

from dashboard.models import ChangeCounter, Run, StageTiming
from dashboard.models.runs import mark_changed
from dashboard.models.severity import Severity
from dashboard.runs import overdue, steps
from dashboard.runs.log_fields import run_fields
from dashboard.runs.overdue import Finding, OverdueReason, Timer

log = structlog.get_logger(__name__)

CHECK_INTERVAL = 5.0  # seconds; each check decodes the steps of all runs in flight
# Steps read longer ago are read again before a run is marked for them; the mark waits this long.
FRESH_STEPS_AGE = timedelta(minutes=2)
MAX_WAIT_FOR_STEPS = timedelta(minutes=1)

_STEP_REASONS = {OverdueReason.STEP, OverdueReason.APPROVAL, OverdueReason.NO_PROGRESS}


def _needs_approval_detail(run: Run) -> bool:
    """Return whether the steps may show a longer approval wait than the run's status does."""
    is_first_status = run.status == "approval_wait" and run.status_since <= run.first_synced_at
    is_unread = run.detail_synced_at is None and run.next_detail_sync_at is None
    return is_first_status and is_unread and run.removed_at is None


def check_runs(now: datetime) -> None:
    """Update the overdue severity and reason of all runs in flight as of `now`."""
    in_flight_runs = list(Run.objects.tracked().with_stage().defer("description"))
    stages = {run.stage_id for run in in_flight_runs}
    timings = {timing.stage_id: timing for timing in StageTiming.objects.filter(stage__in=stages)}
    findings: dict[int, Finding | None] = {}
    stuck_since: dict[int, datetime] = {}  # creation of the oldest stuck run, by stage
    for run in in_flight_runs:
        with _logged(run):
            finding = findings[run.pk] = _find(run, timings.get(run.stage_id), now)
            if overdue.is_stuck(run, finding, now):
                since = stuck_since.get(run.stage_id, run.created_at)
                stuck_since[run.stage_id] = min(since, run.created_at)
    for run in in_flight_runs:
        if run.pk not in findings:
            continue
        with _logged(run):
            finding = findings[run.pk]
            if overdue.is_blocked(run, finding, stuck_since.get(run.stage_id)):
                finding = Finding(Severity.OK, OverdueReason.BLOCKED)
            _mark(run, finding, now)


@contextmanager
def _logged(run: Run) -> Iterator[None]:
    """Log a defect in checking one run: it must not stop the others."""
    try:
        yield
    except (DatabaseError, InterfaceError):
        raise
    except Exception:
        log.exception("overdue_check.crashed", run=run.run_id)


def _request_details(run_keys: Collection[int], now: datetime) -> None:
    with transaction.atomic():
        ChangeCounter.lock()
        # A detail scheduled for later is moved up; one being read (leased) is left alone.
        not_scheduled = Q(next_detail_sync_at=None) | Q(next_detail_sync_at__gt=now)
        Run.objects.filter(not_scheduled, pk__in=run_keys).update(next_detail_sync_at=now)


def _waits_for_steps(run: Run, finding: Finding, now: datetime) -> bool:
    """Return whether to read a run's steps again before it is marked with this finding.

    Without a read within MAX_WAIT_FOR_STEPS after it was due, the run is marked by what is known.
    """
    if finding.reason not in _STEP_REASONS or run.detail_synced_at is None or run.failures:
        return False
    if now - run.detail_synced_at < FRESH_STEPS_AGE:
        return False
    due_at = run.next_detail_sync_at
    return due_at is None or now - due_at < MAX_WAIT_FOR_STEPS


def _store_approval_start(run: Run, timers: Iterable[Timer]) -> None:
    approvals = (timer.started_at for timer in timers if timer.reason is OverdueReason.APPROVAL)
    approval_since = next(approvals, None)
    if approval_since == run.approval_since:
        return
    is_another = run.approval_since is not None
    run.approval_since = approval_since
    if approval_since is None or is_another:
        # Without a new version: rows ask only whether there is one, and when it goes, the steps or
        # the status have given the run a new version.
        unchanged = Run.objects.filter(pk=run.pk, version=run.version)
        unchanged.update(approval_since=approval_since)
        return
    with transaction.atomic():  # the run can be acknowledged from now on, as its page shows
        ChangeCounter.lock()
        if Run.objects.filter(pk=run.pk, version=run.version).exists():  # else it has changed
            mark_changed([run.pk], approval_since=approval_since)
            run.refresh_from_db(fields=["version"])  # the rest of the check is of this version


def _find(run: Run, timing: StageTiming | None, now: datetime) -> Finding | None:
    """Return what is most overdue of a run, and request the reads that would tell more."""
    if _needs_approval_detail(run):
        _request_details([run.pk], now)
    root = steps.decode(run.steps)
    timers = overdue.timers(run, root, timing)
    _store_approval_start(run, timers)
    return overdue.worst_finding(run, root, timers, now)


def _mark(run: Run, finding: Finding | None, now: datetime) -> None:
    """Store how overdue a run is, unless it was read since, or its steps are to be read before."""
    severity, reason = (finding.severity, str(finding.reason)) if finding else (Severity.OK, "")
    if (severity, reason) == (run.overdue_severity, run.overdue_reason):
        return
    if finding and severity >= run.overdue_severity and _waits_for_steps(run, finding, now):
        if run.next_detail_sync_at is None or run.next_detail_sync_at > now:
            _request_details([run.pk], now)
        return
    with transaction.atomic():
        ChangeCounter.lock()  # a concluded run must not be marked
        if not Run.objects.filter(pk=run.pk, version=run.version).exists():
            return  # it has changed, or another worker has marked it: the next check decides
        since = {"overdue_since": now} if severity and not run.overdue_severity else {}
        mark_changed([run.pk], overdue_severity=severity, overdue_reason=reason, **since)
        if (
            severity > run.overdue_severity
            and run.next_detail_sync_at is None
            and run.removed_at is None
            and (run.detail_synced_at is None or now - run.detail_synced_at >= FRESH_STEPS_AGE)
        ):
            # One read shows the current step.
            Run.objects.filter(pk=run.pk).update(next_detail_sync_at=now)
    if finding and severity > run.overdue_severity:
        log.warning(
            "run.overdue",
            **run_fields(run),
            reason=finding.reason.name.lower(),  # as in the API
            critical=severity is Severity.CRITICAL,
        )
