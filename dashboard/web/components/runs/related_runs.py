"""The panel of related runs on a run's page: queue, skipped runs, and the latest success."""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.models import Run
from dashboard.runs import concurrency_policy
from dashboard.runs.concurrency import RelatedRuns
from dashboard.texts.rich_text import RichText
from dashboard.web.components.runs import run_row, stage_cell
from dashboard.web.components.runs.run_row import RunRow

MAX_RUNS = 5  # rows per group; the other runs are only counted


@dataclass(frozen=True, slots=True)
class RunGroup:
    """The first MAX_RUNS of some runs, and the number of all of them."""

    rows: list[RunRow]
    count: int

    @property
    def more_count(self) -> int:
        """The number of runs without a row."""
        return self.count - len(self.rows)


@dataclass(frozen=True, slots=True)
class RelatedRunsPanel:
    """The related runs of one run, prepared for the template."""

    policy_text: RichText
    can_queue_others: bool  # other runs may wait for it, so an empty queue is shown, too
    queued_ahead: RunGroup
    queued_behind: RunGroup
    can_skip_others: bool  # requests may be dropped without a run: shown even if none is listed
    skipped_meanwhile: RunGroup
    skipped_text: RichText
    superseded_by: RunRow | None
    superseded_text: str
    also_in_flight: RunGroup
    last_success: RunRow | None
    is_last_success: bool  # the run itself is the stage's latest success


def panel(run: Run, related: RelatedRuns) -> RelatedRunsPanel:
    """Return the panel of a run's related runs."""
    policy = run.stage.concurrency_policy
    last_success = related.last_success
    return RelatedRunsPanel(
        policy_text=related.policy_text,
        can_queue_others=run.is_tracked and concurrency_policy.can_queue_others(policy),
        queued_ahead=_group(related.queued_ahead),
        queued_behind=_group(related.queued_behind),
        can_skip_others=run.is_tracked and concurrency_policy.can_skip_others(policy),
        skipped_meanwhile=_group(related.skipped_meanwhile),
        skipped_text=related.skipped_text,
        superseded_by=_row(related.superseded_by) if related.superseded_by is not None else None,
        superseded_text=str(related.superseded_text).rstrip("."),
        also_in_flight=_group(related.also_in_flight),
        last_success=_row(last_success)
        if last_success is not None and last_success.pk != run.pk
        else None,
        is_last_success=last_success is not None and last_success.pk == run.pk,
    )


def _group(runs: Sequence[Run]) -> RunGroup:
    return RunGroup([_row(run) for run in runs[:MAX_RUNS]], len(runs))


def _row(run: Run) -> RunRow:
    return run_row.build_row(run, stage_cell.DENIED, None)
