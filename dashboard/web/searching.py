"""The search for a run that is known by its id alone, as its page tells of it."""

from collections.abc import Mapping

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django_htmx.http import HttpResponseClientRefresh

from dashboard.access import Rights
from dashboard.sync.lookup import Search
from dashboard.web import places
from dashboard.web.places import NothingHere

# Seconds until the page asks again: each time the search goes on by a step. One that waits is
# ended by the reading of the stages, or goes on in the next hour.
GOING, WAITING = 5, 15


def hints(request: HttpRequest) -> dict[str, str]:
    """Return what the address says of the run's project, pipeline and stage; empty: nothing."""
    # PostgreSQL takes no NUL.
    return {part: request.GET.get(part, "").replace("\0", "") for part in places.HINTS}


def goes_on(request: HttpRequest, run_id: str, so_far: Search) -> HttpResponse:
    """Say how far it has come; the page asks again by itself."""
    parts = {
        "run_id": run_id,
        "search": so_far,
        "address": request.get_full_path(),
        "seconds": WAITING if so_far.why_not else GOING,
    }
    htmx = request.headers.get("HX-Request") == "true"
    response = render(request, "looking.html#live" if htmx else "looking.html", parts)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def ended(request: HttpRequest) -> HttpResponse | None:
    """Have a page that waited for the end load itself, which leads to the run or says why not."""
    return HttpResponseClientRefresh() if request.headers.get("HX-Request") == "true" else None


def in_vain(rights: Rights, run_id: str, hints: Mapping[str, str], stages: int) -> NothingHere:
    """Return what to raise: where it was looked for, and what there is nearby."""
    told = _("No run “%(run)s” is known here.") % {"run": run_id}
    if stages:
        told += " " + ngettext(
            "Northflank does not know it either in the one stage that you see.",
            "Northflank does not know it either in any of the %(n)s stages that you see.",
            stages,
        ) % {"n": stages}
    told += " " + _("It may have been deleted there, or the link was cut short.")
    try:
        near = places.pipeline(rights, hints["project"], hints["pipeline"])
    except NothingHere:
        return NothingHere(told)
    label = _("The stages of %(pipeline)s") % {"pipeline": near}
    return NothingHere(told, (label, reverse("pipeline", args=[near.project.slug, near.slug])))
