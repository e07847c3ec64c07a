"""One stage: the runs of its release flow."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard import access, policies
from dashboard.database import now
from dashboard.models import Abort, ChangeCounter
from dashboard.sync import interest
from dashboard.web import context, empty, filters, live, places, rows, titles


@require_safe
def stage(request: HttpRequest, project: str, pipeline: str, stage: str) -> HttpResponse:
    """Show a stage's runs: in flight on top, then newest first."""
    version = ChangeCounter.latest()
    shown = places.stage(project, pipeline, stage)
    interest.in_stage(shown, now())
    verdict = access.may_abort(request.user, shown)
    as_of = live.as_of([shown])
    flying = list(shown.runs.in_flight().order_by().values_list("status", flat=True).distinct())
    terms = live.of(
        request,
        "stage",
        version,
        verdict,
        key=shown.pk,
        in_flight=bool(flying),
        aborting=bool(flying) and Abort.objects.open().filter(run__stage=shown).exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    asked = filters.read(request, shown)
    of_page, pager = filters.page(asked, asked.of(shown.runs.newest_first()))
    blind = context.of(request).blind
    parts = {
        "title": titles.stage(shown, flying, blind=blind),
        "place": {
            "project": shown.pipeline.project.name,
            "pipeline": shown.pipeline.name,
            "pipeline_url": reverse("pipeline", args=rows.place_args(shown)[:2]),
            "stage": shown.name,
        },
        "facts": policies.facts(shown),
        "filter": asked,
        "stage_error": live.error_of(shown),
        "why_not": verdict.why_not if flying else "",
        "rows": rows.html_of(of_page, verdict).values(),
        "empty": empty.no_flow()
        if shown.has_flow is False
        else empty.runs(as_of, filtered=bool(asked.status), all_url=request.path),
        "pager": pager,
        "as_of": as_of,
    }
    return live.answer(request, "stage.html", terms, parts)
