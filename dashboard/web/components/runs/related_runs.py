"""The panel of related runs on a run's page: queue, skipped runs, and the latest success."""

from collections.abc import Sequence
from typing import Any

from dashboard.models import Run
from dashboard.runs import concurrency_policy
from dashboard.runs.concurrency import RelatedRuns
from dashboard.web.components.runs import run_row, stage_cell
from dashboard.web.components.runs.run_row import RunRow

MAX_RUNS = 5  # rows per group; the other runs are only counted


def panel(run: Run, related: RelatedRuns) -> dict[str, Any]:
    """Return the panel of a run's related runs, as template context."""
    policy, last_success = run.stage.concurrency_policy, related.last_success
    is_last_success = last_success is not None and last_success.pk == run.pk
    return {
        "policy_text": related.policy_text,
        # Other runs may wait for it, so an empty queue is shown, too.
        "can_queue_others": run.is_tracked and concurrency_policy.can_queue_others(policy),
        "blocked_by": _group(related.blocked_by),
        "blocks": _group(related.blocks),
        "skipped_meanwhile": _group(related.skipped_meanwhile),
        "skipped_text": related.skipped_text,
        "also_in_flight": _group(related.also_in_flight),
        "last_success": _row(last_success) if last_success and not is_last_success else None,
        "is_last_success": is_last_success,
    }


def next_started(run: Run, related: RelatedRuns) -> RunRow | None:
    """Return the run of the same stage in flight that started first after this one ended."""
    if run.concluded_at is None:
        return None
    started = [
        other
        for other in related.also_in_flight
        if other.stage_id == run.stage_id
        and other.started_at is not None
        and other.started_at >= run.concluded_at
    ]
    return _row(started[0]) if started else None


def _group(runs: Sequence[Run]) -> dict[str, Any]:
    rows = [_row(run) for run in runs[:MAX_RUNS]]
    return {"rows": rows, "count": len(runs), "more_count": len(runs) - len(rows)}


def _row(run: Run) -> RunRow:
    return run_row.build_row(run, stage_cell.DENIED, None)
