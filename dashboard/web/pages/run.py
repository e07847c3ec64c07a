"""A run's page: status, steps, aborts, acknowledgements and related runs."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run, Stage
from dashboard.northflank import Node
from dashboard.runs import acknowledgements, concurrency, contents, overdue, steps, waiting_for
from dashboard.runs import summary as run_summary
from dashboard.runs.contents import Content
from dashboard.sync import requests, watchers
from dashboard.sync.reports import sync_state
from dashboard.sync.reports.sync_state import SyncState
from dashboard.web.components import tab_title
from dashboard.web.components.aborts import abort_history, left_running
from dashboard.web.components.aborts.abort_details import AbortEntry
from dashboard.web.components.data_age import DataAge, run_data_age
from dashboard.web.components.runs import (
    acknowledged_by,
    dismissal_panel,
    end_requests,
    history_charts,
    incident_summary,
    log_panel,
    related_runs,
    removed_notice,
    run_row,
    timeline,
)
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import links, lookup
from dashboard.web.http.responses.deferred import Deferred
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

# The sections of the card about other runs; without its steps, which may be hundreds.
_SECTIONS = ("run-summary", "incident-summary", "related-runs", "next-steps")


@require_safe
def run(
    request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str, run_id: str
) -> HttpResponse:
    """Show a run. A run not in the database is first read, once for all users."""
    snapshot = Snapshot.for_request(request)
    place = project_id, pipeline_id, stage_id
    run = lookup.find_run(snapshot.permissions, *place, run_id)
    if run is None:
        stage = lookup.get_stage_or_404(snapshot.permissions, *place)
        return _read_linked_run(request, snapshot.permissions, stage, run_id)
    return _run_response(request, snapshot, run)


def _run_response(request: HttpRequest, snapshot: Snapshot, run: Run) -> HttpResponse:
    watchers.watch_run(run, snapshot.now)
    page = RunPage(snapshot, key=run.pk)
    page.run = run
    return page_response(request, page)


def _read_linked_run(
    request: HttpRequest, user_permissions: Permissions, stage: Stage, run_id: str
) -> HttpResponse:
    removal = removed_notice.for_pipeline(stage.pipeline)
    if removal is not None or requests.has_no_runs(stage):
        reason = removal.text if removal is not None else ""
        raise lookup.run_not_found(stage, run_id, reason)
    get_token(request)  # the middleware sets the CSRF cookie before the run is read, not after

    def render_found(reason: str | None) -> HttpResponse:
        snapshot = Snapshot.for_request(request)
        project, pipeline, name = links.stage_url_args(stage)
        run = lookup.find_run(user_permissions, project, pipeline, name, run_id)
        if run is None:
            raise lookup.run_not_found(stage, run_id, reason or "")
        return _run_response(request, snapshot, run)

    return Deferred(
        lambda: requests.find_in_stage(stage, run_id),
        render_found,
    )


@dataclass(frozen=True, slots=True)
class RunCard:
    """The card of a run: most of its page, and the answer of actions on the run.

    Without `user_pk` it is the same for all users with these permissions; the page then fetches
    the user's own acknowledgement form separately.
    """

    run: Run  # with its detail
    permissions: Permissions
    aborts: list[Abort]
    user_pk: int | None = None
    sync: SyncState | None = None  # None: not read yet

    @classmethod
    def load(cls, run: Run, permissions: Permissions, user_pk: int | None = None) -> "RunCard":
        """Return the card with the run's aborts."""
        return cls(run, permissions, abort_history.load_aborts(run), user_pk)

    def render(self, request: HttpRequest, part: str = "card") -> SafeString:
        """Return the card's element, or a form that needs `user_pk`."""
        return render_to_string(f"pages/run.html#{part}", self.context(), request)

    def part(self) -> LivePart:
        """Return the card as a live part."""
        dom_id = run_row.dom_id(self.run.run_id)
        return render_part(dom_id, "pages/run.html#card", **self.context())

    def section_parts(self) -> list[LivePart]:
        """Return the sections about other runs as live parts."""
        context = self.context()
        return [
            render_part(section, f"pages/run.html#{section}", **context)
            for section in _SECTIONS
            if section != "next-steps" or context["support_text"]
        ]

    def context(self) -> dict[str, Any]:
        """Return the context of the card's template."""
        run, permissions = self.run, self.permissions
        now = db_threads.now()
        root = steps.decode(run.steps)
        timing = concurrency.load_timing(run)
        related = concurrency.load_related_runs(run, permissions.stage_filter("stage"), timing)
        permission = permissions.abort_permission(run.stage)
        run_acknowledgements = acknowledgements.history(run)
        row = run_row.build_row(
            run,
            permission,
            self.aborts[0] if self.aborts else None,
            overdue.timers(run, root, timing),
            acknowledged_by.active(run_acknowledgements),
        )
        headline = run_summary.build(run, root, timing, related)
        url = links.absolute_url(row.urls.page)
        waiting = waiting_for.load(run, root)
        left = left_running.panel(run, root, permission)
        left_works = [entry["work"] for entry in left["rows"]] if left else []
        return {
            "now": None,  # None: the card may be cached, so its texts contain no elapsed times
            "data_age": run_data_age(run, self.sync or sync_state.load(now)),
            "row": row,
            "run_summary": headline,
            "incident_summary": incident_summary.build(
                run,
                root,
                headline,
                related,
                self.aborts,
                run_acknowledgements,
                waiting,
                left_works,
                url=url,
            ),
            "log_place": log_panel.place(run, waiting) if waiting is not None else None,
            "removal": removed_notice.for_run(run),
            "dismissal": dismissal_panel.panel(run, permission),
            "acknowledgements": acknowledged_by.panel(
                run, row.urls.acknowledge, run_acknowledgements, now
            ),
            "is_shared": self.user_pk is None,
            "acknowledgement_form": acknowledged_by.actions(
                run, self.user_pk, permissions, run_acknowledgements
            )
            if self.user_pk
            else None,
            "end_requests": end_requests.panel(run, self.user_pk),
            "description": run.description,
            "aborts": [AbortEntry(abort) for abort in self.aborts],
            "left_running": left,
            "support_text": abort_history.support_text(row, self.aborts),
            "contents": self._contents(root, related.last_success),
            "argument_names": root.argument_names if root is not None else (),
            "related_runs": related_runs.panel(run, related),
            "next_run": related_runs.next_started(run, related),
            "timeline": timeline.build_timeline(run, root, timing, now),
            "steps_missing": timeline.missing_text(run, root),
            "steps_as_of": run.detail_synced_at if run.failures else None,
            "northflank_link": links.northflank_link(run),
        }

    def _contents(self, root: Node | None, last_success: Run | None) -> list[Content]:
        """Return what is in the run; the steps of the last success are read if it has any."""
        found = contents.contents(root, None)
        if not found or last_success is None or last_success.pk == self.run.pk:
            return found
        return contents.contents(root, steps.decode(last_success.steps))


