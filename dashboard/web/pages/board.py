"""The board: all pipelines, with one run of each stage: the worst or the newest."""

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

    @property
    def has_runs_in_flight(self) -> bool:
        return bool(self.snapshot.in_flight_by_stage)

    @cached_property
    def is_aborting(self) -> bool:
        return in_flight.has_open_aborts(self.permissions)

    @cached_property
    def is_catalog_loaded(self) -> bool:
        return lookup.is_catalog_loaded()

    @property
    def tag_values(self) -> tuple[object, ...]:
        attention = [(run.pk, run.inverse_severity) for run in self.snapshot.attention]
        return (self.is_catalog_loaded, attention)

    @cached_property
    def data_age(self) -> DataAge:
        return board_data_age(self.permissions, self.snapshot.stages, self._matching_pipelines)

    @property
    def _matching_pipelines(self) -> list[int]:
        """The keys of the pipelines that the filter lists because of their runs, in order."""
        stage_keys = {
            "flight": set(self.snapshot.in_flight_by_stage),
            "attention": {run.stage for run in self.snapshot.attention},
        }.get(self.filter.show, set())
        pipelines = [stage.pipeline for stage in self.snapshot.stages if stage.pk in stage_keys]
        return sorted({each.pk for each in pipelines if self.filter.matches_name(each)})

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
        cells = stage_cell.cells_by_pipeline(
            stages,
            self.snapshot.in_flight_by_stage,
            self.snapshot.attention,
            history_charts=charts,
        )
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

    def own_status_parts(self) -> list[LivePart]:
        # With time alone a failure no longer needs attention, and an approval begins to. A page
        # may have been hidden meanwhile, so all failures of a day are included.
        failures = in_flight.failed(self.permissions, self.snapshot.now)
        failed_stages = failures.order_by().values_list("stage", flat=True)
        stage_keys = {*failed_stages, *(run.stage for run in self.snapshot.attention)}
        return self._cell_parts("board-status", stage_keys)

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        return self._cell_parts("board-changes", {run.stage_id for run in runs})

    def _cell_parts(self, name: str, stage_keys: Collection[int]) -> list[LivePart]:
        def render() -> list[LivePart]:
            stages = [stage for stage in self.snapshot.stages if stage.pk in stage_keys]
            cells = stage_cell.load_cells(
                stages,
                self.snapshot.in_flight_by_stage,
                self.snapshot.attention,
                history_charts=history_charts.render_charts(stages, compact=True),
            )
            return [
                render_part(f"stage-{cell.key}", "pages/board.html#stage-cell", cell=cell)
                for cell in cells
            ]

        return self.snapshot.memoized(name, render)  # the same for all filters
