"""One pipeline: its stages side by side."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.models import Abort, ChangeCounter, Run
from dashboard.web import context, live, places, stages, titles

RUNS_EACH = 10


@require_safe
def pipeline(request: HttpRequest, project: str, pipeline: str) -> HttpResponse:
    """Show a pipeline's stages with their latest runs."""
    version = ChangeCounter.latest()
    shown = places.pipeline(project, pipeline)
    flying = Run.objects.in_flight().filter(stage__pipeline=shown).order_by()
    in_flight = set(flying.values_list("status", flat=True).distinct())
    its_stages = list(shown.stages.select_related("pipeline__project"))
    as_of = live.as_of(its_stages)
    terms = live.of(
        request,
        "pipeline",
        version,
        key=shown.pk,
        in_flight=bool(in_flight),
        aborting=Abort.objects.open().filter(run__stage__pipeline=shown).exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    parts = {
        "title": titles.pipeline(shown, in_flight, blind=context.of(request).blind),
        "place": {"project": shown.project.name, "pipeline": shown.name},
        "stages": stages.cells(its_stages, runs_each=RUNS_EACH).get(shown.pk, []),
        "as_of": as_of,
    }
    return live.answer(request, "pipeline.html", terms, parts)
