"""Stages as the board and a pipeline's page show them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Count, Max, OuterRef, Subquery
from django.urls import reverse
from django.utils.safestring import SafeString

from dashboard.accounts.permissions import Verdict
from dashboard.db.threads import now
from dashboard.models import Run, Stage
from dashboard.models.catalog import StageName
from dashboard.runs import acknowledgements, overdue_messages
from dashboard.runs.overdue_messages import Story
from dashboard.web.components import acknowledged_by, run_row
from dashboard.web.components.acknowledged_by import Lookers
from dashboard.web.components.run_row import Row

_ORDER = {name: position for position, name in enumerate(StageName.values)}
UNSEEN = Verdict(False)  # these pages have no abort control


@dataclass(frozen=True, slots=True)
class StageCell:
    """One stage in brief."""

    key: int
    stage: str
    name: str
    url: str
    state: str  # flow, none or unknown
    in_flight: int
    late: Story | None  # of the run in flight, or its abort, that is the furthest overdue
    lookers: Lookers | None  # at any of its runs
    error: str
    rows: list[Row]
    strip: SafeString  # its history, ready; may be empty

    @property
    def overdue(self) -> int:
        """How far the worst of its runs, or of their aborts, is overdue; 0 where none is."""
        return self.late.level if self.late else 0

    @property
    def needs_attention(self) -> bool:
        """Whether its latest run ended badly, one or its abort is overdue, or it can't be read."""
        return bool(self.late or self.error or (self.latest and self.latest.tone == "bad"))

    @property
    def latest(self) -> Row | None:
        return self.rows[0] if self.rows else None


def cells(
    stages: Iterable[Stage], *, runs_each: int, strips: Mapping[int, SafeString] | None = None
) -> dict[int, list[StageCell]]:
    """Return the cells of each pipeline, in the order of the stages, by the pipeline's key.

    `strips` are their histories (history.py), by the stage's key.
    """
    stages = sorted(stages, key=lambda stage: _ORDER.get(stage.name, 9))
    by_stage = Run.objects.in_flight().order_by().values_list("stage")
    counted = by_stage.annotate(Count("pk"), Max("overdue"), Max("aborting_level"))
    flying = {stage: each for stage, *each in counted}
    latest = _latest([stage.pk for stage in stages if _state(stage) == "flow"], runs_each)
    looks = acknowledgements.in_stages([stage.pk for stage in stages], now())
    found: dict[int, list[StageCell]] = {}
    for stage in stages:
        in_flight, overdue, aborting = flying.get(stage.pk, (0, 0, 0))
        cell = StageCell(
            key=stage.pk,
            stage=stage.name,
            name=stage.name,
            url=reverse("stage", args=run_row.place_args(stage)),
            state=_state(stage),
            in_flight=in_flight,
            late=overdue_messages.worst(overdue, aborting),
            lookers=acknowledged_by.of(looks.get(stage.pk, ())),
            error=stage.error_message,
            rows=latest.get(stage.pk, []),
            strip=(strips or {}).get(stage.pk, SafeString()),
        )
        found.setdefault(stage.pipeline_id, []).append(cell)
    return found


def _state(stage: Stage) -> str:
    if stage.has_flow is False:
        return "none"
    return "unknown" if stage.synced_at is None and stage.has_flow is None else "flow"


def in_columns(cells: Iterable[StageCell]) -> list[StageCell | None]:
    """Return one cell for each of the three stages; None where there is nothing to see."""
    by_name = {cell.stage: cell for cell in cells}
    return [by_name.get(name) for name in StageName.values]


def _latest(stage_keys: list[int], each: int) -> dict[int, list[Row]]:
    # A window over all runs would read them all; these are `each` look-ups in an index a stage.
    newest = Run.objects.filter(stage=OuterRef("pk")).newest_first().values("pk")
    places = {f"run_{n}": Subquery(newest[n : n + 1]) for n in range(each)}
    keys = Stage.objects.filter(pk__in=stage_keys).annotate(**places).values_list(*places)
    runs = Run.objects.filter(pk__in=[key for stage in keys for key in stage if key])
    found: dict[int, list[Row]] = {}
    for run in runs.with_place().without_detail().newest_first():
        found.setdefault(run.stage_id, []).append(run_row.row(run, UNSEEN, None))
    return found
