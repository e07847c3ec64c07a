"""One run: how it stands, at which step, and what was done about it."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard import access, around, handover, links, looking, overdue, verdict
from dashboard.database import now
from dashboard.models import Abort, ChangeCounter, Run, Stage
from dashboard.sync import interest, lookup
from dashboard.upstream import connection
from dashboard.web import (
    acts,
    context,
    gone,
    history,
    live,
    lookers,
    neighbours,
    places,
    rows,
    searching,
    steps,
    titles,
)
from dashboard.web.waiting import Waiting, result_of


@require_safe
def run(request: HttpRequest, project: str, pipeline: str, stage: str, run: str) -> HttpResponse:
    """Show a run; one that was never seen is first asked for, once for everybody."""
    rights = access.rights(request.user)
    version = ChangeCounter.latest()
    of = places.stage(rights, project, pipeline, stage)
    shown = places.run(of, run)
    if shown is None:
        return _never_seen(request, of, run)
    interest.in_run(shown, now())
    as_of = live.as_of_run(shown)
    its_aborts = acts.of_run(shown)
    terms = live.of(
        request,
        rights,
        "run",
        version,
        gone.run(shown),
        key=shown.pk,
        in_flight=shown.in_flight or shown.next_read_at is not None,
        aborting=any(abort.settled_at is None for abort in its_aborts),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    title = titles.run(shown, blind=context.of(request).blind)
    parts = {
        **card(shown, rights, its_aborts, request.user.pk),
        "at": now(),
        "title": title,
        "stage_key": of.pk,
        "strip": history.strips([of], here=shown.pk)[of.pk],
    }
    return live.answer(request, "run.html", terms, parts)


@require_safe
def find(request: HttpRequest, run: str) -> HttpResponse:
    """Lead to a run from its id alone, query string and all; one never seen is looked for."""
    rights = access.rights(request.user)
    seen = Run.objects.filter(rights.places("stage")).with_place().filter(run_id=run)
    found = seen.order_by("-created_at").first()
    if found is not None:
        address = reverse("run", args=[*rows.place_args(found.stage), run])
        query = request.META.get("QUERY_STRING", "")
        return searching.ended(request) or redirect(f"{address}?{query}" if query else address)
    hints = searching.hints(request)
    stages = places.likely(rights, hints)
    so_far = result_of(request) if stages else lookup.Search(0, 0)
    if so_far is None:
        get_token(request)  # as below
        return Waiting(lambda: lookup.search(connection(), stages, run))
    if so_far.over:
        if waited := searching.ended(request):
            return waited
        raise searching.in_vain(rights, run, hints, len(stages))
    return searching.goes_on(request, run, so_far)


def card(
    shown: Run,
    rights: access.Rights,
    its_aborts: list[Abort],
    person: int | None = None,
) -> dict[str, Any]:
    """Return what a run's card shows; the times in its texts read as they do `at` a time.

    Without a `person`, by their key, it is the same for all who have these rights: the page then
    asks for what only one person can say.
    """
    root = steps.root_of(shown)
    timing = around.timing(shown)
    near = around.near(shown, rights.places("stage"), timing)
    clocks = overdue.clocks(shown, root, timing)
    may = rights.may_abort(shown.stage)
    lookings = looking.of_run(shown, now())
    looks = [one for one in lookings if one.until is None]
    row = rows.row(shown, may, its_aborts[0] if its_aborts else None, clocks, looks)
    said = verdict.of(
        shown,
        root,
        timing,
        before=len(near.before),
        behind=len(near.behind),
        dropped=near.dropped_in_words,
    )
    url = links.whole(row.url)
    return {
        "at": None,  # None: the card may be kept, and says times by the clock
        "as_of": live.as_of_run(shown),
        "row": row,
        "verdict": said,
        "hand_over": handover.of(shown, root, timing, said, near, its_aborts, lookings, url=url),
        "gone": gone.run(shown),
        "looking": lookers.panel(shown, row.look_url, lookings, now()),
        "for_all": person is None,
        "choice": lookers.choice(shown, person, rights, lookings) if person else None,
        "description": shown.description,
        "aborts": acts.acts(shown, its_aborts),
        "next_steps": acts.next_steps(shown, row, its_aborts),
        "around": neighbours.panel(shown, near),
        "timeline": steps.timeline(shown, root, timing, now()),
        "steps_missing": steps.missing(shown, root),
        "northflank_url": links.northflank_url(shown),
    }


def _never_seen(request: HttpRequest, stage: Stage, run_id: str) -> HttpResponse:
    its_place = gone.place(stage.pipeline)
    why_not = its_place.text if its_place is not None else result_of(request)
    if why_not is None and stage.has_flow is not False:
        get_token(request)  # the page will need its cookie, and the middleware sets it now
        return Waiting(lambda: lookup.find(connection(), stage, run_id))
    raise places.no_run(stage, run_id, why_not or "")
