"""Render the partials that open pages must swap after a change.

A live part is an element with an id. htmx skips one that a page does not show, so one message
serves every filter and every page of a list.
"""

import json
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Exists, F, OuterRef, Q
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import escape
from django.utils.safestring import SafeString

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Acknowledgement, ChangeCounter, Run, Stage
from dashboard.web.components import (
    abort_all,
    abort_history,
    abort_log,
    board_cells,
    bulk_abort_list,
    bulk_abort_result,
    empty_states,
    history_charts,
    in_flight,
    run_row,
    stage_cell,
    sync_report,
    tab_title,
)
from dashboard.web.components.abort_all import AbortAllOffer
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.stage_cell import StageCell
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http.site_context import SiteContext
from dashboard.web.live import region
from dashboard.web.live.region import DataAge
from dashboard.web.pages.run import run_card_context

MAX_RUNS = 60  # changed runs in one message; after more, pages fetch themselves anew
# A concluded run that is older than this does not count as a new run.
ENDED_RUN_MAX_AGE = timedelta(hours=1)
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Channel:
    """The object of a page and its viewers' permissions; all viewers of a channel get the same."""

    page: str  # a key of PAGES
    key: int  # of the pipeline, stage or run; 0 where the page is about everything
    permissions: Permissions
    time_zone: ZoneInfo | None = None  # of the pages' times; None: the dashboard's


@dataclass(frozen=True, slots=True)
class LivePart:
    """One out-of-band swap; `new_status` is set if the page may not list the run yet.

    `filter_values` decide which filtered pages the run belongs to (RunFilter.client_filter). For a
    stage on the board they decide it alone (BoardFilter.client_filter).
    """

    id: str
    html: str
    new_status: str = ""
    filter_values: str = ""


@dataclass
class ChangeSet:
    """What changed since a version; each thing is read once for all channels."""

    version: int
    runs: list[Run]  # changed, in the order of their changes
    stages: list[Stage]  # all that Northflank still lists
    is_truncated: bool = False
    now: datetime = field(default_factory=db_threads.now)
    site: SiteContext = field(default_factory=SiteContext)
    permissions: Permissions = permissions.ALL  # whose eyes it is seen with
    _by_audience: dict[Hashable, "ChangeSet"] = field(default_factory=dict, init=False)
    _memoized_parts: dict[Hashable, list[LivePart]] = field(default_factory=dict, init=False)

    def visible_to(self, channel: Channel) -> "ChangeSet":
        """Return the part of it that the channel's viewers may view.

        Shared by all with the same permissions and time zone.
        """
        rights, time_zone = channel.permissions, channel.time_zone
        if rights.can_view_all and time_zone is None:
            return self
        audience = rights.visible_scopes, time_zone
        if audience not in self._by_audience:
            self._by_audience[audience] = replace(
                self,
                runs=[run for run in self.runs if rights.can_view(run.stage)],
                stages=[stage for stage in self.stages if rights.can_view(stage)],
                permissions=rights,
            )
        return self._by_audience[audience]

    def memoized(self, key: Hashable, build: Callable[[], list[LivePart]]) -> list[LivePart]:
        """Return the parts that `build` makes, built once for all channels."""
        if key not in self._memoized_parts:
            self._memoized_parts[key] = build()
        return self._memoized_parts[key]

    @cached_property
    def upstream_error(self) -> LivePart:
        return LivePart(
            "upstream-error", _render("components/live_region.html#upstream-error", site=self.site)
        )

    @cached_property
    def in_flight_by_stage(self) -> dict[int, InFlightTotals]:
        return in_flight.in_flight_by_stage(self.permissions)

    @cached_property
    def title_totals(self) -> InFlightTotals:
        return in_flight.load_title_totals(self.permissions, self.now, self.in_flight_by_stage)

    @cached_property
    def stage_cells(self) -> Iterable[StageCell]:
        """The board's cells of all stages whose runs changed."""
        changed_stages = {run.stage_id for run in self.runs}
        stage_list = [stage for stage in self.stages if stage.pk in changed_stages]
        return _stage_cells(stage_list, history_charts.render_charts(stage_list, compact=True))

    def title_part(self, tab_title: TabTitle) -> LivePart:
        return LivePart(
            "tab-title", _render("components/live_region.html#tab-title", tab_title=tab_title)
        )

    def data_age_part(self, data_age: DataAge) -> LivePart:
        return LivePart(
            "data-age", _render("components/live_region.html#data-age", data_age=data_age)
        )


