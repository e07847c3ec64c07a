"""What an open page has to be told: the parts of it that changed, made of its own partials.

A part is an element with an id. One that a page does not show is skipped there by htmx, so the same
message serves every filter and every page of a list.
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
from dashboard.accounts.permissions import Rights
from dashboard.db import threads as db_threads
from dashboard.models import Abort, ChangeCounter, Looking, Run, Stage
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
from dashboard.web.components.abort_all import AllOf
from dashboard.web.components.in_flight import Flights
from dashboard.web.components.stage_cell import StageCell
from dashboard.web.components.tab_title import Title
from dashboard.web.http.site_context import Everywhere
from dashboard.web.live import region as live_region
from dashboard.web.live.region import AsOf
from dashboard.web.pages.run import card

MOST = 60  # changed runs in one message; after more, pages fetch themselves anew
NEW_FOR = timedelta(hours=1)  # a run that ended and is older than this is history, not news
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Channel:
    """What a page is about, and what its viewers may do: all who share it get the same."""

    page: str  # a key of PAGES
    key: int  # of the pipeline, stage or run; 0 where the page is about everything
    rights: Rights
    zone: ZoneInfo | None = None  # of the pages' times; None: the dashboard's


@dataclass(frozen=True, slots=True)
class Part:
    """An element as it is now; `news` is the status of a run that a page may not show yet.

    `facts` are what else decides on which filtered page that run belongs (RunFilter.news). Of a
    stage on the board they decide it alone (BoardFilter.news).
    """

    id: str
    html: str
    news: str = ""
    facts: str = ""


@dataclass
class News:
    """What there is to tell since a version; each thing is read once for all channels."""

    version: int
    runs: list[Run]  # changed, in the order of their changes
    stages: list[Stage]  # all that Northflank still lists
    too_many: bool = False
    now: datetime = field(default_factory=db_threads.now)
    everywhere: Everywhere = field(default_factory=Everywhere)
    rights: Rights = permissions.ALL  # whose eyes it is seen with
    _seen: dict[Hashable, "News"] = field(default_factory=dict, init=False)
    _made: dict[Hashable, list[Part]] = field(default_factory=dict, init=False)

    def seen_by(self, channel: Channel) -> "News":
        """Return what of it is in places that somebody may see.

        All who see the same, and read times in the same zone, share it.
        """
        rights, zone = channel.rights, channel.zone
        if rights.sees_all and zone is None:
            return self
        seen = rights.sees, zone
        if seen not in self._seen:
            self._seen[seen] = replace(
                self,
                runs=[run for run in self.runs if rights.may_see(run.stage)],
                stages=[stage for stage in self.stages if rights.may_see(stage)],
                rights=rights,
            )
        return self._seen[seen]

    def once(self, what: Hashable, make: Callable[[], list[Part]]) -> list[Part]:
        """Return the parts that `make` makes, made for the first channel that wants them."""
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]

    @cached_property
    def trouble(self) -> Part:
        return Part("trouble", _render("live.html#trouble", everywhere=self.everywhere))

    @cached_property
    def flying(self) -> dict[int, Flights]:
        return in_flight.flying(self.rights)

    @cached_property
    def urgent(self) -> Flights:
        return in_flight.news(self.rights, self.now, self.flying)

    @cached_property
    def cells(self) -> Iterable[StageCell]:
        """The board's cells of all stages whose runs changed."""
        touched = {run.stage_id for run in self.runs}
        of = [stage for stage in self.stages if stage.pk in touched]
        return _cells(of, history_charts.strips(of, brief=True))

    def title(self, title: Title) -> Part:
        return Part("title", _render("live.html#title", title=title))

    def as_of(self, of: AsOf) -> Part:
        return Part("as-of", _render("live.html#as-of", as_of=of))


def read(since: int | None) -> News:
    """Read what changed since a version (None: since now)."""
    version = ChangeCounter.latest()
    runs: list[Run] = []
    if since is not None and since < version:
        changed = Run.objects.filter(version__gt=since).order_by("version")
        # A page of the past: runs that were over long before we first heard of them are on no page.
        looked_at = Exists(Looking.objects.filter(run=OuterRef("pk")))
        long_over = Q(in_flight=False, created_at__lt=db_threads.now() - NEW_FOR)
        changed = changed.exclude(long_over, ~looked_at, first_seen_at=F("seen_at"))
        runs = list(changed.with_place().without_detail()[: MOST + 1])
    present = Stage.objects.present().select_related("pipeline__project")
    # A version from the future is another database's.
    too_many = len(runs) > MOST or (since or 0) > version
    return News(version, runs[:MOST], list(present), too_many)


