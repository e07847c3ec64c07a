"""The board's rows: a page's pipelines, each with the rendered cells of its stages.

A cell is cached under all that it shows. After a change only the cells that show it are rendered.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import cache as cache_result
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby

from django.core.cache import cache
from django.template.loader import get_template
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Keys, PreparedModels
from dashboard.models import Pipeline, Stage
from dashboard.models.catalog import StageName
from dashboard.runs.attention import AttentionRun
from dashboard.web.components.board.board_list import Group, PageOfPipelines
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.runs import history_charts, stage_cell
from dashboard.web.components.runs.stage_cell import StageCell

# A pipeline with its address and the cells of its three stages; None for a stage that is missing or
# not visible.
type PipelineRow = tuple[Pipeline, str, list[SafeString | None]]


def load_pipelines(page: PageOfPipelines) -> list[Pipeline]:
    """Return the pipelines of a page in their order, with their projects."""
    pipelines = {
        pipeline.pk: pipeline for pipeline in _pipelines_query().fetch(pipelines=page.groups)
    }
    return [pipelines[key] for key in page.groups if key in pipelines]


@cache_result
def _pipelines_query() -> PreparedModels[Pipeline]:
    pipelines = Pipeline.objects.filter(pk__in=Keys("pipelines"))
    return PreparedModels(pipelines.select_related("project"))


def load_stages(permissions: Permissions, pipelines: Iterable[Pipeline]) -> list[Stage]:
    """Return the visible stages of pipelines, with their pipelines."""
    pipelines_by_key = {pipeline.pk: pipeline for pipeline in pipelines}
    loaded = _stages_query(permissions).fetch(pipelines=pipelines_by_key)
    for stage in loaded:
        stage.pipeline = pipelines_by_key[stage.pipeline_id]
    return loaded


@lru_cache(maxsize=100)
def _stages_query(permissions: Permissions) -> PreparedModels[Stage]:
    in_pipelines = Stage.objects.filter(pipeline__in=Keys("pipelines"))
    return PreparedModels(in_pipelines.filter(permissions.stage_filter()))


def build_groups(
    page: PageOfPipelines,
    pipelines: Iterable[Pipeline],
    stages: Iterable[Stage],
    cells: Mapping[int, SafeString],
) -> list[tuple[Group, list[PipelineRow]]]:
    """Return the rows of a page by group; `cells` are the rendered cells by stage key."""
    cells_by_place = {
        (stage.pipeline_id, stage.name): cells[stage.pk] for stage in stages if stage.pk in cells
    }

    def row(pipeline: Pipeline) -> PipelineRow:
        url = reverse("pipeline", args=[pipeline.project.slug, pipeline.slug])
        return pipeline, url, [cells_by_place.get((pipeline.pk, name)) for name in StageName.values]

    by_group = groupby(pipelines, key=lambda pipeline: page.groups[pipeline.pk])
    return [(group, [row(pipeline) for pipeline in members]) for group, members in by_group]


def render_cells(
    stages: Collection[Stage],
    in_flight_by_stage: Mapping[int, InFlightTotals],
    attention_runs: Iterable[AttentionRun],
) -> dict[int, SafeString]:
    """Return the rendered cells of stages, by stage key.

    `attention_runs` are in the order of runs/attention.py.
    """
    cells = stage_cell.find_cells(stages, in_flight_by_stage, attention_runs)
    chart_versions = history_charts.latest_versions([stage.pk for stage in stages])
    keys = {cell.stage.pk: _cache_key(cell, chart_versions.get(cell.stage.pk)) for cell in cells}
    cached = cache.get_many(keys.values())
    missing = [cell for cell in cells if keys[cell.stage.pk] not in cached]
    rendered = _render(missing) if missing else {}
    # Newer rows may have been read than the key says: no later page has that key.
    cache.set_many({keys[stage]: html for stage, html in rendered.items()})
    html_by_stage = {stage: rendered.get(stage) or cached.get(key) for stage, key in keys.items()}
    return {stage: mark_safe(html) for stage, html in html_by_stage.items() if html}


def _render(cells: Collection[StageCell]) -> dict[int, SafeString]:
    charts = history_charts.render_charts([cell.stage for cell in cells], compact=True)
    template = get_template("components/board_cell.html")
    return {
        cell.stage.pk: mark_safe(template.render({"cell": cell}).strip())
        for cell in stage_cell.load_rows(cells, history_charts=charts)
    }


def _cache_key(cell: StageCell, chart_version: int | None) -> str:
    stage = cell.stage
    contents = (
        stage.pipeline.project.slug,
        stage.pipeline.slug,
        stage.pipeline.name,
        stage.name,
        cell.state,
        stage.error_message,
        cell.runs,
        cell.in_flight_count,
        cell.acknowledgements,
        chart_version,
    )
    return f"board_cell:{stage.pk}:{blake2b(repr(contents).encode(), digest_size=12).hexdigest()}"