def load_changes(since_version: int | None) -> ChangeSet:
    """Load what changed since a version; None: nothing, only the current version."""
    version = ChangeCounter.latest()
    runs: list[Run] = []
    if since_version is not None and since_version < version:
        changed_runs = Run.objects.filter(version__gt=since_version).order_by("version")
        # A page of the past: runs that were over long before we first heard of them are on no page.
        is_acknowledged = Exists(Acknowledgement.objects.filter(run=OuterRef("pk")))
        is_old = Q(in_flight=False, created_at__lt=db_threads.now() - ENDED_RUN_MAX_AGE)
        changed_runs = changed_runs.exclude(
            is_old, ~is_acknowledged, first_synced_at=F("synced_at")
        )
        runs = list(changed_runs.with_stage().without_detail()[: MAX_RUNS + 1])
    listed_stages = Stage.objects.listed().select_related("pipeline__project")
    # A version from the future is another database's.
    is_truncated = len(runs) > MAX_RUNS or (since_version or 0) > version
    return ChangeSet(version, runs[:MAX_RUNS], list(listed_stages), is_truncated)


def changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    """Return the live parts of a channel's pages that changed with a run."""
    with timezone.override(channel.time_zone):
        return PAGES[channel.page].changed_parts(channel, change_set.visible_to(channel))


def status_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    """Return the live parts of a channel's pages that change without a run's change."""
    visible = change_set.visible_to(channel)
    with timezone.override(channel.time_zone):
        # What one may do shows in the rows alone.
        page_parts = visible.memoized(
            (channel.page, channel.key),
            lambda: PAGES[channel.page].status_parts(channel.key, visible),
        )
        return [visible.upstream_error, *page_parts]


def encode_parts(parts: Iterable[LivePart], version: int) -> bytes:
    """Write parts as one message of an event stream."""
    markup = "".join(
        f'<hx-partial hx-target="#{part.id}" hx-swap="outerMorph"'
        f"{f' data-news="{escape(part.new_status)}"' if part.new_status else ''}"
        f"{f' data-facts="{escape(part.filter_values)}"' if part.filter_values else ''}>"
        f"{part.html}</hx-partial>"
        for part in parts
    )
    return encode_event("", markup, version)


def encode_event(name: str, data: str, version: int) -> bytes:
    """Write one message of an event stream; https://html.spec.whatwg.org/#server-sent-events."""
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "\n".join([*lines, f"id: {version}", "", ""]).encode(errors="replace")


@dataclass(frozen=True, slots=True)
class _PageParts:
    changed_parts: Callable[[Channel, ChangeSet], list[LivePart]]
    status_parts: Callable[[int, ChangeSet], list[LivePart]]


def _row_parts(
    runs: Collection[Run], viewer_permissions: Permissions, new_status: Callable[[Run], str]
) -> list[LivePart]:
    html_by_pk = run_row.render_loaded(runs, viewer_permissions)
    return [
        LivePart(
            run_row.dom_id(run.run_id),
            html_by_pk[run.pk],
            new_status=(status_value := new_status(run)),
            filter_values=_filter_values(run) if status_value else "",
        )
        for run in runs
    ]


def _filter_values(run: Run) -> str:
    return json.dumps(
        {
            "inFlight": run.in_flight,
            "overdue": run.overdue_severity > 0,
            "made": run.created_at.timestamp() * 1000,
            "text": "\n".join((run.name, run.run_id, run.step)).lower(),
        }
    )


def _new_status(run: Run, change_set: ChangeSet) -> str:
    return (
        run.status if run.in_flight or change_set.now - run.created_at < ENDED_RUN_MAX_AGE else ""
    )


def _abort_all_parts(offers: Iterable[AbortAllOffer]) -> list[LivePart]:
    """The buttons to abort all runs of each filter, with their counts."""
    return [
        LivePart(offer.id, _render("pages/bulk_abort_confirm.html#abort-all", abort_all=offer))
        for offer in offers
    ]


