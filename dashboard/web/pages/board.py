"""The board: all pipelines with the latest run of each stage."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.views.decorators.http import require_safe

from dashboard.models import Run
from dashboard.web.components import in_flight, tab_title
from dashboard.web.components.data_age import DataAge, board_data_age
from dashboard.web.components.lists import empty_states
from dashboard.web.components.runs import board_cells, history_charts, stage_cell
from dashboard.web.components.runs.board_cells import BoardFilter
from dashboard.web.components.runs.stage_cell import StageCell
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import lookup
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


@require_safe
def board(request: HttpRequest) -> HttpResponse:
    """Show the pipelines by project, each with its three stages."""
    board_filter = board_cells.parse(request.GET)
    page = BoardPage(Snapshot.for_request(request), query=board_filter.query)
    page.filter = board_filter  # with warnings about ignored parameters
    return page_response(request, page)


class BoardPage(Page):
    name = nav = "board"

    @cached_property
    def filter(self) -> BoardFilter:
        return board_cells.parse(QueryDict(self.query))

    @cached_property
    def has_runs_in_flight(self) -> bool:
        return in_flight.in_flight(self.permissions).exists()

    @cached_property
    def is_aborting(self) -> bool:
        return in_flight.has_open_aborts(self.permissions)

    @cached_property
    def is_catalog_loaded(self) -> bool:
        return lookup.is_catalog_loaded()

    @property
    def tag_values(self) -> tuple[object, ...]:
        return (self.is_catalog_loaded,)

    @cached_property
    def data_age(self) -> DataAge:
        return board_data_age(self.permissions, self.snapshot.stages)

    @property
    def tab_title(self) -> TabTitle:
        return tab_title.board(
            self.snapshot.title_totals,
            upstream_down=self.upstream_down,
            incomplete=bool(self.data_age.incomplete_text),
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        stages = self.snapshot.stages
        charts = history_charts.render_charts(stages, compact=True)
        cells = stage_cell.cells_by_pipeline(stages, history_charts=charts)
        return {
            "filter": self.filter,
            "projects": board_cells.projects(self.permissions, self.filter, cells),
            "empty": empty_states.pipelines(
                self.permissions,
                is_catalog_loaded=self.is_catalog_loaded,
                is_incomplete=bool(self.data_age.incomplete_text),
                is_filtered=bool(self.filter),
            ),
        }

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        pipelines = {stage.pk: stage.pipeline for stage in self.snapshot.stages}
        changed_stages = {run.stage_id for run in runs}
        return [
            render_part(
                f"stage-{cell.key}",
                "pages/board.html#stage-cell",
                "stage" if self.filter and self.filter.matches(pipelines[cell.key], cell) else "",
                cell=cell,
            )
            for cell in self.snapshot.memoized(
                "board-cells", lambda: self._load_cells(changed_stages)
            )
        ]

    def _load_cells(self, stage_keys: Collection[int]) -> list[StageCell]:
        stages = [stage for stage in self.snapshot.stages if stage.pk in stage_keys]
        charts = history_charts.render_charts(stages, compact=True)
        return stage_cell.load_cells(stages, history_charts=charts)
