"""Mark overdue runs: store each new severity once, with a new version of the run.

A run becomes overdue by time alone, without any read, so only this check updates open pages. Lists
of runs have no steps: those of runs that nobody watches are read again here, before a new mark that
depends on them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from operator import attrgetter

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
# Earlier runs that are looked at for the end of the one that a queued run has waited for. The
# newest may have been aborted in the queue, long before the one in front of it ended.
MAX_EARLIER_RUNS = 20

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
    _store_turns(in_flight_runs)
    findings: dict[int, Finding | None] = {}
    oldest_stuck: dict[int, Run] = {}  # by stage
    for run in in_flight_runs:
        with _logged(run):
            finding = findings[run.pk] = _find(run, timings.get(run.stage_id), now)
            if overdue.is_stuck(run, finding, now):
                other = oldest_stuck.get(run.stage_id, run)
                oldest_stuck[run.stage_id] = min(other, run, key=attrgetter("created_at", "pk"))
    for run in in_flight_runs:
        if run.pk not in findings:
            continue
        with _logged(run):
            timing, finding = timings.get(run.stage_id), findings[run.pk]
            if _is_blocked(run, timing, oldest_stuck.get(run.stage_id), now):
                finding = Finding(Severity.OK, OverdueReason.BLOCKED)
            _mark(run, finding, timing, now)


def _is_blocked(run: Run, timing: StageTiming | None, stuck: Run | None, now: datetime) -> bool:
    """Return whether a run has waited long in the queue behind one that needs attention."""
    return (
        run.status in overdue.NOT_STARTED_STATUSES
        and run.turn_since is None
        and not run.abort_severity
        and stuck is not None
        and overdue.is_ahead(stuck, run)
        and bool(overdue.queue_timer(run.created_at, timing).severity_at(now))
    )


def _store_turns(in_flight_runs: Collection[Run]) -> None:
    """Store of each queued run since when it could have started, if nothing is ahead of it."""
    by_stage: dict[int, list[Run]] = defaultdict(list)
    for run in in_flight_runs:
        by_stage[run.stage_id].append(run)
    heads = []
    for run in in_flight_runs:
        if run.status not in overdue.NOT_STARTED_STATUSES:
            continue
        is_waiting = any(overdue.is_ahead(other, run) for other in by_stage[run.stage_id])
        if is_waiting and run.turn_since is not None:
            _store_turn(run, None)
        elif not is_waiting and run.turn_since is None:
            heads.append(run)
    for run in heads:
        earlier = Run.objects.filter(stage=run.stage_id, created_at__lt=run.created_at)
        newest = earlier.with_in_flight(False).order_by("-created_at", "-pk")  # by index
        ends = newest.values_list("ended_at", flat=True)[:MAX_EARLIER_RUNS]
        _store_turn(run, overdue.turn_since(run, max(filter(None, ends), default=None)))


def _store_turn(run: Run, turn_since: datetime | None) -> None:
    with transaction.atomic():
        ChangeCounter.lock()
        if Run.objects.filter(pk=run.pk, version=run.version).exists():  # else it has changed
            mark_changed([run.pk], turn_since=turn_since)
            run.turn_since = turn_since
            run.refresh_from_db(fields=["version"])  # the rest of the check is of this version


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


def _mark(run: Run, finding: Finding | None, timing: StageTiming | None, now: datetime) -> None:
    """Store how overdue a run is, unless it was read since, or its steps are to be read before."""
    basis = overdue.basis(run, steps.decode(run.steps), timing)
    severity, reason = overdue.mark(run, finding, basis)
    if (severity, reason) == (run.overdue_severity, run.overdue_reason):
        if severity and basis != run.overdue_basis:
            Run.objects.filter(pk=run.pk, version=run.version).update(overdue_basis=basis)
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
        marked = {"overdue_severity": severity, "overdue_reason": reason, "overdue_basis": basis}
        mark_changed([run.pk], **marked, **since)
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
            critical=severity == Severity.CRITICAL,
        )
