"""A pipeline's page: its stages side by side."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from dashboard.accounts import stars
from dashboard.accounts.permissions import Permissions
from dashboard.models import Pipeline, Run, Stage
from dashboard.sync import watchers
from dashboard.web.components import headings
from dashboard.web.components.aborts import abort_all
from dashboard.web.components.data_age import DataAge, place_data_age
from dashboard.web.components.runs import history_charts, removed_notice, stage_cell
from dashboard.web.components.runs.stage_cell import StageCell
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import lookup
from dashboard.web.http.authentication import sign_in
from dashboard.web.live.page import LivePart, Page, PageRemoved, page_response, render_part
from dashboard.web.live.snapshot import Snapshot

RUNS_PER_STAGE = 10


@require_safe
def pipeline(request: HttpRequest, **ids: str) -> HttpResponse:
    """Show a pipeline's stages, each with its latest runs."""
    snapshot = Snapshot.for_request(request)
    pipeline = lookup.get_pipeline_or_404(snapshot.permissions, **ids)
    page = PipelinePage(snapshot, key=pipeline.pk)
    page.pipeline = pipeline
    watchers.watch_pipeline(pipeline, snapshot.now)
    return page_response(request, page)


class PipelinePage(Page):
    name = "pipeline"
    template = "pages/pipeline.html"

    @classmethod
    def is_visible(cls, permissions: Permissions, key: int) -> bool:
        visible = Pipeline.objects.filter(permissions.project_filter("project"))
        return visible.filter(pk=key).exists()

    @cached_property
    def stages(self) -> list[Stage]:
        """The visible stages; not from the snapshot, since a removed pipeline has a page too."""
        stages = Stage.objects.filter(self.permissions.stage_filter(), pipeline=self.key)
        return list(stages.select_related("pipeline__project"))

    @cached_property
    def pipeline(self) -> Pipeline:
        pipeline = Pipeline.objects.select_related("project").filter(pk=self.key).first()
        if pipeline is None:
            raise PageRemoved
        return pipeline

    @cached_property
    def removal(self) -> removed_notice.RemovedNotice | None:
        return removed_notice.for_pipeline(self.pipeline)

    @cached_property
    def data_age(self) -> DataAge:
        return place_data_age(self.pipeline, self.stages, self.snapshot.sync)

    @property
    def tab_title(self) -> TabTitle:
        return self.build_title(
            headings.cut(str(self.pipeline)),
            self.snapshot.totals_of(self.stages),
        )

    @cached_property
    def cells(self) -> list[StageCell]:
        """The stages, each with its latest runs."""
        cells = stage_cell.find_cells(
            self.stages,
            self.snapshot.in_flight_by_stage,
            self.snapshot.attention,
            runs_per_stage=RUNS_PER_STAGE,
        )
        stage_cell.load_rows(cells)
        return cells

    @cached_property
    def charts(self) -> dict[int, SafeString]:
        """The history charts of the stages, by stage key."""
        return history_charts.render_charts(self.stages)

    def context(self, request: HttpRequest) -> dict[str, Any]:
        starred = stars.starred(sign_in.signed_in_user(request))
        self.is_personal = stars.exist()
        return {
            "pipeline": self.pipeline,
            "is_starred": self.pipeline in starred,
            "removal": self.removal,
            "abort_all": self._abort_all,
            "stages": [(cell, self.charts[cell.stage.pk]) for cell in self.cells],
        }

    def own_status_parts(self) -> list[LivePart]:
        return [
            render_part(
                f"stage-{cell.stage.pk}",
                "pages/pipeline.html#stage",
                stage=cell,
                chart=self.charts[cell.stage.pk],
            )
            for cell in self.cells
        ]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        offer = self._abort_all
        if offer is None or all(run.stage.pipeline_id != self.key for run in runs):
            return []
        return [
            render_part(offer.id, "components/bulk_abort_buttons.html#abort-all", abort_all=offer)
        ]

    @property
    def _abort_all(self) -> abort_all.AbortAllOffer | None:
        return abort_all.offer_for_pipeline(self.permissions, self.key, self.stages)
