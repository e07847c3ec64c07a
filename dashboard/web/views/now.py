"""Now: what needs attention, what else is in flight, and what failed in the last day."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import access
from dashboard.models import ChangeCounter, Stage
from dashboard.web import context, empty, live, many, overview, rows, titles

# Rows a table; a page with more is no longer read at a glance.
MOST_IN_FLIGHT = 200
MOST_ENDED = 50


@require_safe
def now(request: HttpRequest) -> HttpResponse:
    """Show what is in flight and what failed in the last day."""
    rights = access.rights(request.user)
    version = ChangeCounter.latest()
    moment = timezone.now()
    stages = list(Stage.objects.present().filter(rights.places()).select_related("pipeline"))
    flying = overview.flying(rights)
    counts = overview.counts(rights, moment, flying)
    as_of = overview.as_of(rights, stages, flying, counts)
    terms = live.of(
        request,
        rights,
        "now",
        version,
        in_flight=bool(flying),
        aborting=overview.aborting(rights),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    blind = context.of(request).blind
    worst = overview.worst(flying, failed=counts.just_failed > 0)
    late, just_failed, waiting, calm, aborted, failed = (
        list(table.values())
        for table in rows.html_of_each(
            [
                overview.late(rights)[:MOST_IN_FLIGHT],
                overview.just_failed(rights, moment)[:MOST_ENDED],
                overview.waiting_late(rights)[:MOST_IN_FLIGHT],
                overview.calm(rights)[:MOST_IN_FLIGHT],
                overview.aborted(rights, moment)[:MOST_ENDED],
                overview.failed_before(rights, moment)[:MOST_ENDED],
            ],
            rights,
        )
    )
    parts = {
        "nav": "now",
        "title": titles.now(
            counts.in_flight, worst, blind=blind, incomplete=bool(as_of.incomplete)
        ),
        "attention": [*late, *just_failed, *waiting],
        "in_flight": calm,
        "aborted": aborted,
        "failed": failed,
        "counts": counts,
        "all": many.all_of_now(rights),
        "why_not": rights.why_not(stage for stage in stages if stage.pk in flying),
        "as_of": as_of,
        "attention_empty": empty.attention(as_of, stages),
        "in_flight_empty": empty.in_flight(rights, as_of, stages, counts.late),
        "failed_empty": empty.failures(rights, as_of, counts.just_failed),
    }
    return live.answer(request, "now.html", terms, parts)