def _now_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    def new_status(run: Run) -> str:
        # Now shows no other runs; the shape tells when an abort has one come.
        return _new_status(run, change_set) if run.in_flight or run.status == "failure" else ""

    offer = abort_all.offer_for_now(channel.permissions) if change_set.runs else None
    return [
        *_row_parts(change_set.runs, channel.permissions, new_status),
        *_abort_all_parts([offer] if offer else []),
    ]


def _now_status_parts(_key: int, change_set: ChangeSet) -> list[LivePart]:
    counts = in_flight.load_counts(
        change_set.permissions, change_set.now, change_set.in_flight_by_stage
    )
    data_age = in_flight.data_age(
        change_set.permissions, change_set.stages, change_set.in_flight_by_stage, counts
    )
    return [
        change_set.data_age_part(data_age),
        change_set.title_part(
            tab_title.now(
                counts.in_flight,
                change_set.title_totals,
                upstream_down=change_set.site.upstream_down,
                incomplete=bool(data_age.incomplete_text),
            )
        ),
        *(
            LivePart(
                section,
                _render(f"pages/now.html#{section}-title", counts=counts, data_age=data_age),
            )
            for section in ("attention", "in-flight", "aborted", "failed")
        ),
        *(
            LivePart(empty_state.id, _render("components/run_row.html#empty", empty=empty_state))
            for empty_state in (
                empty_states.attention(data_age, change_set.stages),
                empty_states.in_flight(
                    change_set.permissions, data_age, change_set.stages, counts.overdue
                ),
                empty_states.failures(change_set.permissions, data_age, counts.recently_failed),
            )
        ),
    ]


def _board_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    pipelines = {stage.pk: stage.pipeline for stage in change_set.stages}
    return [
        LivePart(
            f"stage-{cell.key}",
            _render("pages/board.html#stage-cell", cell=cell),
            new_status="stage",
            filter_values=board_cells.filter_values(pipelines[cell.key], cell),
        )
        for cell in change_set.stage_cells
    ]


def _board_status_parts(_key: int, change_set: ChangeSet) -> list[LivePart]:
    return [
        change_set.data_age_part(
            data_age := region.board_data_age(change_set.permissions, change_set.stages)
        ),
        change_set.title_part(
            tab_title.board(
                change_set.title_totals,
                upstream_down=change_set.site.upstream_down,
                incomplete=bool(data_age.incomplete_text),
            )
        ),
    ]


def _pipeline_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    runs = [run for run in change_set.runs if run.stage.pipeline_id == channel.key]
    run_parts = [
        LivePart(
            run_row.dom_id(run.run_id),
            _render("pages/pipeline.html#run-item", row=row),
            _new_status(run, change_set),
        )
        for run in runs
        for row in [run_row.build_row(run, stage_cell.DENIED, None)]
    ]
    return [*run_parts, *_history_parts(runs)]


def _pipeline_status_parts(key: int, change_set: ChangeSet) -> list[LivePart]:
    # Not from the change set: a removed pipeline has a page too.
    visible = Stage.objects.filter(change_set.permissions.stage_filter(), pipeline=key)
    stage_list = list(visible.select_related("pipeline__project"))
    if not stage_list:
        return [change_set.data_age_part(region.EMPTY)]
    head_parts = [
        LivePart(f"stage-{cell.key}", _render("pages/pipeline.html#stage-header", stage=cell))
        for cell in _stage_cells(stage_list)
    ]
    return [
        change_set.data_age_part(data_age := region.place_data_age(stage_list)),
        change_set.title_part(
            tab_title.pipeline(
                stage_list[0].pipeline,
                _in_flight_totals(stage_list, change_set),
                upstream_down=change_set.site.upstream_down,
                incomplete=bool(data_age.incomplete_text),
            )
        ),
        *head_parts,
    ]


def _stage_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    runs = [run for run in change_set.runs if run.stage_id == channel.key]
    offers = abort_all.offers_for_stage(channel.permissions, runs[0].stage).values() if runs else ()
    row_parts = _row_parts(runs, channel.permissions, lambda run: _new_status(run, change_set))
    return [*row_parts, *_abort_all_parts(offers), *_history_parts(runs)]


