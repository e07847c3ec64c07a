"""One stage: the runs of its release flow."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_safe

from dashboard import access, policies, saved_views
from dashboard.database import now
from dashboard.models import Abort, ChangeCounter
from dashboard.sync import interest
from dashboard.web import (
    context,
    empty,
    filters,
    gone,
    history,
    live,
    many,
    overview,
    paging,
    places,
    rows,
    saved,
    sign_in,
    titles,
)


@require_safe
def stage(request: HttpRequest, project: str, pipeline: str, stage: str) -> HttpResponse:
    """Show a stage's runs: in flight on top, then newest first."""
    person, rights = sign_in.person(request), access.rights(request.user)
    version = ChangeCounter.latest()
    shown = places.stage(rights, project, pipeline, stage)
    # An address that asks for anything is left alone, and so is a page that is open already.
    refresh = request.headers.get("HX-Request") == "true"
    default = None if refresh else saved_views.default_of(person)
    if default and not request.GET:
        return redirect(f"{request.path}?{default.query}")
    interest.in_stage(shown, now())
    as_of = live.as_of_place([shown])
    its_place = gone.place(shown.pipeline)
    flying = overview.flights(shown.runs.in_flight())
    terms = live.of(
        request,
        rights,
        "stage",
        version,
        its_place,
        key=shown.pk,
        in_flight=bool(flying),
        aborting=bool(flying) and Abort.objects.open().filter(run__stage=shown).exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    asked = filters.read(request.GET, shown, person)
    status = asked.only_status
    page = paging.page(shown.runs.all(), asked)
    of_page = shown.runs.filter(pk__in=page.keys).newest_first()
    blind = context.of(request).blind
    ids = rows.place_args(shown)
    parts = {
        "title": titles.stage(
            shown,
            overview.together(flying.values()),
            blind=blind,
            incomplete=bool(as_of.incomplete),
        ),
        "place": {
            "project": shown.pipeline.project.name,
            "pipeline": shown.pipeline.name,
            "pipeline_url": reverse("pipeline", args=ids[:2]),
            "stage": shown.name,
            "project_id": ids[0],
            "pipeline_id": ids[1],
            "stage_id": ids[2],
        },
        "gone": its_place,
        "facts": policies.facts(shown),
        "key": shown.pk,
        "strip": history.strips([shown])[shown.pk],
        "filter": asked,
        "all_url": filters.ALL_RUNS,
        "stage_error": live.error_of(shown),
        # Outside of the live region: a refresh does not ask for them.
        "views": SimpleLazyObject(lambda: saved.of(person, rights, asked, default)),
        "may_abort": rights.may_abort(shown).allowed,
        "all": None if status is None else many.all_of_stage(rights, shown).get(status),
        "why_not": rights.why_not([shown] if flying else []),
        "rows": rows.html_of(of_page, rights).values(),
        "empty": empty.no_flow() if shown.has_flow is False else empty.runs(as_of, asked, page),
        "pager": page,
        "as_of": as_of,
    }
    return live.answer(request, "stage.html", terms, parts)