class RunPage(Page):
    name = "run"
    template = "pages/run.html"

    @classmethod
    def is_visible(cls, permissions: Permissions, key: int) -> bool:
        return Run.objects.filter(permissions.stage_filter("stage"), pk=key).exists()

    @cached_property
    def run(self) -> Run:
        run = Run.objects.with_stage().without_detail().filter(pk=self.key).first()
        if run is None:
            raise PageRemoved
        return run

    @cached_property
    def aborts(self) -> list[Abort]:
        return abort_history.load_aborts(self.run)

    @property
    def reloads(self) -> bool:
        """Without JavaScript, until the end of its aborts is known."""
        return any(abort.settled_at is None for abort in self.aborts)

    @cached_property
    def data_age(self) -> DataAge:
        return run_data_age(self.run, self.snapshot.sync)

    @property
    def tab_title(self) -> TabTitle:
        return tab_title.run(self.run, upstream_down=self.upstream_down)

    def context(self, request: HttpRequest) -> dict[str, Any]:
        stage = self.run.stage
        card = RunCard(self.run, self.permissions, self.aborts, request.user.pk, self.snapshot.sync)
        context = card.context()
        # Who has acknowledged the run, or asks to be told of its end, gets another form.
        acknowledgements, asked = context["acknowledgements"], context["end_requests"]
        self.is_personal = bool(
            (acknowledgements and acknowledgements["current"]) or (asked and asked["is_asked"])
        )
        return {
            **context,
            "now": self.snapshot.now,
            "refresh_url": ""
            if removed_notice.for_pipeline(stage.pipeline)
            else reverse("refresh_run", args=[*links.stage_url_args(stage), self.run.run_id]),
            "stage_key": stage.pk,
            "chart": history_charts.render_charts([stage], marked_run=self.key)[stage.pk],
        }

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        stage = Stage.objects.filter(runs=self.key).only("pipeline").first()
        if stage is None or stage.pipeline_id not in {run.stage.pipeline_id for run in runs}:
            return []
        # The typical durations at each step change as runs of the stage end.
        has_ended_run = stage in ended_stages(runs)
        memoized = self.snapshot.memoized
        if has_ended_run or self.key in {run.pk for run in runs}:
            card = memoized(("card", self.key, self.permissions), self._card_parts)
        else:
            card = memoized(("sections", self.key, self.permissions), self._section_parts)
        if not has_ended_run:
            return card
        chart = memoized(("chart", self.key), lambda: chart_parts([stage], marked_run=self.key))
        return [*card, *chart]

    def _load_card(self) -> RunCard:
        # With the detail that `self.run` lacks.
        return RunCard.load(Run.objects.with_stage().get(pk=self.key), self.permissions)

    def _card_parts(self) -> list[LivePart]:
        return [self._load_card().part()]

    def _section_parts(self) -> list[LivePart]:
        return self._load_card().section_parts()
