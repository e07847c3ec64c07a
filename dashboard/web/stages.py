"""Stages as the board and a pipeline's page show them."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Count, OuterRef, Subquery
from django.urls import reverse

from dashboard.access import Verdict
from dashboard.models import Run, Stage
from dashboard.models.catalog import StageName
from dashboard.web import rows
from dashboard.web.rows import Row

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
    error: str
    rows: list[Row]

    @property
    def latest(self) -> Row | None:
        return self.rows[0] if self.rows else None


def cells(stages: Iterable[Stage], *, runs_each: int) -> dict[int, list[StageCell]]:
    """Return the cells of each pipeline, in the order of the stages, by the pipeline's key."""
    stages = sorted(stages, key=lambda stage: _ORDER.get(stage.name, 9))
    flying = dict(
        Run.objects.in_flight().order_by().values_list("stage").annotate(runs=Count("pk"))
    )
    latest = _latest([stage.pk for stage in stages if stage.has_flow], runs_each)
    found: dict[int, list[StageCell]] = {}
    for stage in stages:
        cell = StageCell(
            key=stage.pk,
            stage=stage.name,
            name=stage.name,
            url=reverse("stage", args=rows.place_args(stage)),
            state={True: "flow", False: "none", None: "unknown"}[stage.has_flow],
            in_flight=flying.get(stage.pk, 0),
            error=stage.error_message,
            rows=latest.get(stage.pk, []),
        )
        found.setdefault(stage.pipeline_id, []).append(cell)
    return found


def _latest(stage_keys: list[int], each: int) -> dict[int, list[Row]]:
    # A window over all runs would read them all; these are `each` look-ups in an index a stage.
    newest = Run.objects.filter(stage=OuterRef("pk")).newest_first().values("pk")
    places = {f"run_{n}": Subquery(newest[n : n + 1]) for n in range(each)}
    keys = Stage.objects.filter(pk__in=stage_keys).annotate(**places).values_list(*places)
    runs = Run.objects.filter(pk__in=[key for stage in keys for key in stage if key])
    found: dict[int, list[Row]] = {}
    for run in runs.with_place().without_detail().newest_first():
        found.setdefault(run.stage_id, []).append(rows.row(run, UNSEEN, None))
    return found