def _stage_status_parts(key: int, change_set: ChangeSet) -> list[LivePart]:
    # Not from the change set: a removed stage has a page too.
    stage = Stage.objects.filter(pk=key).select_related("pipeline__project").first()
    if stage is None:
        return [change_set.data_age_part(region.EMPTY)]
    return [
        change_set.data_age_part(data_age := region.place_data_age([stage])),
        change_set.title_part(
            tab_title.stage(
                stage,
                _in_flight_totals([stage], change_set),
                upstream_down=change_set.site.upstream_down,
                incomplete=bool(data_age.incomplete_text),
            )
        ),
        LivePart(
            "stage-error",
            _render("pages/stage.html#stage-error", stage_error=region.stage_error(stage)),
        ),
    ]


def _run_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    key, viewer_permissions = channel.key, channel.permissions
    history_parts = change_set.memoized(("around", key), lambda: _history_part(key, change_set))
    place_pks = Run.objects.filter(pk=key).values_list("stage", "stage__pipeline").first()
    if place_pks is None or place_pks[1] not in {run.stage.pipeline_id for run in change_set.runs}:
        return history_parts
    # What is usual is learned as runs of the stage end, and stands at each step.
    baseline_may_change = any(
        run.stage_id == place_pks[0] and not run.in_flight for run in change_set.runs
    )
    if baseline_may_change or key in {run.pk for run in change_set.runs}:
        return [
            *change_set.memoized(
                ("card", key, viewer_permissions), lambda: _card_part(key, viewer_permissions)
            ),
            *history_parts,
        ]
    return [
        *change_set.memoized(
            ("beside", key, viewer_permissions), lambda: _card_sections(key, viewer_permissions)
        ),
        *history_parts,
    ]


def _history_part(key: int, change_set: ChangeSet) -> list[LivePart]:
    """The history chart of a run's stage, if another of its runs has concluded."""
    ended_stages = {run.stage_id for run in change_set.runs if not run.in_flight}
    stages = Stage.objects.filter(pk__in=ended_stages, runs=key) if ended_stages else ()
    return _history_chart_parts(list(stages), marked_run=key) if stages else []


def _card_part(key: int, viewer_permissions: Permissions) -> list[LivePart]:
    run = Run.objects.with_stage().filter(pk=key).first()
    if run is None:
        return []
    template_context = run_card_context(run, viewer_permissions, abort_history.load_aborts(run))
    return [
        LivePart(run_row.dom_id(run.run_id), _render("pages/run.html#card", **template_context))
    ]


def _card_sections(key: int, viewer_permissions: Permissions) -> list[LivePart]:
    """The sections of a run's card about other runs; without its steps, which may be hundreds."""
    run = Run.objects.with_stage().filter(pk=key).first()
    if run is None:
        return []
    template_context = run_card_context(run, viewer_permissions, abort_history.load_aborts(run))
    element_ids = [
        "run-summary",
        "incident-summary",
        "related-runs",
        *(["next-steps"] if template_context["next_steps"] else []),
    ]
    return [
        LivePart(element_id, _render(f"pages/run.html#{element_id}", **template_context))
        for element_id in element_ids
    ]


def _run_status_parts(key: int, change_set: ChangeSet) -> list[LivePart]:
    run = Run.objects.with_stage().without_detail().filter(pk=key).first()
    if run is None:
        return [change_set.data_age_part(region.EMPTY)]
    return [
        change_set.data_age_part(region.run_data_age(run)),
        change_set.title_part(tab_title.run(run, upstream_down=change_set.site.upstream_down)),
    ]


def _bulk_abort_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    changed_runs = {run.pk for run in change_set.runs}
    items = [
        item
        for item in bulk_abort_result.visible_items(channel.key, channel.permissions)
        if item.run_id in changed_runs
    ]
    return [
        LivePart(item.dom_id, _render("pages/bulk_abort.html#bulk-abort-item", item=item))
        for item in bulk_abort_result.item_rows(items)
    ]


