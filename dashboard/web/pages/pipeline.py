"""One pipeline: its stages side by side."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.models import Abort, ChangeCounter, Run
from dashboard.web.components import (
    history_charts,
    in_flight,
    removed_notice,
    stage_cell,
    tab_title,
)
from dashboard.web.http import lookup, site_context
from dashboard.web.live import region as live_region

RUNS_EACH = 10


@require_safe
def pipeline(request: HttpRequest, project: str, pipeline: str) -> HttpResponse:
    """Show a pipeline's stages with their latest runs."""
    rights = permissions.rights(request.user)
    version = ChangeCounter.latest()
    shown = lookup.pipeline(rights, project, pipeline)
    its_stages = list(shown.stages.filter(rights.places()).select_related("pipeline__project"))
    itself = removed_notice.place(shown)
    flying = in_flight.flights(Run.objects.in_flight().filter(stage__in=its_stages))
    as_of = live_region.as_of_place(its_stages)
    terms = live_region.of(
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
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    parts = {
        "title": tab_title.pipeline(
            shown,
            in_flight.together(flying.values()),
            blind=site_context.of(request).blind,
            incomplete=bool(as_of.incomplete),
        ),
        "place": {"project": shown.project.name, "pipeline": shown.name},
        "gone": itself,
        "stages": stage_cell.cells(
            its_stages, runs_each=RUNS_EACH, strips=history_charts.strips(its_stages)
        ).get(shown.pk, []),
        "as_of": as_of,
    }
    return live_region.answer(request, "pipeline.html", terms, parts)