def changed(channel: Channel, news: News) -> list[Part]:
    """Return the parts of a channel's pages that changed with a run."""
    with timezone.override(channel.zone):
        return PAGES[channel.page].changed(channel, news.seen_by(channel))


def frame(channel: Channel, news: News) -> list[Part]:
    """Return the parts of a channel's pages that may have changed by themselves."""
    seen = news.seen_by(channel)
    with timezone.override(channel.zone):
        # What one may do shows in the rows alone.
        of_page = seen.once(
            (channel.page, channel.key), lambda: PAGES[channel.page].frame(channel.key, seen)
        )
        return [seen.trouble, *of_page]


def encode(parts: Iterable[Part], version: int) -> bytes:
    """Write parts as one message of an event stream."""
    markup = "".join(
        f'<hx-partial hx-target="#{part.id}" hx-swap="outerMorph"'
        f"{f' data-news="{escape(part.news)}"' if part.news else ''}"
        f"{f' data-facts="{escape(part.facts)}"' if part.facts else ''}>{part.html}</hx-partial>"
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
    frame: Callable[[int, News], list[Part]]


def _rows(runs: Collection[Run], rights: Rights, news: Callable[[Run], str]) -> list[Part]:
    ready = run_row.html_of_loaded(runs, rights)
    return [
        Part(
            run_row.dom_id(run.run_id),
            ready[run.pk],
            news=(told := news(run)),
            facts=_facts(run) if told else "",
        )
        for run in runs
    ]


def _facts(run: Run) -> str:
    return json.dumps(
        {
            "inFlight": run.in_flight,
            "overdue": run.overdue > 0,
            "made": run.created_at.timestamp() * 1000,
            "text": "\n".join((run.name, run.run_id, run.step)).lower(),
        }
    )


def _news(run: Run, news: News) -> str:
    return run.status if run.in_flight or news.now - run.created_at < NEW_FOR else ""


def _offers(offered: Iterable[AllOf]) -> list[Part]:
    """How many runs can be aborted together now, under each filter of a page."""
    return [Part(all.id, _render("many.html#all", all=all)) for all in offered]


def _now_changed(channel: Channel, news: News) -> list[Part]:
    def fresh(run: Run) -> str:
        # Now shows no other runs; the shape tells when an abort has one come.
        return _news(run, news) if run.in_flight or run.status == "failure" else ""

    offered = abort_all.all_of_now(channel.rights) if news.runs else None
    return [*_rows(news.runs, channel.rights, fresh), *_offers([offered] if offered else [])]


def _now_frame(_key: int, news: News) -> list[Part]:
    counts = in_flight.counts(news.rights, news.now, news.flying)
    as_of = in_flight.as_of(news.rights, news.stages, news.flying, counts)
    return [
        news.as_of(as_of),
        news.title(
            tab_title.now(
                counts.in_flight,
                news.urgent,
                blind=news.everywhere.blind,
                incomplete=bool(as_of.incomplete),
            )
        ),
        *(
            Part(heading, _render(f"now.html#{heading}-title", counts=counts, as_of=as_of))
            for heading in ("attention", "in-flight", "aborted", "failed")
        ),
        *(
            Part(nothing.id, _render("runs.html#nothing", empty=nothing))
            for nothing in (
                empty_states.attention(as_of, news.stages),
                empty_states.in_flight(news.rights, as_of, news.stages, counts.late),
                empty_states.failures(news.rights, as_of, counts.just_failed),
            )
        ),
    ]


def _board_changed(channel: Channel, news: News) -> list[Part]:
    pipelines = {stage.pk: stage.pipeline for stage in news.stages}
    return [
        Part(
            f"stage-{cell.key}",
            _render("board.html#cell", cell=cell),
            news="stage",
            facts=board_cells.facts(pipelines[cell.key], cell),
        )
        for cell in news.cells
    ]


def _board_frame(_key: int, news: News) -> list[Part]:
    return [
        news.as_of(as_of := live_region.as_of_board(news.rights, news.stages)),
        news.title(
            tab_title.board(
                news.urgent, blind=news.everywhere.blind, incomplete=bool(as_of.incomplete)
            )
        ),
    ]


def _pipeline_changed(channel: Channel, news: News) -> list[Part]:
    its = [run for run in news.runs if run.stage.pipeline_id == channel.key]
    briefs = [
        Part(run_row.dom_id(run.run_id), _render("pipeline.html#brief", row=row), _news(run, news))
        for run in its
        for row in [run_row.row(run, stage_cell.UNSEEN, None)]
    ]
    return [*briefs, *_strips(its)]


def _pipeline_frame(key: int, news: News) -> list[Part]:
    # Not from the news: a pipeline that is gone has a page too.
    seen = Stage.objects.filter(news.rights.places(), pipeline=key)
    its = list(seen.select_related("pipeline__project"))
    if not its:
        return [news.as_of(live_region.NOTHING)]
    heads = [
        Part(f"stage-{cell.key}", _render("pipeline.html#head", stage=cell)) for cell in _cells(its)
    ]
    return [
        news.as_of(as_of := live_region.as_of_place(its)),
        news.title(
            tab_title.pipeline(
                its[0].pipeline,
                _flying(its, news),
                blind=news.everywhere.blind,
                incomplete=bool(as_of.incomplete),
            )
        ),
        *heads,
    ]


def _stage_changed(channel: Channel, news: News) -> list[Part]:
    its = [run for run in news.runs if run.stage_id == channel.key]
    offered = abort_all.all_of_stage(channel.rights, its[0].stage).values() if its else ()
    changed = _rows(its, channel.rights, lambda run: _news(run, news))
    return [*changed, *_offers(offered), *_strips(its)]


def _stage_frame(key: int, news: News) -> list[Part]:
    # Not from the news: a stage that is gone has a page too.
    stage = Stage.objects.filter(pk=key).select_related("pipeline__project").first()
    if stage is None:
        return [news.as_of(live_region.NOTHING)]
    return [
        news.as_of(as_of := live_region.as_of_place([stage])),
        news.title(
            tab_title.stage(
                stage,
                _flying([stage], news),
                blind=news.everywhere.blind,
                incomplete=bool(as_of.incomplete),
            )
        ),
        Part(
            "stage-error",
            _render("stage.html#stage-error", stage_error=live_region.error_of(stage)),
        ),
    ]


def _run_changed(channel: Channel, news: News) -> list[Part]:
    key, rights = channel.key, channel.rights
    around = news.once(("around", key), lambda: _around(key, news))
    place = Run.objects.filter(pk=key).values_list("stage", "stage__pipeline").first()
    if place is None or place[1] not in {run.stage.pipeline_id for run in news.runs}:
        return around
    # What is usual is learned as runs of the stage end, and stands at each step.
    learned = any(run.stage_id == place[0] and not run.in_flight for run in news.runs)
    if learned or key in {run.pk for run in news.runs}:
        return [*news.once(("card", key, rights), lambda: _card(key, rights)), *around]
    return [*news.once(("beside", key, rights), lambda: _beside(key, rights)), *around]


def _around(key: int, news: News) -> list[Part]:
    """The history of a run's stage, where another run of it has ended."""
    ended = {run.stage_id for run in news.runs if not run.in_flight}
    stages = Stage.objects.filter(pk__in=ended, runs=key) if ended else ()
    return _histories(list(stages), here=key) if stages else []


def _card(key: int, rights: Rights) -> list[Part]:
    run = Run.objects.with_place().filter(pk=key).first()
    if run is None:
        return []
    parts = card(run, rights, abort_history.of_run(run))
    return [Part(run_row.dom_id(run.run_id), _render("run.html#card", **parts))]


def _beside(key: int, rights: Rights) -> list[Part]:
    """What a run's card tells of others, without its steps, which may be hundreds."""
    run = Run.objects.with_place().filter(pk=key).first()
    if run is None:
        return []
    parts = card(run, rights, abort_history.of_run(run))
    its = ["verdict", "hand-over", "around", *(["next-steps"] if parts["next_steps"] else [])]
    return [Part(id, _render(f"run.html#{id}", **parts)) for id in its]


def _run_frame(key: int, news: News) -> list[Part]:
    run = Run.objects.with_place().without_detail().filter(pk=key).first()
    if run is None:
        return [news.as_of(live_region.NOTHING)]
    return [
        news.as_of(live_region.as_of_run(run)),
        news.title(tab_title.run(run, blind=news.everywhere.blind)),
    ]


def _batch_changed(channel: Channel, news: News) -> list[Part]:
    touched = {run.pk for run in news.runs}
    its = [
        item
        for item in bulk_abort_result.items(channel.key, channel.rights)
        if item.run_id in touched
    ]
    return [
        Part(item.dom_id, _render("batch.html#item", item=item))
        for item in bulk_abort_result.item_rows(its)
    ]


def _batch_frame(key: int, news: News) -> list[Part]:
    its = bulk_abort_result.items(key, news.rights)
    if not its:
        return [news.as_of(live_region.NOTHING)]
    item_rows = bulk_abort_result.item_rows(its)
    summary = bulk_abort_result.summary(its[0].batch, item_rows, news.now)
    return [
        news.as_of(live_region.as_of([item.run.stage for item in its])),
        news.title(bulk_abort_result.title(item_rows, blind=news.everywhere.blind)),
        Part("summary", _render("batch.html#summary", summary=summary)),
    ]


def _aborts_changed(channel: Channel, news: News) -> list[Part]:
    # New ones change the page's shape.
    acts_of = Abort.objects.filter(channel.rights.places("run__stage"), run__in=news.runs)
    return [
        Part(f"act-{act.pk}", _render("audit.html#act", act=abort_log.row(act)))
        for act in abort_log.told(acts_of)
    ]


def _nothing_changed(channel: Channel, news: News) -> list[Part]:
    """No run is on these pages: their frames tell all."""
    return []


def _aborts_frame(_key: int, news: News) -> list[Part]:
    return [news.as_of(live_region.as_of_list(abort_log.newest(news.rights)))]


def _lists_frame(_key: int, news: News) -> list[Part]:
    return [news.as_of(live_region.as_of_list(bulk_abort_list.page(news.rights, None)))]


def _status_frame(_key: int, news: News) -> list[Part]:
    shown = sync_report.of(news.rights, news.now)
    blind = news.everywhere.blind or not shown.verdict.sees
    return [
        news.as_of(live_region.AsOf(None, stale=False)),  # its rows tell their own ages
        news.title(tab_title.status(blind=blind, incomplete=bool(shown.incomplete))),
        Part("status", _render("status.html#all", status=shown)),
    ]


PAGES = {
    "now": _Page(_now_changed, _now_frame),
    "board": _Page(_board_changed, _board_frame),
    "pipeline": _Page(_pipeline_changed, _pipeline_frame),
    "stage": _Page(_stage_changed, _stage_frame),
    "run": _Page(_run_changed, _run_frame),
    "batch": _Page(_batch_changed, _batch_frame),
    "aborts": _Page(_aborts_changed, _aborts_frame),
    "lists": _Page(_nothing_changed, _lists_frame),
    "status": _Page(_nothing_changed, _status_frame),
}


def _flying(of: Iterable[Stage], news: News) -> Flights:
    """What is in flight in some stages."""
    return in_flight.together(news.flying.get(stage.pk, Flights()) for stage in of)


def _strips(runs: Iterable[Run]) -> list[Part]:
    """The histories of the stages in which some of these runs have ended."""
    ended = {run.stage_id: run.stage for run in runs if not run.in_flight}
    return _histories(list(ended.values())) if ended else []


def _histories(of: Collection[Stage], here: int = 0) -> list[Part]:
    return [
        Part(f"strip-{key}", _render("strip.html#history", key=key, strip=strip))
        for key, strip in history_charts.strips(of, here=here).items()
    ]


def _cells(of: Iterable[Stage], strips: Mapping[int, SafeString] | None = None) -> list[StageCell]:
    by_pipeline = stage_cell.cells(of, runs_each=1, strips=strips)
    return [cell for cells in by_pipeline.values() for cell in cells]


def _render(template: str, **parts: Any) -> str:
    return render_to_string(template, parts).strip()
