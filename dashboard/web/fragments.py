"""What an open page has to be told: the parts of it that changed, made of its own partials.

A part is an element with an id. One that a page does not show is skipped there by htmx, so the same
message serves every filter and every page of a list.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.db.models import F
from django.template.loader import render_to_string
from django.utils.html import escape

from dashboard import database
from dashboard.access import Verdict
from dashboard.models import ChangeCounter, Run, Stage
from dashboard.web import empty, live, overview, rows, stages, titles
from dashboard.web.context import Everywhere
from dashboard.web.live import AsOf
from dashboard.web.stages import StageCell
from dashboard.web.views.runs import card

MOST = 60  # changed runs in one message; after more, pages fetch themselves anew
NEW_FOR = timedelta(hours=1)  # a run that ended and is older than this is history, not news
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Channel:
    """What a page is about, and what its viewers may do there: all who share it get the same."""

    page: str  # a key of PAGES
    key: int  # of the pipeline, stage or run; 0 where the page is about everything
    may: Verdict


@dataclass(frozen=True, slots=True)
class Part:
    """An element as it is now; `news` is the status of a run that a page may not show yet."""

    id: str
    html: str
    news: str = ""


@dataclass
class News:
    """What there is to tell since a version; each thing is read once for all channels."""

    version: int
    runs: list[Run]  # changed, in the order of their changes
    stages: list[Stage]  # all that Northflank still lists
    too_many: bool = False
    now: datetime = field(default_factory=database.now)

    @cached_property
    def everywhere(self) -> Everywhere:
        return Everywhere()

    @cached_property
    def trouble(self) -> Part:
        return Part("trouble", _render("live.html#trouble", everywhere=self.everywhere))

    @cached_property
    def flying(self) -> dict[int, set[str]]:
        return overview.flying()

    @cached_property
    def cells(self) -> Iterable[StageCell]:
        """The board's cells of all stages whose runs changed."""
        touched = {run.stage_id for run in self.runs}
        return _cells(stage for stage in self.stages if stage.pk in touched)

    def title(self, text: str) -> Part:
        return Part("title", _render("live.html#title", title=text))

    def as_of(self, of: AsOf) -> Part:
        return Part("as-of", _render("live.html#as-of", as_of=of))


def read(since: int | None) -> News:
    """Read what changed since a version (None: since now)."""
    version = ChangeCounter.latest()
    runs: list[Run] = []
    if since is not None and since < version:
        changed = Run.objects.filter(version__gt=since).order_by("version")
        # A page of the past: runs that were over long before we first heard of them are on no page.
        changed = changed.exclude(
            in_flight=False, first_seen_at=F("seen_at"), created_at__lt=database.now() - NEW_FOR
        )
        runs = list(changed.with_place().without_detail()[: MOST + 1])
    present = Stage.objects.present().select_related("pipeline__project")
    # A version from the future is another database's.
    too_many = len(runs) > MOST or (since or 0) > version
    return News(version, runs[:MOST], list(present), too_many)


def changed(channel: Channel, news: News) -> list[Part]:
    """Return the parts of a channel's pages that changed with a run."""
    return PAGES[channel.page].changed(channel, news)


def frame(channel: Channel, news: News) -> list[Part]:
    """Return the parts of a channel's pages that may have changed by themselves."""
    return [news.trouble, *PAGES[channel.page].frame(channel, news)]


def encode(parts: Iterable[Part], version: int) -> bytes:
    """Write parts as one message of an event stream."""
    markup = "".join(
        f'<hx-partial hx-target="#{part.id}" hx-swap="outerMorph"'
        f"{f' data-news="{escape(part.news)}"' if part.news else ''}>{part.html}</hx-partial>"
        for part in parts
    )
    return event("", markup, version)


def event(name: str, data: str, version: int) -> bytes:
    """Write one message of an event stream; https://html.spec.whatwg.org/#server-sent-events."""
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "\n".join([*lines, f"id: {version}", "", ""]).encode(errors="replace")


@dataclass(frozen=True, slots=True)
class _Page:
    changed: Callable[[Channel, News], list[Part]]
    frame: Callable[[Channel, News], list[Part]]


def _rows(runs: Collection[Run], may: Verdict, news: Callable[[Run], str]) -> list[Part]:
    ready = rows.html_of_loaded(runs, may)
    return [Part(rows.dom_id(run.run_id), ready[run.pk], news(run)) for run in runs]


def _news(run: Run, news: News) -> str:
    return run.status if run.in_flight or news.now - run.created_at < NEW_FOR else ""


