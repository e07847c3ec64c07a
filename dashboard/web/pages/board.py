"""The board: pipelines, of all projects or of one, and what is released in each of their stages."""

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dashboard.accounts import stars
from dashboard.accounts.permissions import Permissions
from dashboard.models import Pipeline, Project, Run, Stage
from dashboard.web.components import headings, in_flight, my_pipelines
from dashboard.web.components.board import board_filter, board_list, board_rows
from dashboard.web.components.board.board_filter import BoardFilter
from dashboard.web.components.board.board_list import PageOfPipelines
from dashboard.web.components.data_age import DataAge, page_data_age, read_states
from dashboard.web.components.lists import empty_states
from dashboard.web.components.lists.empty_states import EmptyState
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import lookup
from dashboard.web.http.authentication import sign_in
from dashboard.web.live.page import LivePart, Page, PageRemoved, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


@require_safe
def board(request: HttpRequest, project_id: str = "") -> HttpResponse:
    """Show one page of the pipelines, of one project if its id is given, with their stages."""
    snapshot = Snapshot.for_request(request)
    project = lookup.get_project_or_404(snapshot.permissions, project_id) if project_id else None
    url_filter = board_filter.parse(request.GET)
    url_filter.mine = my_pipelines.of_request(request)
    page = BoardPage(snapshot, key=project.pk if project else 0, query=url_filter.query)
    page.project = project
    page.filter = url_filter  # with warnings about ignored parameters
    return page_response(request, page)


class BoardPage(Page):
    """One page of the board; its key is that of the only project to list, or 0.

    An open page keeps its rows where they are. When other pipelines belong on it, or in another
    order, it shows them on request, or at once while nobody uses it.
    """

    name = "board"
    template = "pages/board.html"

    @classmethod
    def is_visible(cls, permissions: Permissions, key: int) -> bool:
        visible = Project.objects.filter(permissions.project_filter())
        return key == 0 or visible.filter(pk=key).exists()

    @cached_property
    def project(self) -> Project | None:
        """The only project to list; None: all of them."""
        if self.key == 0:
            return None
        if (project := Project.objects.filter(pk=self.key).first()) is None:
            raise PageRemoved
        return project

    @cached_property
    def filter(self) -> BoardFilter:
        return board_filter.parse(QueryDict(self.query))

    @property
    def list_page(self) -> PageOfPipelines:
        """Which pipelines it lists."""
        return self._memoized(
            "list",
            lambda: board_list.find_page(
                self.permissions,
                self.filter,
                attention_stages={run.stage for run in self.snapshot.attention},
                in_flight_stages=self.snapshot.in_flight_by_stage.keys(),
                project=self.key,
            ),
        )

    @property
    def pipelines(self) -> list[Pipeline]:
        """The pipelines that it lists, in their order."""
        return self._memoized("pipelines", lambda: board_rows.load_pipelines(self.list_page))

    @property
    def stages(self) -> list[Stage]:
        """The visible stages of its pipelines."""
        return self._memoized(
            "stages", lambda: board_rows.load_stages(self.permissions, self.pipelines)
        )

    @property
    def cells(self) -> dict[int, SafeString]:
        """The rendered cells of its stages, by stage key."""
        snapshot = self.snapshot
        return self._memoized(
            "cells",
            lambda: board_rows.render_cells(
                self.stages, snapshot.in_flight_by_stage, snapshot.attention
            ),
        )

    def _memoized[T](self, name: str, build: Callable[[], T]) -> T:
        return self.snapshot.memoized((name, self.key, self.query), build)

    @cached_property
    def data_age(self) -> DataAge:
        errors = sorted((stage.pk, stage.error_message) for stage in self.stages if stage.error)
        return page_data_age(
            self.snapshot.report,
            self.stages,
            list(self.list_page.groups.items()),
            self.list_page.total,
            read_states(self.stages),
            errors,
        )

    @property
    def tab_title(self) -> TabTitle:
        return self.build_title(
            headings.cut(str(self.project or _("Board"))),
            self.snapshot.title_totals,
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        starred = stars.starred(sign_in.signed_in_user(request))
        self.is_personal = stars.exist()
        return {
            "project": self.project,
            "is_starred": self.project in starred,
            "filter": self.filter,
            "choices": self._choices,
            "groups": board_rows.build_groups(
                self.list_page, self.pipelines, self.stages, self.cells, starred
            ),
            "page": self.list_page,
            "page_urls": self._page_urls,
            "empty": self._empty_state,
        }

    def own_status_parts(self) -> list[LivePart]:
        # With time alone a failure no longer needs attention, and an approval begins to. A page
        # may have been hidden meanwhile, so all failures of a day are included.
        failures = in_flight.failed_runs(
            in_flight.visible_runs(self.permissions), self.snapshot.now
        )
        failed_stages = failures.order_by().values_list("stage", flat=True)
        stage_keys = {*failed_stages, *(run.stage for run in self.snapshot.attention)}
        choices = render_part("board-choices", "pages/board.html#choices", choices=self._choices)
        return [choices, *self._cell_parts(stage_keys)]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        # Other stages show by how many releases they are behind.
        pipelines = {run.stage.pipeline_id for run in runs}
        return self._cell_parts(
            {stage.pk for stage in self.stages if stage.pipeline_id in pipelines}
        )

    @property
    def _empty_state(self) -> EmptyState:
        if self.filter.mine == frozenset():
            return empty_states.no_stars(self.filter.mine_url)
        return empty_states.pipelines(
            self.permissions,
            is_incomplete=bool(self.data_age.incomplete_text),
            is_filtered=bool(self.filter),
        )

    @property
    def _choices(self) -> list[dict[str, Any]]:
        return self.filter.choices(self.list_page.counts)

    @property
    def _page_urls(self) -> dict[str, str]:
        page = self.list_page
        numbers = {"previous": page.number - 1, "next": page.number + 1}
        return {
            name: self.filter.page_url(number)
            for name, number in numbers.items()
            if 1 <= number <= page.page_count
        }

    def _cell_parts(self, stage_keys: Collection[int]) -> list[LivePart]:
        return [
            LivePart(f"stage-{key}", html) for key, html in self.cells.items() if key in stage_keys
        ]
