"""A stage's page: the runs of its release flow."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_safe

from dashboard.accounts.permissions import Permissions
from dashboard.models import Run, SavedView, Stage
from dashboard.runs import concurrency_policy, saved_views
from dashboard.sync import watchers
from dashboard.web.components import headings
from dashboard.web.components.aborts import abort_all
from dashboard.web.components.data_age import DataAge, place_data_age
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.lists import empty_states, filters, pagination
from dashboard.web.components.lists.filters import RunFilter
from dashboard.web.components.lists.pagination import PageOfRuns
from dashboard.web.components.runs import history_charts, removed_notice, rendered_rows
from dashboard.web.components.runs.row_queries import RowKey
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import links, lookup
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.responses.htmx import is_htmx
from dashboard.web.live.page import (
    LivePart,
    Page,
    PageRemoved,
    chart_parts,
    ended_stages,
    page_response,
    render_part,
)
from dashboard.web.live.snapshot import Snapshot
from dashboard.web.pages.saved_views import build_menu


@require_safe
def stage(request: HttpRequest, **ids: str) -> HttpResponse:
    """Show one page of a stage's runs: runs in flight first, then newest first.

    Redirect to the user's default view if there is one and the URL has no query string.
    """
    user = sign_in.signed_in_user(request)
    snapshot = Snapshot.for_request(request)
    stage = lookup.get_stage_or_404(snapshot.permissions, **ids)
    page = StagePage(snapshot, key=stage.pk)
    page.stage = stage
    # A refresh of an open page does not apply the default view.
    default_view = None if is_htmx(request) else saved_views.default_for(user)
    if default_view and not request.GET:
        return redirect(f"{links.stage_url(stage)}?{default_view.query}")
    watchers.watch_stage(stage, snapshot.now)
    page.filter, page.default_view = filters.parse(request.GET, stage, user), default_view
    page.query = page.filter.stream_query
    return page_response(request, page)


class StagePage(Page):
    name = "stage"
    template = "pages/stage.html"
    default_view: SavedView | None = None

    @classmethod
    def is_visible(cls, permissions: Permissions, key: int) -> bool:
        return Stage.objects.filter(permissions.stage_filter(), pk=key).exists()

    @cached_property
    def stage(self) -> Stage:
        """The stage; not from the snapshot, since a removed stage has a page too."""
        stage = Stage.objects.filter(pk=self.key).select_related("pipeline__project").first()
        if stage is None:
            raise PageRemoved
        return stage

    @cached_property
    def filter(self) -> RunFilter:
        return filters.parse(QueryDict(self.query), self.stage, user=None)

    @cached_property
    def totals(self) -> InFlightTotals:
        return self.snapshot.totals_of([self.stage])

    @cached_property
    def removal(self) -> removed_notice.RemovedNotice | None:
        return removed_notice.for_pipeline(self.stage.pipeline)

    @cached_property
    def data_age(self) -> DataAge:
        return place_data_age(self.stage.pipeline, [self.stage], self.snapshot.sync)

    @property
    def tab_title(self) -> TabTitle:
        return self.build_title(
            f"{headings.cut(str(self.stage.pipeline))} / {self.stage.name}",
            self.totals,
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        stage = self.stage
        page = self._page_of_runs()
        has_views = not is_htmx(request) and SavedView.objects.exists()
        self.is_personal = has_views or self.filter.aborted_by_me
        return {
            "stage": stage,
            "stage_args": links.stage_url_args(stage),
            "removal": self.removal,
            "policy_notes": concurrency_policy.stage_notes(stage),
            "stage_key": stage.pk,
            "refresh_url": self._refresh_url(),
            "chart": history_charts.render_charts([stage])[stage.pk],
            "filter": self.filter,
            "all_url": filters.ALL_RUNS_URL,
            "stage_error": _stage_error(stage),
            # Lazy: outside the live region, so a refresh does not need them.
            "saved_views": SimpleLazyObject(lambda: self._saved_views(request)),
            "may_abort": self.permissions.abort_permission(stage).allowed,
            "may_override_durations": self.permissions.is_superuser,
            "abort_all": self._abort_all(stage),
            "denied_reason": self.permissions.abort_denied_reasons(
                [(stage.pipeline.project_id, stage.name)] if self.totals.count else []
            ),
            "rows": rendered_rows.render_rows(self._row_keys(page), self.permissions).values(),
            "empty": empty_states.no_release_flow()
            if stage.has_flow is False
            else empty_states.runs(self.data_age, self.filter, page),
            "page": page,
        }

    def _refresh_url(self) -> str:
        if self.removal is not None:
            return ""
        url = reverse("refresh_stage", args=links.stage_url_args(self.stage))
        return url + self.filter.url

    def _page_of_runs(self) -> PageOfRuns:
        if not self.filter.parameters and self.filter.cursor is None:
            return pagination.first_page(self.key, self.filter)
        # Runs that the user aborted are found by key: of a stage, SQLite would read them all.
        candidates = Run.objects.all() if self.filter.aborted_by_me else self.stage.runs.all()
        return pagination.page(candidates, self.filter)

    def _row_keys(self, page: PageOfRuns) -> list[RowKey]:
        pipeline = self.stage.pipeline
        names = pipeline.project.name, pipeline.name
        place = pipeline.project_id, self.stage.name, *names
        return [RowKey(run.pk, run.version, run.run_id, *place) for run in page.runs]

    def own_status_parts(self) -> list[LivePart]:
        notes = concurrency_policy.stage_notes(self.stage)
        return [
            render_part("policy-notes", "pages/stage.html#policy-notes", policy_notes=notes),
            render_part(
                "stage-error", "pages/stage.html#stage-error", stage_error=_stage_error(self.stage)
            ),
        ]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        runs = [run for run in runs if run.stage_id == self.key]
        if not runs:
            return []
        new, unlisted = self._new_and_unlisted(runs)
        parts = [*self.row_parts(runs, new, unlisted), *chart_parts(ended_stages(runs))]
        if offer := self._abort_all(runs[0].stage):
            template = "components/bulk_abort_buttons.html#abort-all"
            parts.append(render_part(offer.id, template, abort_all=offer))
        return parts

    def _abort_all(self, stage: Stage) -> abort_all.AbortAllOffer | None:
        status = self.filter.single_status
        if status is None:
            return None
        return abort_all.offer_for_stage(self.permissions, stage, status)

    def _new_and_unlisted(self, runs: Collection[Run]) -> tuple[set[int], set[int]]:
        # With warnings, a part of the query was ignored: the page may list fewer runs.
        if self.query == filters.NO_NEW_RUNS or self.filter.warnings:
            return set(), set()
        matching = self.filter.matching(runs)
        recent = {run.pk for run in runs if self.is_recent(run)}
        return matching & recent, {run.pk for run in runs} - matching

    def _saved_views(self, request: HttpRequest) -> dict[str, Any]:
        return build_menu(
            sign_in.signed_in_user(request), self.permissions, self.filter, self.default_view
        )


def _stage_error(stage: Stage) -> dict[str, Any] | None:
    """Return why the stage can't be read, and since when."""
    return {"text": stage.error_message, "since": stage.error_since} if stage.error else None
