"""Now: everything in flight, and what failed in the last day, over all projects."""

from datetime import timedelta

from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import access
from dashboard.models import Abort, Run, Stage
from dashboard.web import empty, live, rows

RECENTLY = timedelta(days=1)
# A run that was aborted here stays in sight, so that whoever did it sees what came of it.
JUST_NOW = timedelta(hours=1)
# Rows a table; a page with more is no longer read at a glance.
MOST_IN_FLIGHT = 200
MOST_ENDED = 50


@require_safe
def now(request: HttpRequest) -> HttpResponse:
    """Show what is in flight and what failed in the last day."""
    stages = list(Stage.objects.present().exclude(has_flow=False))
    flying = Run.objects.in_flight().order_by("-created_at", "-pk")
    flying_stages = set(flying.order_by().values_list("stage", flat=True).distinct())
    verdict = access.may_abort(request.user)
    as_of = live.as_of([s for s in stages if s.pk in flying_stages] or stages)
    moment = timezone.now()
    terms = live.of(
        request,
        verdict,
        f"{moment:%H:%M}",  # what is "lately" changes by itself
        in_flight=bool(flying_stages),
        aborting=Abort.objects.open().exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    ended = Coalesce("concluded_at", "updated_at", "created_at")  # the API may leave out the first
    failed = (
        Run.objects.filter(status="failure", concluded=True)
        .annotate(ended=ended)
        .filter(ended__gt=moment - RECENTLY)
        .order_by("-ended", "-pk")
    )
    lately = Abort.objects.filter(requested_at__gt=moment - JUST_NOW).values("run")
    aborted = Run.objects.filter(pk__in=lately, in_flight=False).exclude(
        pk__in=failed.order_by().values("pk")
    )
    parts = {
        "nav": "now",
        "in_flight": rows.html_of(flying[:MOST_IN_FLIGHT], verdict),
        "aborted": rows.html_of(aborted.order_by("-concluded_at", "-pk")[:MOST_ENDED], verdict),
        "failed": rows.html_of(failed[:MOST_ENDED], verdict),
        "counts": {
            "in_flight": flying.count(),
            "stages": len(flying_stages),
            "aborted": aborted.count(),
            "failed": failed.count(),
        },
        "why_not": verdict.why_not if flying_stages else "",
        "as_of": as_of,
        "in_flight_empty": empty.in_flight(as_of, any_stage=bool(stages)),
        "failed_empty": empty.failures(as_of),
    }
    return live.answer(request, "now.html", terms, parts)
