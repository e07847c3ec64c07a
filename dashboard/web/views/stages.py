"""One stage: the runs of its release flow."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import access, policies
from dashboard.models import Abort
from dashboard.sync import interest
from dashboard.web import empty, filters, live, places, rows


@require_safe
def stage(request: HttpRequest, project: str, pipeline: str, stage: str) -> HttpResponse:
    """Show a stage's runs: in flight on top, then newest first."""
    shown = places.stage(project, pipeline, stage)
    interest.in_stage(shown, timezone.now())
    verdict = access.may_abort(request.user, shown)
    as_of = live.as_of([shown])
    in_flight = shown.runs.in_flight().exists()
    terms = live.of(
        request,
        verdict,
        in_flight=in_flight,
        aborting=in_flight and Abort.objects.open().filter(run__stage=shown).exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    asked = filters.read(request, shown)
    of_page, pager = filters.page(asked, asked.of(shown.runs.newest_first()))
    ready = rows.html_of(of_page, verdict)
    parts = {
        "place": {
            "project": shown.pipeline.project.name,
            "pipeline": shown.pipeline.name,
            "pipeline_url": reverse("pipeline", args=rows.place_args(shown)[:2]),
            "stage": shown.name,
        },
        "facts": policies.facts(shown),
        "filter": asked,
        "stage_error": {"text": shown.error_message, "since": shown.error_since}
        if shown.error
        else None,
        "why_not": verdict.why_not if in_flight else "",
        "rows": ready,
        "empty": empty.no_flow()
        if shown.has_flow is False
        else empty.runs(as_of, filtered=bool(asked.status), all_url=request.path),
        "pager": pager,
        "as_of": as_of,
    }
    return live.answer(request, "stage.html", terms, parts)
