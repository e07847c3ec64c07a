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

from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.models import Abort, ChangeCounter, Run, Stage
from dashboard.runs import acknowledgements, concurrency, dismissals, overdue
from dashboard.runs import summary as run_summary
from dashboard.sync import run_lookup, watchers
from dashboard.upstream.connection import connection
from dashboard.web.components import (
    abort_history,
    acknowledged_by,
    history_charts,
    incident_summary,
    related_runs,
    removed_notice,
    run_row,
    run_search,
    tab_title,
    timeline,
)
from dashboard.web.http import links, lookup, site_context
from dashboard.web.http.deferred import Waiting, result_of
from dashboard.web.live import region as live_region


@require_safe
def run(request: HttpRequest, project: str, pipeline: str, stage: str, run: str) -> HttpResponse:
    """Show a run; one that was never seen is first asked for, once for everybody."""
    rights = permissions.rights(request.user)
    version = ChangeCounter.latest()
    of = lookup.stage(rights, project, pipeline, stage)
    shown = lookup.run(of, run)
    if shown is None:
        return _never_seen(request, rights, of, run)
    watchers.in_run(shown, now())
    as_of = live_region.as_of_run(shown)
    its_aborts = abort_history.of_run(shown)
    terms = live_region.of(
        request,
        rights,
        "run",
        version,
        removed_notice.run(shown),
        key=shown.pk,
        in_flight=shown.in_flight or shown.next_read_at is not None,
        aborting=any(abort.settled_at is None for abort in its_aborts),
        as_of=as_of,
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    title = tab_title.run(shown, blind=site_context.of(request).blind)
    parts = {
        **card(shown, rights, its_aborts, request.user.pk),
        "at": now(),
        "title": title,
        "stage_key": of.pk,
        "strip": history_charts.strips([of], here=shown.pk)[of.pk],
    }
    return live_region.answer(request, "run.html", terms, parts)


@require_safe
def find(request: HttpRequest, run: str) -> HttpResponse:
    """Lead to a run from its id alone, query string and all; one never seen is looked for."""
    rights = permissions.rights(request.user)
    seen = Run.objects.filter(rights.places("stage")).with_place().filter(run_id=run)
    found = seen.order_by("-created_at").first()
    if found is not None:
        return run_search.ended(request) or _lead_to(request, found.stage, run)
    hints = run_search.hints(request)
    place = lookup.hinted(rights, hints)
    if place is not None:  # which asks for this one run, whatever searches have used
        return run_search.ended(request) or _lead_to(request, place, run)
    possible = lookup.candidates(rights, hints)
    so_far = result_of(request) if possible.stages else run_lookup.Search(0, 0)
    if so_far is None:
        get_token(request)  # as below
        return Waiting(lambda: run_lookup.search(connection(), possible.stages, run))
    if so_far.over and lookup.lists_are_missing(rights):
        so_far = replace(so_far, why_not=_("Northflank’s projects are still being listed."))
    elif so_far.over:
        if waited := run_search.ended(request):
            return waited
        raise run_search.in_vain(request, rights, run, possible)
    return run_search.goes_on(request, rights, run, so_far)


@require_POST
def look_again(request: HttpRequest, run: str) -> HttpResponse:
    """Have a run looked for anew that was nowhere, in the places that the address names."""
    rights = permissions.rights(request.user)
    hints = run_search.hints(request)
    place = lookup.hinted(rights, hints)
    stages = [place.pk] if place is not None else lookup.candidates(rights, hints).stages
    from_when = run_lookup.look_again(stages, run)
    if from_when is not None:
        told = _("It was looked for just now. It can be looked for again at %(time)s.")
        at = f"{timezone.localtime(from_when):%H:%M:%S}"
        messages.info(request, told % {"time": at}, extra_tags="info")
    query = request.META.get("QUERY_STRING", "")
    address = reverse("find_run", args=[run])
    return redirect(f"{address}?{query}" if query else address)


def card(
    shown: Run,
    rights: permissions.Rights,
    its_aborts: list[Abort],
    person: int | None = None,
) -> dict[str, Any]:
    """Return what a run's card shows; the times in its texts read as they do `at` a time.

    Without a `person`, by their key, it is the same for all who have these rights: the page then
    asks for what only one person can say.
    """
    root = timeline.root_of(shown)
    timing = concurrency.timing(shown)
    near = concurrency.near(shown, rights.places("stage"), timing)
    clocks = overdue.clocks(shown, root, timing)
    may = rights.may_abort(shown.stage)
    lookings = acknowledgements.of_run(shown, now())
    looks = [one for one in lookings if one.until is None]
    row = run_row.row(shown, may, its_aborts[0] if its_aborts else None, clocks, looks)
    said = run_summary.of(
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
        "as_of": live_region.as_of_run(shown),
        "row": row,
        "verdict": said,
        "hand_over": incident_summary.of(
            shown, root, timing, said, near, its_aborts, lookings, url=url
        ),
        "gone": removed_notice.run(shown),
        "dismissible": dismissals.can_be_dismissed(shown),
        "dismissed": any(one.undone_at is None for one in dismissed),
        "dismissals": dismissed,
        "looking": acknowledged_by.panel(shown, row.look_url, lookings, now()),
        "for_all": person is None,
        "choice": acknowledged_by.choice(shown, person, rights, lookings) if person else None,
        "description": shown.description,
        "aborts": abort_history.acts(shown, its_aborts),
        "next_steps": abort_history.next_steps(shown, row, its_aborts),
        "around": related_runs.panel(shown, near),
        "timeline": timeline.timeline(shown, root, timing, now()),
        "steps_missing": timeline.missing(shown, root),
        "northflank_url": links.northflank_url(shown),
    }


def _lead_to(request: HttpRequest, stage: Stage, run_id: str) -> HttpResponse:
    address = reverse("run", args=[*run_row.place_args(stage), run_id])
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address)


def _never_seen(
    request: HttpRequest, rights: permissions.Rights, stage: Stage, run_id: str
) -> HttpResponse:
    its_place = removed_notice.place(stage.pipeline)
    why_not = its_place.text if its_place is not None else result_of(request)
    if why_not is None and stage.has_flow is not False:
        get_token(request)  # the page will need its cookie, and the middleware sets it now
        person = request.user.pk
        return Waiting(lambda: run_lookup.find(connection(), stage, run_id, person=person))
    raise run_search.not_in(stage, rights, run_id, why_not or "")
