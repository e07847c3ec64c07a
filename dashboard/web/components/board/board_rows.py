"""The board's rows: a page's pipelines, each with the cells of its stages, all rendered.

A cell is cached under all that it shows. After a change only the cells that show it are rendered.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from functools import cache as cache_result
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby

from django.core.cache import cache
from django.utils.safestring import SafeString, mark_safe

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Keys, PreparedModels
from dashboard.models import Pipeline, Project, Stage
from dashboard.models.catalog import StageName
from dashboard.runs.attention import AttentionRun
from dashboard.web.components import macros
from dashboard.web.components.board.board_list import Group, PageOfPipelines
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.runs import history_charts, stage_cell
from dashboard.web.components.runs.stage_cell import StageCell
from dashboard.web.http import links

_NO_CELL = mark_safe('<td data-state="none"></td>')  # of a stage that is missing or not visible


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
    starred: Container[Pipeline | Project],
) -> list[tuple[Group, SafeString]]:
    """Return the rendered rows of a page by group; `cells` are those of stages, by stage key."""
    cells_by_place = {
        (stage.pipeline_id, stage.name): cells[stage.pk] for stage in stages if stage.pk in cells
    }

    def row(pipeline: Pipeline) -> str:
        names = str(pipeline), str(pipeline.project)
        head = _render_head(pipeline.pk, *names, links.pipeline_url(pipeline), pipeline in starred)
        row_cells = (cells_by_place.get((pipeline.pk, name), _NO_CELL) for name in StageName.values)
        return f"<tr>{head}{''.join(row_cells)}</tr>"

    by_group = groupby(pipelines, key=lambda pipeline: page.groups[pipeline.pk])
    return [(group, mark_safe("".join(map(row, members)))) for group, members in by_group]


@lru_cache(maxsize=4096)  # for all users: a third of the time of a page
def _render_head(pk: int, name: str, project: str, url: str, is_starred: bool) -> SafeString:
    return macros.render("board.html#head", pk, name, project, url, is_starred=is_starred)


def render_cells(
    stages: Collection[Stage],
    in_flight_by_stage: Mapping[int, InFlightTotals],
    attention_runs: Iterable[AttentionRun],
) -> dict[int, SafeString]:
    """Return the rendered cells of stages, by stage key.

    `attention_runs` are in the order of runs/attention.py.
    """
    cells = stage_cell.find_cells(stages, in_flight_by_stage, attention_runs)
    ended = history_charts.latest_versions([stage.pk for stage in stages])
    keys = {cell.stage.pk: _cache_key(cell, ended) for cell in cells}
    cached = cache.get_many(keys.values())
    missing = [cell for cell in cells if keys[cell.stage.pk] not in cached]
    rendered = _render(missing) if missing else {}
    # Newer rows may have been read than the key says: no later page has that key.
    cache.set_many({keys[stage]: html for stage, html in rendered.items()})
    html_by_stage = {stage: rendered.get(stage) or cached.get(key) for stage, key in keys.items()}
    return {stage: mark_safe(html) for stage, html in html_by_stage.items() if html}


def _render(cells: Collection[StageCell]) -> dict[int, SafeString]:
    stage_cell.load_rows(cells)
    return {cell.stage.pk: macros.render("board.html#cell", cell) for cell in cells}


def _cache_key(cell: StageCell, ended: Mapping[int, int | None]) -> str:
    """Return the key of a cell; `ended` are the latest versions of ended runs, by stage key.

    Since releases are compared, those of the stage before count, too.
    """
    stage, before = cell.stage, cell.before
    contents = (
        stage.pipeline.project.slug,
        stage.pipeline.slug,
        stage.pipeline.name,
        stage.name,
        cell.state,
        stage.error_message,
        cell.runs,
        cell.in_flight_count,
        cell.acknowledged_names,
        ended.get(stage.pk),
        before and (before.stage.name, ended.get(before.stage.pk)),
    )
    return f"board_cell:{stage.pk}:{blake2b(repr(contents).encode(), digest_size=12).hexdigest()}"