def _now_changed(channel: Channel, news: News) -> list[Part]:
    def fresh(run: Run) -> str:
        # Now shows no other runs; the shape tells when an abort has one come.
        return _news(run, news) if run.in_flight or run.status == "failure" else ""

    return _rows(news.runs, channel.may, fresh)


def _now_frame(channel: Channel, news: News) -> list[Part]:
    counts = overview.counts(news.now, news.flying)
    statuses = overview.news(news.now, news.flying)
    as_of = overview.as_of(news.stages, news.flying, counts)
    return [
        news.as_of(as_of),
        news.title(titles.now(counts.in_flight, statuses, blind=news.everywhere.blind)),
        *(
            Part(heading, _render(f"now.html#{heading}-title", counts=counts))
            for heading in ("in-flight", "aborted", "failed")
        ),
        *(
            Part(nothing.id, _render("runs.html#nothing", empty=nothing))
            for nothing in (empty.in_flight(as_of, news.stages), empty.failures(as_of))
        ),
    ]


def _board_changed(channel: Channel, news: News) -> list[Part]:
    return [Part(f"stage-{cell.key}", _render("board.html#cell", cell=cell)) for cell in news.cells]


def _board_frame(channel: Channel, news: News) -> list[Part]:
    statuses = overview.news(news.now, news.flying)
    return [
        news.as_of(live.as_of_board(news.stages)),
        news.title(titles.board(statuses, blind=news.everywhere.blind)),
    ]


def _pipeline_changed(channel: Channel, news: News) -> list[Part]:
    return [
        Part(rows.dom_id(run.run_id), _render("pipeline.html#brief", row=row), _news(run, news))
        for run in news.runs
        if run.stage.pipeline_id == channel.key
        for row in [rows.row(run, stages.UNSEEN, None)]
    ]


def _pipeline_frame(channel: Channel, news: News) -> list[Part]:
    # Not from the news: a pipeline that is gone has a page too.
    its = list(Stage.objects.filter(pipeline=channel.key).select_related("pipeline__project"))
    if not its:
        return [news.as_of(live.NOTHING)]
    heads = [
        Part(f"stage-{cell.key}", _render("pipeline.html#head", stage=cell)) for cell in _cells(its)
    ]
    return [
        news.as_of(live.as_of(its)),
        news.title(
            titles.pipeline(its[0].pipeline, _flying(its, news), blind=news.everywhere.blind)
        ),
        *heads,
    ]


def _stage_changed(channel: Channel, news: News) -> list[Part]:
    its = [run for run in news.runs if run.stage_id == channel.key]
    return _rows(its, channel.may, lambda run: _news(run, news))


def _stage_frame(channel: Channel, news: News) -> list[Part]:
    # Not from the news: a stage that is gone has a page too.
    stage = Stage.objects.filter(pk=channel.key).select_related("pipeline__project").first()
    if stage is None:
        return [news.as_of(live.NOTHING)]
    return [
        news.as_of(live.as_of([stage])),
        news.title(titles.stage(stage, _flying([stage], news), blind=news.everywhere.blind)),
        Part("stage-error", _render("stage.html#stage-error", stage_error=live.error_of(stage))),
    ]


def _run_changed(channel: Channel, news: News) -> list[Part]:
    if all(run.pk != channel.key for run in news.runs):
        return []
    run = Run.objects.with_place().filter(pk=channel.key).first()
    if run is None:
        return []
    parts = card(run, channel.may, list(run.aborts.order_by("-requested_at")))
    return [Part(rows.dom_id(run.run_id), _render("run.html#card", **parts))]


def _run_frame(channel: Channel, news: News) -> list[Part]:
    run = Run.objects.with_place().without_detail().filter(pk=channel.key).first()
    if run is None:
        return [news.as_of(live.NOTHING)]
    return [
        news.as_of(live.as_of_run(run)),
        news.title(titles.run(run, blind=news.everywhere.blind)),
    ]


PAGES = {
    "now": _Page(_now_changed, _now_frame),
    "board": _Page(_board_changed, _board_frame),
    "pipeline": _Page(_pipeline_changed, _pipeline_frame),
    "stage": _Page(_stage_changed, _stage_frame),
    "run": _Page(_run_changed, _run_frame),
}


def _flying(of: Iterable[Stage], news: News) -> set[str]:
    """The statuses of the runs that are in flight in some stages."""
    return set[str]().union(*(news.flying.get(stage.pk, ()) for stage in of))


def _cells(of: Iterable[Stage]) -> list[StageCell]:
    by_pipeline = stages.cells(of, runs_each=1)
    return [cell for cells in by_pipeline.values() for cell in cells]


def _render(template: str, **parts: Any) -> str:
    return render_to_string(template, parts).strip()
