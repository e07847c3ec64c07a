"""Now: everything in flight, and what failed in the last day, over all projects."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import access
from dashboard.models import Abort, ChangeCounter, Stage
from dashboard.web import context, empty, live, overview, rows, titles

# Rows a table; a page with more is no longer read at a glance.
MOST_IN_FLIGHT = 200
MOST_ENDED = 50


@require_safe
def now(request: HttpRequest) -> HttpResponse:
    """Show what is in flight and what failed in the last day."""
    version = ChangeCounter.latest()
    moment = timezone.now()
    stages = list(Stage.objects.present())
    flying = overview.flying()
    verdict = access.may_abort(request.user)
    counts = overview.counts(moment, flying)
    as_of = overview.as_of(stages, flying, counts)
    terms = live.of(
        request,
        "now",
        version,
        verdict,
        in_flight=bool(flying),
        aborting=Abort.objects.open().exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    blind = context.of(request).blind
    parts = {
        "nav": "now",
        "title": titles.now(counts.in_flight, overview.news(moment, flying), blind=blind),
        "in_flight": rows.html_of(overview.in_flight()[:MOST_IN_FLIGHT], verdict).values(),
        "aborted": rows.html_of(overview.aborted(moment)[:MOST_ENDED], verdict).values(),
        "failed": rows.html_of(overview.failed(moment)[:MOST_ENDED], verdict).values(),
        "counts": counts,
        "why_not": verdict.why_not if flying else "",
        "as_of": as_of,
        "in_flight_empty": empty.in_flight(as_of, stages),
        "failed_empty": empty.failures(as_of),
    }
    return live.answer(request, "now.html", terms, parts)
