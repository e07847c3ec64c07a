"""Now: everything in flight, and what failed in the last day, over all projects."""

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from dashboard import access
from dashboard.models import Abort, Run, Stage
from dashboard.web import empty, live, rows

RECENTLY = timedelta(days=1)
MOST = 200  # rows a table; a page with more is no longer read at a glance


@require_GET
def now(request: HttpRequest) -> HttpResponse:
    """Show what is in flight and what failed in the last day."""
    stages = list(Stage.objects.present().exclude(has_flow=False))
    flying = Run.objects.in_flight().order_by("-created_at", "-pk")
    flying_stages = set(flying.order_by().values_list("stage", flat=True).distinct())
    verdict = access.may_abort(request.user)
    as_of = live.as_of([s for s in stages if s.pk in flying_stages] or stages)
    terms = live.of(
        request,
        verdict,
        in_flight=bool(flying_stages),
        aborting=Abort.objects.open().exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    failed = Run.objects.filter(
        status="failure", concluded=True, concluded_at__gt=timezone.now() - RECENTLY
    ).order_by("-concluded_at", "-pk")
    parts = {
        "nav": "now",
        "in_flight": rows.html_of(flying[:MOST], verdict),
        "failed": rows.html_of(failed[:MOST], verdict),
        "counts": {"in_flight": flying.count(), "stages": len(flying_stages)},
        "as_of": as_of,
        "in_flight_empty": empty.in_flight(as_of, any_stage=bool(stages)),
        "failed_empty": empty.failures(as_of),
    }
    return live.answer(request, "now.html", terms, parts)
