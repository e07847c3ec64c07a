"""The start page: runs that need attention, other runs in flight, and failures of the last day."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dashboard.accounts import stars
from dashboard.models import Run
from dashboard.texts.rich_text import Message
from dashboard.web.components import my_pipelines
from dashboard.web.components.data_age import DataAge, page_data_age
from dashboard.web.components.lists import empty_states
from dashboard.web.components.now_sections import NowSections
from dashboard.web.components.runs import rendered_rows
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


@require_safe
def now(request: HttpRequest) -> HttpResponse:
    """Show the runs in flight, and those aborted or failed recently."""
    mine = my_pipelines.of_request(request)
    query = urlencode(my_pipelines.parameters(mine))
    return page_response(request, NowPage(Snapshot.for_request(request), query=query))


class NowPage(Page):
    name = "now"
    template = "pages/now.html"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        snapshot, self.mine = self.snapshot, my_pipelines.of_query(QueryDict(self.query))
        if self.mine:  # without any, the page lists nothing, but shows the age of all data
            visible = stars.within(snapshot.permissions, self.mine)
            self.snapshot = Snapshot(visible, snapshot.version, snapshot.now, snapshot.site)
        self.is_personal = self.mine is not None

    @cached_property
    def data_age(self) -> DataAge:
        snapshot = self.snapshot
        return page_data_age(snapshot.report, snapshot.in_flight_stages)

    @property
    def tab_title(self) -> TabTitle:
        count = len(self.sections.attention_runs)
        return self.build_title(
            _("Now (%(count)d)") % {"count": count} if count else _("Now"),
            self.snapshot.title_totals,
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        keys = [key for section in self.sections.all for key in section.rows]
        html_by_pk = rendered_rows.render_rows(keys, self.permissions)
        return {
            "is_mine": self.mine is not None,
            "mine_url": "?mine=1" if self.mine is None else "?",
            "away_url": f"{reverse('away')}{'' if self.mine is None else '?mine=1'}",
            "empty": empty_states.no_stars("?") if self.mine == frozenset() else None,
            "sections": [section.render(html_by_pk) for section in self.sections.all],
            "may_abort": self.permissions.can_abort_anywhere,
            "denied_reason": self._denied_reason,
        }

    def own_status_parts(self) -> list[LivePart]:
        return [
            LivePart(section.id, section.render({}), rows=tuple(section.rows))
            for section in self.sections.all
        ]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        parts = self.row_parts(runs)  # the sections list new runs
        parts.append(
            render_part(
                "denied-reason",
                "components/run_row.html#denied-reason",
                denied_reason=self._denied_reason,
            )
        )
        return parts

    @cached_property
    def sections(self) -> NowSections:
        snapshot = self.snapshot
        return NowSections(
            snapshot.permissions,
            snapshot.now,
            in_flight_by_stage=snapshot.in_flight_by_stage,
            attention_runs=snapshot.attention,
            data_age=self.data_age,
        )

    @property
    def _denied_reason(self) -> Message | str:
        stages = self.snapshot.in_flight_stages
        return self.permissions.abort_denied_reasons(
            {(stage.project_pk, stage.name) for stage in stages}
        )
