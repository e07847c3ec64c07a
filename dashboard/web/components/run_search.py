"""The search for a run that was never read, as its pages tell of it."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django_htmx.http import HttpResponseClientRefresh

from dashboard.accounts.permissions import Rights
from dashboard.models import Stage
from dashboard.models.catalog import StageName
from dashboard.sync import run_lookup
from dashboard.sync.run_lookup import Search
from dashboard.web.http import lookup
from dashboard.web.http.lookup import Candidates, NothingHere

# Seconds until the page asks again: each time the search goes on by a step. One that waits is
# ended by the reading of the stages, or goes on later.
GOING, WAITING = 2, 15
# The same without JavaScript: the page then loads as a whole, while somebody may choose a place.
RELOADED, RELOADED_LATER = 5, 60
MOST_PIPELINES = 300  # to choose among without a project


@dataclass(frozen=True, slots=True)
class Option:
    """One line of a list to choose from."""

    value: str
    label: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Form:
    """The choice of a run's place, of what a person may see."""

    address: str
    projects: list[Option]
    pipelines: list[tuple[str, list[Option]]]  # with their projects
    stages: list[Option]
    too_many: bool  # pipelines, until a project is chosen
    others: list[tuple[str, str]]  # what else the address carries


def hints(request: HttpRequest) -> dict[str, str]:
    """Return what the address says of the run's project, pipeline and stage; empty: nothing."""
    # PostgreSQL takes no NUL.
    return {part: request.GET.get(part, "").replace("\0", "") for part in lookup.HINTS}


def goes_on(request: HttpRequest, rights: Rights, run_id: str, so_far: Search) -> HttpResponse:
    """Say how far it has come; the page asks again by itself."""
    htmx = request.headers.get("HX-Request") == "true"
    waits = bool(so_far.why_not)
    parts = {
        "run_id": run_id,
        "search": so_far,
        "spent": run_lookup.spent(),
        "address": request.get_full_path(),
        "seconds": WAITING if waits else GOING,
        "reload": RELOADED_LATER if waits else RELOADED,
        "form": None if htmx else form(request, rights, run_id),
    }
    response = render(request, "looking.html#live" if htmx else "looking.html", parts)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


def ended(request: HttpRequest) -> HttpResponse | None:
    """Have a page that waited for the end load itself, which leads to the run or says why not."""
    return HttpResponseClientRefresh() if request.headers.get("HX-Request") == "true" else None


def in_vain(request: HttpRequest, rights: Rights, run_id: str, asked: Candidates) -> NothingHere:
    """Return what to raise: where it was looked for, and what can be done."""
    told = _("No run “%(run)s” is known here.") % {"run": run_id}
    n = len(asked.stages)
    if asked.narrowed:
        told += " " + ngettext(
            "Northflank does not know it either in the one stage that fits the address.",
            "Northflank does not know it either in any of the %(n)s stages that fit the address.",
            n,
        ) % {"n": n}
    elif n:
        told += " " + ngettext(
            "Northflank does not know it either in the one stage that you see.",
            "Northflank does not know it either in any of the %(n)s stages that you see.",
            n,
        ) % {"n": n}
    told += " " + _("It may have been deleted there, or the link was cut short.")
    said = hints(request)
    onward = [_everywhere(run_id, asked.everywhere)] if asked.narrowed else []
    try:
        near = lookup.pipeline(rights, said["project"], said["pipeline"])
    except NothingHere:
        pass
    else:
        label = _("The stages of %(pipeline)s") % {"pipeline": near}
        onward.append((label, reverse("pipeline", args=[near.project.slug, near.slug])))
    again = request.META.get("QUERY_STRING", "")
    return NothingHere(
        told,
        *onward,
        **_answered(asked.stages, run_id, again),
        form=form(request, rights, run_id) if n else None,
    )


def not_in(stage: Stage, rights: Rights, run_id: str, why: str) -> NothingHere:
    """Return what to raise where a stage, asked for one run, does not know it."""
    place = stage.pipeline.project.slug, stage.pipeline.slug, stage.name.lower()
    again = urlencode(dict(zip(lookup.HINTS, place, strict=True)))
    everywhere = lookup.candidates(rights, dict.fromkeys(lookup.HINTS, "")).everywhere
    onward = [_everywhere(run_id, everywhere)] if everywhere > 1 else []
    return lookup.no_run(stage, run_id, why, *onward, **_answered([stage.pk], run_id, again))


def form(request: HttpRequest, rights: Rights, run_id: str) -> Form:
    """Return the choice of a place, with what the address says of it."""
    said = {part: value.casefold() for part, value in hints(request).items()}

    def option(part: str, slug: str, name: str) -> Option:
        return Option(slug, name or slug, bool(said[part]) and said[part] in _called(slug, name))

    known = Stage.objects.present().exclude(has_flow=False).filter(rights.places())
    columns = (
        "pipeline__project__slug", "pipeline__project__name", "pipeline__slug", "pipeline__name",
    )  # fmt: skip
    all_ = list(dict.fromkeys(known.order_by(*columns).values_list(*columns)))
    projects = {slug: option("project", slug, name) for slug, name, *_rest in all_}
    chosen = {slug for slug, one in projects.items() if one.chosen} or projects.keys()
    pipelines: dict[str, list[Option]] = {}
    for project, _name, slug, name in all_:
        if project in chosen:
            pipelines.setdefault(project, []).append(option("pipeline", slug, name))
    too_many = sum(map(len, pipelines.values())) > MOST_PIPELINES
    return Form(
        address=reverse("find_run", args=[run_id]),
        projects=list(projects.values()),
        pipelines=[] if too_many else [(projects[p].label, of) for p, of in pipelines.items()],
        stages=[option("stage", name.lower(), name) for name in reversed(StageName.values)],
        too_many=too_many,
        others=[
            (name, value)
            for name, values in request.GET.lists()
            for value in values
            if name not in lookup.HINTS
        ],
    )


def _called(slug: str, name: str) -> set[str]:
    return {slug.casefold(), name.casefold()}


def _everywhere(run_id: str, stages: int) -> tuple[str, str]:
    label = ngettext("Look in the one stage", "Look in all %(n)s stages", stages) % {"n": stages}
    return label, reverse("find_run", args=[run_id])


def _answered(stages: list[int], run_id: str, query: str) -> dict[str, Any]:
    """Return, for the template, when it was asked, until when that counts, and the way to anew."""
    said = run_lookup.answered(stages, run_id)
    address = reverse("look_again", args=[run_id])
    return {"answered": said, "again": f"{address}?{query}" if query else address}
