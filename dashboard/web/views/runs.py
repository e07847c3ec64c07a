"""One run: how it stands, at which step, and what was done about it."""

from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from dashboard import access, around, dismissals, handover, links, looking, overdue, verdict
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
        return _never_seen(request, rights, of, run)
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
        return searching.ended(request) or _lead_to(request, found.stage, run)
    hints = searching.hints(request)
    place = places.hinted(rights, hints)
    if place is not None:  # which asks for this one run, whatever searches have used
        return searching.ended(request) or _lead_to(request, place, run)
    possible = places.candidates(rights, hints)
    so_far = result_of(request) if possible.stages else lookup.Search(0, 0)
    if so_far is None:
        get_token(request)  # as below
        return Waiting(lambda: lookup.search(connection(), possible.stages, run))
    if so_far.over and places.lists_are_missing(rights):
        so_far = replace(so_far, why_not=_("Northflank’s projects are still being listed."))
    elif so_far.over:
        if waited := searching.ended(request):
            return waited
        raise searching.in_vain(request, rights, run, possible)
    return searching.goes_on(request, rights, run, so_far)


@require_POST
def look_again(request: HttpRequest, run: str) -> HttpResponse:
    """Have a run looked for anew that was nowhere, in the places that the address names."""
    rights = access.rights(request.user)
    hints = searching.hints(request)
    place = places.hinted(rights, hints)
    stages = [place.pk] if place is not None else places.candidates(rights, hints).stages
    from_when = lookup.look_again(stages, run)
    if from_when is not None:
        told = _("It was looked for just now. It can be looked for again at %(time)s.")
        at = f"{timezone.localtime(from_when):%H:%M:%S}"
        messages.info(request, told % {"time": at}, extra_tags="info")
    query = request.META.get("QUERY_STRING", "")
    address = reverse("find_run", args=[run])
    return redirect(f"{address}?{query}" if query else address)


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
    dismissed = list(shown.dismissals.all()) if shown.gone_at else []
    url = links.whole(row.url)
    return {
        "at": None,  # None: the card may be kept, and says times by the clock
        "as_of": live.as_of_run(shown),
        "row": row,
        "verdict": said,
        "hand_over": handover.of(shown, root, timing, said, near, its_aborts, lookings, url=url),
        "gone": gone.run(shown),
        "dismissible": dismissals.can_be_dismissed(shown),
        "dismissed": any(one.undone_at is None for one in dismissed),
        "dismissals": dismissed,
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


def _lead_to(request: HttpRequest, stage: Stage, run_id: str) -> HttpResponse:
    address = reverse("run", args=[*rows.place_args(stage), run_id])
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address)


def _never_seen(
    request: HttpRequest, rights: access.Rights, stage: Stage, run_id: str
) -> HttpResponse:
    its_place = gone.place(stage.pipeline)
    why_not = its_place.text if its_place is not None else result_of(request)
    if why_not is None and stage.has_flow is not False:
        get_token(request)  # the page will need its cookie, and the middleware sets it now
        person = request.user.pk
        return Waiting(lambda: lookup.find(connection(), stage, run_id, person=person))
    raise searching.not_in(stage, rights, run_id, why_not or "")
