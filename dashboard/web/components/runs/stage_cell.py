"""Stage cells, for the board and for a pipeline's page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import OuterRef, Subquery
from django.utils.safestring import SafeString

from dashboard.accounts.permissions import Permission
from dashboard.db.threads import now
from dashboard.models import Run, Stage
from dashboard.models.catalog import StageName
from dashboard.runs import acknowledgements, overdue_messages
from dashboard.runs.attention import AttentionRun
from dashboard.runs.overdue_messages import OverdueMessage
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.runs import acknowledged_by, run_row
from dashboard.web.components.runs.acknowledged_by import ActiveAcknowledgements
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import links

_ORDER = {name: position for position, name in enumerate(StageName.values)}
DENIED = Permission(False)  # for rows on pages without an abort button


@dataclass(frozen=True, slots=True)
class StageCell:
    """One stage with its latest runs, prepared for templates."""

    key: int
    stage: str
    name: str
    url: str
    state: str  # "flow", "none" (no release flow) or "unknown" (not read yet)
    in_flight_count: int
    needs_attention: bool  # any of its runs does: see runs/attention.py
    overdue_message: OverdueMessage | None  # of `run` or its abort
    acknowledgements: ActiveAcknowledgements | None  # of any of its runs
    error: str
    rows: list[RunRow]
    history_chart: SafeString  # rendered; may be empty

    @property
    def overdue_severity(self) -> int:
        """The severity of the most overdue run or abort; 0 if none is overdue."""
        return self.overdue_message.severity if self.overdue_message else 0

    @property
    def run(self) -> RunRow | None:
        """The run that stands for the stage: the worst that needs attention, or the newest."""
        return self.rows[0] if self.rows else None


def cells_by_pipeline(
    stages: Iterable[Stage],
    in_flight_by_stage: Mapping[int, InFlightTotals],
    attention_runs: Iterable[AttentionRun],
    *,
    history_charts: Mapping[int, SafeString],
) -> dict[int, list[StageCell]]:
    """Return the cells of each pipeline by pipeline key, like `load_cells`."""
    pipelines = {stage.pk: stage.pipeline_id for stage in stages}
    cells: dict[int, list[StageCell]] = {}
    for cell in load_cells(
        stages, in_flight_by_stage, attention_runs, history_charts=history_charts
    ):
        cells.setdefault(pipelines[cell.key], []).append(cell)
    return cells


def load_cells(
    stages: Iterable[Stage],
    in_flight_by_stage: Mapping[int, InFlightTotals],
    attention_runs: Iterable[AttentionRun],
    *,
    runs_per_stage: int = 1,
    history_charts: Mapping[int, SafeString] | None = None,
) -> list[StageCell]:
    """Return the cells of stages, Development first, each with up to `runs_per_stage` runs.

    Those that need attention come first, then the newest. `attention_runs` are in the order of
    runs/attention.py; `history_charts` are rendered charts by stage key.
    """
    stages = sorted(stages, key=lambda stage: _ORDER.get(stage.name, 9))
    worst_runs: dict[int, list[int]] = {}
    for run in attention_runs:
        worst_runs.setdefault(run.stage, []).append(run.pk)
    rows_by_stage = _load_rows(
        [stage.pk for stage in stages if _state(stage) == "flow"], runs_per_stage, worst_runs
    )
    active_acknowledgements = acknowledgements.active_by_stage(
        [stage.pk for stage in stages], now()
    )
    cells = []
    for stage in stages:
        totals = in_flight_by_stage.get(stage.pk, InFlightTotals())
        rows = rows_by_stage.get(stage.pk, [])
        cell = StageCell(
            key=stage.pk,
            stage=stage.name,
            name=stage.name,
            url=links.stage_url(stage),
            state=_state(stage),
            in_flight_count=totals.count,
            needs_attention=stage.pk in worst_runs,
            overdue_message=overdue_messages.worst(rows[0].overdue_severity, rows[0].abort_severity)
            if rows
            else None,
            acknowledgements=acknowledged_by.active(active_acknowledgements.get(stage.pk, ())),
            error=stage.error_message,
            rows=rows,
            history_chart=(history_charts or {}).get(stage.pk, SafeString()),
        )
        cells.append(cell)
    return cells


def _state(stage: Stage) -> str:
    if stage.has_flow is False:
        return "none"
    return "unknown" if stage.synced_at is None and stage.has_flow is None else "flow"


def by_column(cells: Iterable[StageCell]) -> list[StageCell | None]:
    """Return one cell per column of the board; None for a stage without a cell."""
    by_name = {cell.stage: cell for cell in cells}
    return [by_name.get(name) for name in StageName.values]


def _load_rows(
    stage_keys: list[int], runs_per_stage: int, worst_runs: Mapping[int, list[int]]
) -> dict[int, list[RunRow]]:
    # A window function would read all runs; this does `runs_per_stage` index lookups per stage.
    newest = Run.objects.filter(stage=OuterRef("pk")).newest_first().values("pk")
    subqueries = {f"run_{n}": Subquery(newest[n : n + 1]) for n in range(runs_per_stage)}
    stages = Stage.objects.filter(pk__in=stage_keys).annotate(**subqueries)
    pks_by_stage = {
        # Each run once, in this order.
        stage: list(dict.fromkeys([*worst_runs.get(stage, ()), *filter(None, newest_pks)]))[
            :runs_per_stage
        ]
        for stage, *newest_pks in stages.values_list("pk", *subqueries)
    }
    listed = [pk for pks in pks_by_stage.values() for pk in pks]
    rows = {
        run.pk: run_row.build_row(run, DENIED, None)
        for run in Run.objects.filter(pk__in=listed).with_stage().without_detail()
    }
    return {stage: [rows[pk] for pk in pks if pk in rows] for stage, pks in pks_by_stage.items()}
