"""A page: its data, its template context, and the parts that an open page swaps.

The full view, the refresh of the live region and the event stream use one object of the same class,
so that they can't differ. A page with a stream makes no requests of its own; without one it
refreshes its live region at intervals, and its tag (HX-PTag) shows that nothing changed.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib.messages import get_messages
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse

from dashboard.accounts.permissions import Permissions
from dashboard.models import Run, Stage
from dashboard.web.components import tab_title
from dashboard.web.components.data_age import EMPTY, DataAge
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.runs import history_charts, rendered_rows, run_row, run_section
from dashboard.web.components.runs.row_queries import RowKey
from dashboard.web.components.tab_title import NO_TOTALS, TabTitle
from dashboard.web.http.responses.htmx import render_page
from dashboard.web.live import event_ids
from dashboard.web.live.page_cache import GAPS, PAGE_VERSION, TAG, FinishedPage
from dashboard.web.live.snapshot import Snapshot

# Between two refreshes of an open page without a stream.
REFRESH_SECONDS = 4
# An ended run counts as new on an open page for this long.
ENDED_RUN_MAX_AGE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class LivePart:
    """One out-of-band swap of the element `id`.

    `is_new`: a row that the page lists even though it may not have it yet; the page counts it as a
    new run. `is_unlisted`: a row that the page does not list, but may still have; it stays until
    the next refresh. `rows` are those of which `html` has placeholders
    (components/runs/run_section.py).
    """

    id: str
    html: str
    is_new: bool = False
    is_unlisted: bool = False
    rows: tuple[RowKey, ...] = ()

    def with_rows(self, permissions: Permissions, present: Container[int]) -> "LivePart":
        """Return the part with the rows of runs whose keys are not in `present`."""
        missing = [key for key in self.rows if key.pk not in present]
        if not missing:
            return self
        html_by_pk = rendered_rows.render_rows(missing, permissions)
        return replace(self, html=run_section.fill(self.html, missing, html_by_pk))


class PageRemoved(Exception):
    """What an open page is about is no longer in the database."""


PAGES: dict[str, type["Page"]] = {}  # by name


class Page(ABC):
    """A page as it is at the time of its snapshot.

    A subclass has a `name`, a `template`, `data_age`, `tab_title` and `context`; to update an open
    page it also has `own_status_parts` and `changed_parts`, and `is_visible` if it has a key.

    `key` is the primary key of its pipeline, stage, run or bulk abort, 0 for a page about all;
    `query` is the filter that decides which runs or pipelines it lists. `permissions` view the
    same stages as the snapshot's, and may abort other runs.
    """

    name: ClassVar[str]  # of its stream
    template: ClassVar[str]
    # Whether it differs between users with the same permissions. `context` may set it, to what is
    # the same for all of them.
    is_personal = False

    def __init__(
        self,
        snapshot: Snapshot,
        permissions: Permissions | None = None,
        *,
        key: int = 0,
        query: str = "",
    ) -> None:
        self.snapshot = snapshot
        self.permissions = permissions or snapshot.permissions
        self.key = key
        self.query = query

    def __init_subclass__(cls) -> None:
        PAGES[cls.name] = cls

    @classmethod
    def is_visible(cls, permissions: Permissions, key: int) -> bool:
        """Return whether the page with this key exists and the user may view it."""
        return key == 0

    @property
    def reloads(self) -> bool:
        """Whether it loads itself again without JavaScript, which undoes what users enter."""
        return False

    @property
    @abstractmethod
    def data_age(self) -> DataAge:
        """How old its data is."""

    @property
    @abstractmethod
    def tab_title(self) -> TabTitle:
        """Its tab title and icon."""

    @abstractmethod
    def context(self, request: HttpRequest) -> dict[str, Any]:
        """Return the context of its template, without `live`, `tab_title` and `data_age`."""

    def own_status_parts(self) -> list[LivePart]:
        """Return the status parts that only this page has."""
        return []

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        """Return the parts that may change with a change of these runs, all of them visible."""
        return []

    def status_parts(self) -> list[LivePart]:
        """Return the parts that may change without a change of a run.

        They are the same for all users who may view the same stages.
        """
        site = self.snapshot.site
        upstream_error = render_part(
            "upstream-error", "components/live_region.html#upstream-error", site=site
        )
        try:
            title = render_part(
                "tab-title", "components/live_region.html#tab-title", tab_title=self.tab_title
            )
            return [upstream_error, _data_age_part(self.data_age), title, *self.own_status_parts()]
        except PageRemoved:
            return [upstream_error, _data_age_part(EMPTY)]

    def row_parts(
        self, runs: Collection[Run], new: Container[int] = (), unlisted: Container[int] = ()
    ) -> list[LivePart]:
        """Return the table rows of runs; `new` and `unlisted`: keys of those (`LivePart`)."""
        html_by_pk = rendered_rows.render_loaded(runs, self.permissions)
        return [
            LivePart(
                run_row.dom_id(run.run_id),
                html_by_pk[run.pk],
                is_new=run.pk in new,
                is_unlisted=run.pk in unlisted,
            )
            for run in runs
        ]

    def is_recent(self, run: Run) -> bool:
        """Return whether a run counts as new on an open page that does not show it yet."""
        return run.in_flight or self.snapshot.now - run.ended_at < ENDED_RUN_MAX_AGE

    @cached_property
    def upstream_down(self) -> bool:
        return self.snapshot.site.upstream_down

    def build_title(self, name: str, totals: InFlightTotals = NO_TOTALS) -> TabTitle:
        """Return the tab title of a page of runs with these totals."""
        is_incomplete = bool(self.data_age.incomplete_text)
        return tab_title.build(
            name, totals, upstream_down=self.upstream_down, incomplete=is_incomplete
        )


def render_part(element_id: str, template: str, **context: Any) -> LivePart:
    """Render a partial of a template as the live part of an element."""
    return LivePart(element_id, render_to_string(template, context).strip())


def _data_age_part(data_age: DataAge) -> LivePart:
    return render_part("data-age", "components/live_region.html#data-age", data_age=data_age)


def page_response(request: HttpRequest, page: Page) -> HttpResponse:
    """Render a page or, for a refresh, its live region alone; 304 if the browser has it already."""
    snapshot, has_message = page.snapshot, len(get_messages(request)) > 0
    context = {
        "live": build_live_region(request, page),
        "tab_title": page.tab_title,
        "data_age": page.data_age,
        **page.context(request),
        **GAPS,
    }
    finished = FinishedPage.create(
        render_page(request, page.template, "live", context).content,
        snapshot.version,
        snapshot.now,
        is_personal=page.is_personal,
    )
    response = finished.respond(request, request.user.get_username())
    if not has_message:  # which is shown once
        response.finished_page = finished  # type: ignore[attr-defined]
    return response


def build_live_region(request: HttpRequest, page: Page) -> dict[str, Any]:
    """Return what the template of a page's live region needs, as its context `live`."""
    since = event_ids.encode(PAGE_VERSION, page.permissions)
    stream_parameters = {"page": page.name, "key": page.key, "since": since}
    if page.query:
        stream_parameters["query"] = page.query
    return {
        "page": page.name,
        "stream_url": f"{reverse('live')}?{urlencode(stream_parameters)}",
        "url": request.get_full_path(),
        "tag": TAG,
        "refresh_seconds": REFRESH_SECONDS,
        "reloads": page.reloads,  # after 3 seconds
    }


def ended_stages(runs: Iterable[Run]) -> list[Stage]:
    """Return the stages in which some of these changed runs have ended."""
    return list({run.stage_id: run.stage for run in runs if not run.in_flight}.values())


def chart_parts(stages: Collection[Stage], marked_run: int = 0) -> list[LivePart]:
    """Return the charts of stages; `marked_run` is the key of the run to mark."""
    if not stages:
        return []
    charts = history_charts.render_charts(stages, marked_run=marked_run)
    return [
        render_part(
            f"history-chart-{key}",
            "components/history_chart.html#history",
            key=key,
            chart=chart,
        )
        for key, chart in charts.items()
    ]
