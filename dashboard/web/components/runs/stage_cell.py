"""Stage cells, for the board and for a pipeline's page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Count, Max, OuterRef, Subquery
from django.utils.safestring import SafeString

from dashboard.accounts.permissions import Permission
from dashboard.db.threads import now
from dashboard.models import Run, Stage
from dashboard.models.catalog import StageName
from dashboard.runs import acknowledgements, overdue_messages
from dashboard.runs.overdue_messages import OverdueMessage
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
    overdue_message: OverdueMessage | None  # of the most overdue run in flight or abort
    acknowledgements: ActiveAcknowledgements | None  # of any of its runs
    error: str
    rows: list[RunRow]
    history_chart: SafeString  # rendered; may be empty

    @property
    def overdue_severity(self) -> int:
        """The severity of the most overdue run or abort; 0 if none is overdue."""
        return self.overdue_message.severity if self.overdue_message else 0

    @property
    def needs_attention(self) -> bool:
        """Whether its latest run failed, a run or abort is overdue, or the stage can't be read."""
        return bool(
            self.overdue_message or self.error or (self.latest and self.latest.tone == "bad")
        )

    @property
    def latest(self) -> RunRow | None:
        return self.rows[0] if self.rows else None


def cells_by_pipeline(
    stages: Iterable[Stage], *, history_charts: Mapping[int, SafeString]
) -> dict[int, list[StageCell]]:
    """Return the cells of each pipeline by pipeline key, like `load_cells`."""
    pipelines = {stage.pk: stage.pipeline_id for stage in stages}
    cells: dict[int, list[StageCell]] = {}
    for cell in load_cells(stages, history_charts=history_charts):
        cells.setdefault(pipelines[cell.key], []).append(cell)
    return cells


def load_cells(
    stages: Iterable[Stage],
    *,
    runs_per_stage: int = 1,
    history_charts: Mapping[int, SafeString] | None = None,
) -> list[StageCell]:
    """Return the cells of stages with their latest runs, Development first.

    `history_charts` are rendered charts by stage key (see history_charts.py).
    """
    stages = sorted(stages, key=lambda stage: _ORDER.get(stage.name, 9))
    by_stage = Run.objects.in_flight().order_by().values_list("stage")
    in_flight_counts = by_stage.annotate(
        Count("pk"), Max("overdue_severity"), Max("abort_severity")
    )
    in_flight_by_stage = {stage: stage_counts for stage, *stage_counts in in_flight_counts}
    latest = _latest_rows([stage.pk for stage in stages if _state(stage) == "flow"], runs_per_stage)
    active_acknowledgements = acknowledgements.active_by_stage(
        [stage.pk for stage in stages], now()
    )
    cells = []
    for stage in stages:
        in_flight_count, overdue_severity, abort_severity = in_flight_by_stage.get(
            stage.pk, (0, 0, 0)
        )
        cell = StageCell(
            key=stage.pk,
            stage=stage.name,
            name=stage.name,
            url=links.stage_url(stage),
            state=_state(stage),
            in_flight_count=in_flight_count,
            overdue_message=overdue_messages.worst(overdue_severity, abort_severity),
            acknowledgements=acknowledged_by.active(active_acknowledgements.get(stage.pk, ())),
            error=stage.error_message,
            rows=latest.get(stage.pk, []),
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


def _latest_rows(stage_keys: list[int], runs_per_stage: int) -> dict[int, list[RunRow]]:
    # A window function would read all runs; this does `runs_per_stage` index lookups per stage.
    newest = Run.objects.filter(stage=OuterRef("pk")).newest_first().values("pk")
    subqueries = {f"run_{n}": Subquery(newest[n : n + 1]) for n in range(runs_per_stage)}
    keys = Stage.objects.filter(pk__in=stage_keys).annotate(**subqueries).values_list(*subqueries)
    runs = Run.objects.filter(pk__in=[key for stage in keys for key in stage if key])
    rows_by_stage: dict[int, list[RunRow]] = {}
    for run in runs.with_stage().without_detail().newest_first():
        rows_by_stage.setdefault(run.stage_id, []).append(run_row.build_row(run, DENIED, None))
    return rows_by_stage