def _bulk_abort_status_parts(key: int, change_set: ChangeSet) -> list[LivePart]:
    items = bulk_abort_result.visible_items(key, change_set.permissions)
    if not items:
        return [change_set.data_age_part(region.EMPTY)]
    item_rows = bulk_abort_result.item_rows(items)
    summary = bulk_abort_result.summary(items[0].bulk_abort, item_rows, change_set.now)
    return [
        change_set.data_age_part(region.stages_data_age([item.run.stage for item in items])),
        change_set.title_part(
            bulk_abort_result.build_tab_title(
                item_rows, upstream_down=change_set.site.upstream_down
            )
        ),
        LivePart("summary", _render("pages/bulk_abort.html#bulk-abort-summary", summary=summary)),
    ]


def _aborts_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    # New ones change the page's shape.
    aborts = Abort.objects.filter(
        channel.permissions.stage_filter("run__stage"), run__in=change_set.runs
    )
    return [
        LivePart(
            f"abort-{abort.pk}",
            _render("pages/aborts.html#abort-row", abort=abort_log.build_row(abort)),
        )
        for abort in abort_log.with_details(aborts)
    ]


def _no_changed_parts(channel: Channel, change_set: ChangeSet) -> list[LivePart]:
    """These pages list no runs: their status parts are all there is."""
    return []


def _aborts_status_parts(_key: int, change_set: ChangeSet) -> list[LivePart]:
    return [
        change_set.data_age_part(
            region.list_data_age(abort_log.newest_page(change_set.permissions))
        )
    ]


def _bulk_aborts_status_parts(_key: int, change_set: ChangeSet) -> list[LivePart]:
    return [
        change_set.data_age_part(
            region.list_data_age(bulk_abort_list.load_page(change_set.permissions, None))
        )
    ]


def _status_page_parts(_key: int, change_set: ChangeSet) -> list[LivePart]:
    page_status = sync_report.load_status(change_set.permissions, change_set.now)
    upstream_down = change_set.site.upstream_down or not page_status.health.is_syncing
    return [
        change_set.data_age_part(
            region.DataAge(None, is_stale=False)
        ),  # its rows tell their own ages
        change_set.title_part(
            tab_title.status(
                upstream_down=upstream_down, incomplete=bool(page_status.incomplete_text)
            )
        ),
        LivePart("status", _render("pages/status.html#status", status=page_status)),
    ]


PAGES = {
    "now": _PageParts(_now_changed_parts, _now_status_parts),
    "board": _PageParts(_board_changed_parts, _board_status_parts),
    "pipeline": _PageParts(_pipeline_changed_parts, _pipeline_status_parts),
    "stage": _PageParts(_stage_changed_parts, _stage_status_parts),
    "run": _PageParts(_run_changed_parts, _run_status_parts),
    "bulk_abort": _PageParts(_bulk_abort_changed_parts, _bulk_abort_status_parts),
    "aborts": _PageParts(_aborts_changed_parts, _aborts_status_parts),
    "bulk_aborts": _PageParts(_no_changed_parts, _bulk_aborts_status_parts),
    "status": _PageParts(_no_changed_parts, _status_page_parts),
}


def _in_flight_totals(stage_list: Iterable[Stage], change_set: ChangeSet) -> InFlightTotals:
    """Return the in-flight totals of some stages."""
    return in_flight.combine(
        change_set.in_flight_by_stage.get(stage.pk, InFlightTotals()) for stage in stage_list
    )


def _history_parts(runs: Iterable[Run]) -> list[LivePart]:
    """The history charts of stages in which some of these runs have concluded."""
    ended_stages = {run.stage_id: run.stage for run in runs if not run.in_flight}
    return _history_chart_parts(list(ended_stages.values())) if ended_stages else []


def _history_chart_parts(stage_list: Collection[Stage], marked_run: int = 0) -> list[LivePart]:
    return [
        LivePart(
            f"history-chart-{key}",
            _render("components/history_chart.html#history", key=key, chart=history_chart),
        )
        for key, history_chart in history_charts.render_charts(
            stage_list, marked_run=marked_run
        ).items()
    ]


def _stage_cells(
    stage_list: Iterable[Stage], history_charts: Mapping[int, SafeString] | None = None
) -> list[StageCell]:
    by_pipeline = stage_cell.cells_by_pipeline(
        stage_list, runs_per_stage=1, history_charts=history_charts
    )
    return [cell for cells in by_pipeline.values() for cell in cells]


def _render(template: str, **template_context: Any) -> str:
    return render_to_string(template, template_context).strip()
