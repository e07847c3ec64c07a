"""What keeps an open page true: its stream, its tag, and how old it is.

A page listens to its stream (views/live.py). Where there is none it asks for its live region again
and again, and is told by the tag that nothing changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Rights
from dashboard.db import threads as db_threads
from dashboard.models import Run, Stage
from dashboard.sync import coverage, freshness, schedule
from dashboard.web.http import lookup, site_context


@dataclass(frozen=True, slots=True)
class Live:
    """How a page's live region is kept true: by which stream or, without it, how often asked."""

    stream: str
    url: str
    tag: str
    seconds: int
    follow: bool  # an abort is under way: without JavaScript the whole page refreshes


@dataclass(frozen=True, slots=True)
class AsOf:
    """How old what the page shows is."""

    at: datetime | None
    stale: bool
    text: str | Promise = ""
    elsewhere: str = ""  # what the page can't show: the status page tells more
    incomplete: str = ""  # what was not looked at yet; empty: all was
    # What decides the page beside its runs: which stages there are, and which were read. A page
    # that hears of another shape than its own fetches itself.
    shape: str = ""


NOTHING = AsOf(
    None, stale=True, text=gettext_lazy("This is no longer known here."), shape="nothing"
)


def as_of(stages: Sequence[Stage]) -> AsOf:
    """Say how old the mirror of `stages` is: as old as the one read longest ago."""
    now = db_threads.now()
    shape = _shape(stages)
    relevant = [stage for stage in stages if stage.has_flow is not False] or stages
    read = [stage.synced_at for stage in relevant if stage.synced_at is not None]
    late = any(freshness.is_late(stage.promised_at, now) for stage in relevant)
    if not read:
        text = _("Northflank has not been read yet.")
        return AsOf(None, stale=True, text=text, shape=shape)
    return AsOf(min(read), stale=late, shape=shape)


def as_of_place(stages: Sequence[Stage]) -> AsOf:
    """Say the same of a pipeline's stages or of one, and what of them was not looked at yet."""
    present = [
        stage
        for stage in stages
        if stage.pipeline.gone_at is None and stage.pipeline.project.gone_at is None
    ]
    unread = coverage.measure_stages(present, db_threads.now()).text
    return replace(as_of(stages), incomplete=unread)


def _shape(stages: Sequence[Stage], *facts: object) -> str:
    known = sorted((stage.pk, stage.has_flow, stage.synced_at is None) for stage in stages)
    return _fingerprint((known, facts))


def _fingerprint(of: object) -> str:
    return blake2b(repr(of).encode(), digest_size=6).hexdigest()


def as_of_all(
    rights: Rights, stages: Sequence[Stage], *facts: object, shown: Sequence[Stage] = ()
) -> AsOf:
    """Say how old a page is that speaks of all `stages`, and shows runs of those in `shown`.

    They are all that the person may see; `facts` are what else decides the page's shape.
    """
    now = db_threads.now()
    relevant = [stage for stage in stages if stage.has_flow is not False]
    known = freshness.Facts(
        stages=len(relevant),
        late=sum(
            freshness.is_late(stage.promised_at, now) and schedule.gap(stage, now) is None
            for stage in relevant
        ),
        failing=sum(bool(stage.error) for stage in relevant),
        lists_failing=lookup.failing_lists(rights).count(),
        partial=sum(stage.is_partial for stage in relevant) + lookup.partial_lists(rights).count(),
    )
    of_shown = as_of(shown or stages)
    if not stages and not rights.sees_all:
        of_shown = replace(of_shown, text=freshness.nothing_seen())
    return replace(
        of_shown,
        stale=of_shown.stale or known.late > 0,
        elsewhere=freshness.in_part(known),
        incomplete=coverage.measure(stages, lookup.lists(rights), now).text,
        shape=_shape(stages, *facts),
    )


def as_of_run(run: Run) -> AsOf:
    """Say how old what is shown of one run is."""
    stage = run.stage
    vouched = [run.seen_at, run.detail_seen_at]
    at = max(when for when in vouched if when is not None)
    if not run.in_flight:
        return AsOf(at, stale=False)
    late = freshness.is_late(stage.promised_at, db_threads.now())
    return AsOf(at, stale=late)


def as_of_board(rights: Rights, stages: Sequence[Stage]) -> AsOf:
    """Say how old the board is, whose cells also show what keeps a stage from being read."""
    errors = sorted((stage.pk, stage.error_message) for stage in stages if stage.error)
    return as_of_all(rights, stages, errors)


def as_of_list(newest: object) -> AsOf:
    """Return the terms of a page that is a list of our own: its rows tell their own ages.

    `newest` is its first page, whichever part of it is shown: what happens, happens there.
    """
    return AsOf(None, stale=False, shape=_fingerprint(newest))


def error_of(stage: Stage) -> dict[str, Any] | None:
    """Return what keeps a stage, or a part of it, from being read and since when, or None."""
    if stage.error:
        return {"text": stage.error_message, "since": stage.error_since}
    text = freshness.partial(stage.left_out, stage.surplus)
    return {"text": text, "since": None} if text else None


def of(
    request: HttpRequest,
    rights: Rights,
    page: str,
    version: int,
    *facts: object,
    key: int = 0,
    any_change: bool = True,
    in_flight: bool,
    aborting: bool,
    as_of: AsOf,
) -> Live:
    """Make the live region's terms.

    `page` names its stream, where it has one (see fragments.PAGES); `version` is the latest change,
    read before anything that the page shows; `key` is that of the pipeline, stage or run the page
    is about; `facts` are what else decides it, or all that does unless `any_change` may.
    """
    told = site_context.of(request).trouble
    zone = timezone.get_current_timezone_name()
    parts = (
        version if any_change else 0,
        as_of,
        told,
        request.get_full_path(),
        rights.tag,
        zone,
        *facts,
    )
    follows = QueryDict(mutable=True)
    follows.update({"page": page, "key": str(key), "since": str(version)})
    return Live(
        stream=f"{reverse('live')}?{follows.urlencode()}" if page else "",
        url=request.get_full_path(),
        tag=blake2b(repr(parts).encode(), digest_size=9).hexdigest(),
        seconds=2 if aborting else 4 if in_flight else 15,
        follow=aborting,
    )


def unchanged(request: HttpRequest, live: Live) -> bool:
    """Say whether the browser already shows what the page would."""
    return request.headers.get("HX-PTag") == live.tag


def answer(request: HttpRequest, template: str, live: Live, parts: dict[str, Any]) -> HttpResponse:
    """Render the page or, for its own refresh, the live region alone."""
    if request.headers.get("HX-Request") == "true":
        response = render(request, f"{template}#live", {"live": live, **parts})
        response["HX-PTag"] = live.tag
    else:
        response = render(request, template, {"live": live, **parts})
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def not_modified(live: Live) -> HttpResponse:
    """Say that nothing changed; htmx then leaves the page alone."""
    response = HttpResponseNotModified()
    response["HX-PTag"] = live.tag
    return response
