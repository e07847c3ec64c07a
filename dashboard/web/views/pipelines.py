"""One pipeline: its stages side by side."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard import access
from dashboard.models import Abort, ChangeCounter, Run
from dashboard.web import context, gone, history, live, overview, places, stages, titles

RUNS_EACH = 10


@require_safe
def pipeline(request: HttpRequest, project: str, pipeline: str) -> HttpResponse:
    """Show a pipeline's stages with their latest runs."""
    rights = access.rights(request.user)
    version = ChangeCounter.latest()
    shown = places.pipeline(rights, project, pipeline)
    its_stages = list(shown.stages.filter(rights.places()).select_related("pipeline__project"))
    itself = gone.place(shown)
    flying = overview.flights(Run.objects.in_flight().filter(stage__in=its_stages))
    as_of = live.as_of_place(its_stages)
    terms = live.of(
        request,
        rights,
        "pipeline",
        version,
        itself,
        key=shown.pk,
        in_flight=bool(flying),
        aborting=Abort.objects.open().filter(run__stage__in=its_stages).exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    parts = {
        "title": titles.pipeline(
            shown,
            overview.together(flying.values()),
            blind=context.of(request).blind,
            incomplete=bool(as_of.incomplete),
        ),
        "place": {"project": shown.project.name, "pipeline": shown.name},
        "gone": itself,
        "stages": stages.cells(
            its_stages, runs_each=RUNS_EACH, strips=history.strips(its_stages)
        ).get(shown.pk, []),
        "as_of": as_of,
    }
    return live.answer(request, "pipeline.html", terms, parts)
