"""Build a run's row from what Northflank lists of it and the row so far; nothing is stored."""

from datetime import datetime
from typing import Any

import msgspec
import structlog

from dashboard.models import Abort, Run, StageTiming
from dashboard.northflank import Node
from dashboard.northflank import Run as ApiRun
from dashboard.runs import failures, overdue, statuses, steps
from dashboard.sync import plan

log = structlog.get_logger(__name__)

_unknown_statuses: set[str] = set()  # unknown statuses already logged by this process


def ended_before(api_run: ApiRun, limit: datetime | None) -> bool:
    """Return whether a run is known to have ended before `limit`: see Run.ended_at."""
    ended_at = api_run.concluded_at or api_run.updated_at or api_run.created_at
    if not api_run.concluded or ended_at is None or limit is None:
        return False
    return ended_at < limit


def build_row(
    stage_id: int, api_run: ApiRun, old: Run | None, requested_at: datetime, seq: int
) -> Run:
    """Return a new row with the fields of a list, as read with request `seq`."""
    row = Run(
        stage_id=stage_id,
        run_id=api_run.id,
        **_listed_fields(api_run, old, requested_at),
        first_synced_at=old.first_synced_at if old else requested_at,
        synced_at=requested_at,
        request_seq=seq,
        next_detail_sync_at=old.next_detail_sync_at if old else None,
        status_since=old.status_since if old and old.status == api_run.status else requested_at,
        approval_since=old.approval_since if old and old.status == api_run.status else None,
        turn_since=old.turn_since if old and old.status == api_run.status else None,
        aborting_since=_aborting_since(api_run, old, requested_at),
        abort_severity=old.abort_severity if old and not api_run.concluded else 0,
        overdue_severity=old.overdue_severity if old and not api_run.concluded else 0,
        overdue_reason=old.overdue_reason if old and not api_run.concluded else "",
        overdue_basis=old.overdue_basis if old else "",
        step=old.step if old else "",
        counted_as=old.counted_as if old else None,
    )
    if old is not None and row.overdue_severity and old.status != row.status:
        severity, reason = assess_overdue(row, steps.decode(old.steps), requested_at)
        if severity <= old.overdue_severity:  # else the check reads the steps before
            row.overdue_severity, row.overdue_reason = severity, reason
    return row


def next_detail_sync_at(row: Run, old: Run | None) -> datetime | None:
    """Return when to read the detail of a run that a list shows as changed; None: not planned.

    With another status, a run in flight is at another step than the one that is known.
    """
    if old is None or not row.in_flight or old.detail_synced_at is None or old.failures:
        return row.next_detail_sync_at
    if row.status == old.status:
        return row.next_detail_sync_at
    due_at = row.synced_at
    if "approval_wait" not in {row.status, old.status}:  # which somebody may have to answer
        due_at = max(due_at, old.detail_synced_at + plan.MIN_STEPS_AGE)
    return min(due_at, row.next_detail_sync_at or due_at)


def is_changed(api_run: ApiRun, old: Run, requested_at: datetime) -> bool:
    fields = _listed_fields(api_run, old, requested_at)
    return any(getattr(old, name) != value for name, value in fields.items())


def _listed_fields(api_run: ApiRun, old: Run | None, requested_at: datetime) -> dict[str, Any]:
    """Return the fields that a list has of a run; if one changes, the run has changed."""
    if api_run.status not in statuses.RUN_STATUSES and api_run.status not in _unknown_statuses:
        _unknown_statuses.add(api_run.status)
        log.warning("run.unknown_status", status=api_run.status[:100])
    return {
        # What a run has does not go away: an answer without it, or with another type, is odd.
        "name": api_run.name or (old.name if old else ""),
        "description": api_run.description or (old.description if old else ""),
        "status": api_run.status,
        "concluded": api_run.concluded,
        "created_at": api_run.created_at or (old.created_at if old else requested_at),
        "started_at": api_run.started_at or (old.started_at if old else None),
        "concluded_at": api_run.concluded_at
        or (old.concluded_at if old and api_run.concluded else None),
        "updated_at": _updated_at(api_run, old, requested_at),
        "in_flight": not api_run.concluded,
        "removed_at": None,
    }


