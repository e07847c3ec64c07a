"""Stages as the board and a pipeline's page show them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Count, Max, OuterRef, Subquery
from django.urls import reverse
from django.utils.safestring import SafeString

from dashboard.accounts.permissions import Permission
from dashboard.db.threads import now
from dashboard.models import Run, Stage
from dashboard.models.catalog import StageName
from dashboard.runs import acknowledgements, overdue_messages
from dashboard.runs.overdue_messages import OverdueMessage
from dashboard.web.components import acknowledged_by, run_row
from dashboard.web.components.acknowledged_by import ActiveAcknowledgements
from dashboard.web.components.run_row import RunRow

_ORDER = {name: position for position, name in enumerate(StageName.values)}
DENIED = Permission(False)  # these pages have no abort control


@dataclass(frozen=True, slots=True)
class StageCell:
    """One stage in brief."""

    key: int
    stage: str
    name: str
    url: str
    state: str  # flow, none or unknown
    in_flight_count: int
    overdue_message: (
        OverdueMessage | None
    )  # of the run in flight, or its abort, that is the furthest overdue
    acknowledgements: ActiveAcknowledgements | None  # at any of its runs
    error: str
    rows: list[RunRow]
    history_chart: SafeString  # its history, ready; may be empty

    @property
    def overdue_severity(self) -> int:
        """How far the worst of its runs, or of their aborts, is overdue; 0 where none is."""
        return self.overdue_message.severity if self.overdue_message else 0

    @property
    def needs_attention(self) -> bool:
        """Whether its latest run ended badly, one or its abort is overdue, or it can't be read."""
        return bool(
            self.overdue_message or self.error or (self.latest and self.latest.tone == "bad")
        )

    @property
    def latest(self) -> RunRow | None:
        return self.rows[0] if self.rows else None


def cells_by_pipeline(
    stages: Iterable[Stage],
    *,
    runs_per_stage: int,
    history_charts: Mapping[int, SafeString] | None = None,
) -> dict[int, list[StageCell]]:
    """Return the cells of each pipeline, in the order of the stages, by the pipeline's key.

    `strips` are their histories (history.py), by the stage's key.
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
    cells: dict[int, list[StageCell]] = {}
    for stage in stages:
        in_flight_count, overdue_severity, abort_severity = in_flight_by_stage.get(
            stage.pk, (0, 0, 0)
        )
        cell = StageCell(
            key=stage.pk,
            stage=stage.name,
            name=stage.name,
            url=reverse("stage", args=run_row.stage_url_args(stage)),
            state=_state(stage),
            in_flight_count=in_flight_count,
            overdue_message=overdue_messages.worst(overdue_severity, abort_severity),
            acknowledgements=acknowledged_by.active(active_acknowledgements.get(stage.pk, ())),
            error=stage.error_message,
            rows=latest.get(stage.pk, []),
            history_chart=(history_charts or {}).get(stage.pk, SafeString()),
        )
        cells.setdefault(stage.pipeline_id, []).append(cell)
    return cells


def _state(stage: Stage) -> str:
    if stage.has_flow is False:
        return "none"
    return "unknown" if stage.synced_at is None and stage.has_flow is None else "flow"


def by_column(cells: Iterable[StageCell]) -> list[StageCell | None]:
    """Return one cell for each of the three stages; None where there is nothing to see."""
    by_name = {cell.stage: cell for cell in cells}
    return [by_name.get(name) for name in StageName.values]


def _latest_rows(stage_keys: list[int], runs_per_stage: int) -> dict[int, list[RunRow]]:
    # A window over all runs would read them all; these are `each` look-ups in an index a stage.
    newest = Run.objects.filter(stage=OuterRef("pk")).newest_first().values("pk")
    subqueries = {f"run_{n}": Subquery(newest[n : n + 1]) for n in range(runs_per_stage)}
    keys = Stage.objects.filter(pk__in=stage_keys).annotate(**subqueries).values_list(*subqueries)
    runs = Run.objects.filter(pk__in=[key for stage in keys for key in stage if key])
    rows_by_stage: dict[int, list[RunRow]] = {}
    for run in runs.with_stage().without_detail().newest_first():
        rows_by_stage.setdefault(run.stage_id, []).append(run_row.build_row(run, DENIED, None))
    return rows_by_stage