def _updated_at(api_run: ApiRun, old: Run | None, requested_at: datetime) -> datetime | None:
    """Return when a run was last updated; None if Northflank has not said so.

    Of a run that ended without `concludedAt`, this counts as its end (`Run.ended_at`). `updatedAt`
    may be as old as the run: if it is older than our last read of the run in flight, the end is
    when it was first read as concluded.
    """
    updated_at = api_run.updated_at or (old.updated_at if old else None)
    if old is None or not api_run.concluded or api_run.concluded_at or old.concluded_at:
        return updated_at
    if old.concluded:
        return max(filter(None, (updated_at, old.updated_at)), default=None)
    return updated_at if updated_at and updated_at > old.synced_at else requested_at


def _aborting_since(api_run: ApiRun, old: Run | None, requested_at: datetime) -> datetime | None:
    """Return when a run's abort began according to Northflank's `updatedAt`, or None if unknown.

    `updatedAt` may not be the last change. It is used only for a run that is aborting, and only if
    it is later than the run's creation and than our last read of the run with another status.
    """
    if api_run.status != "aborting":
        return None
    if old is not None and old.status == "aborting":
        return old.aborting_since  # the first read of this status had the best estimate
    updated_at, lower_bound = api_run.updated_at, old.synced_at if old else api_run.created_at
    if updated_at is None or updated_at > requested_at:
        return None
    return updated_at if lower_bound is None or updated_at > lower_bound else None


def backdate_aborting(row: Run, old: Run, latest_abort: Abort | None) -> None:
    """Backdate `aborting_since` of a newly aborting run to our own abort request, if earlier."""
    is_newly_aborting = row.status == "aborting" and old.status != "aborting"
    if is_newly_aborting and latest_abort is not None and latest_abort.settled_at is None:
        abort_started_at = latest_abort.already_aborting_since or latest_abort.requested_at
        row.aborting_since = min(abort_started_at, row.aborting_since or abort_started_at)


def assess_overdue(run: Run, root: Node | None, moment: datetime) -> tuple[int, str]:
    """Return the overdue severity and reason of a run from the data just read.

    A run already marked overdue is assessed again, so that the mark neither outlives its cause nor
    flickers. Other runs are marked by overdue_checker.py only.
    """
    if not run.overdue_severity:
        return 0, ""
    timing = StageTiming.objects.filter(stage=run.stage_id).first()
    timers = overdue.timers(run, root, timing)
    finding = overdue.worst_finding(run, root, timers, moment)
    return overdue.mark(run, finding, overdue.basis(run, root, timing))


STEP_FIELDS = (
    *("steps", "step", "step_key", "step_started_at", "step_number", "step_count"),
    *("failed_step", "failed_step_error", "release_key"),
)


def detail_fields(
    run: Run, root: Node | None, requested_at: datetime, seq: int, *, has_failed: bool
) -> dict[str, Any]:
    """Return the fields that only a run's detail has; `run` has the others, as just read."""
    node = steps.current(root, run.status) if root is not None and run.in_flight else None
    place = steps.place(root, node) if root is not None and node is not None else None
    number, count = place or (None, None)
    failed_step, error = failures.find_step(root) if has_failed else (None, None)
    return {
        # Round trip through JSON, so that it compares equal to the stored value.
        "steps": msgspec.json.decode(msgspec.json.encode(root)),
        "steps_removed_at": None,
        "step": steps.describe(node) if node else "",
        "step_key": steps.key(node) if node else "",
        "step_started_at": node.started_at if node else None,
        "step_number": number,
        "step_count": count,
        "failed_step": failed_step,
        "failed_step_error": error,
        "detail_synced_at": requested_at,
        "detail_request_seq": seq,
        "failures": 0,
    }
