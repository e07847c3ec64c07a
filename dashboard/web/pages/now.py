"""Now: what needs attention, what else is in flight, and what failed in the last day."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter, Stage
from dashboard.web.components import abort_all, empty_states, in_flight, run_row, tab_title
from dashboard.web.http import site_context
from dashboard.web.live import region as live_region

# Rows a table; a page with more is no longer read at a glance.
MOST_IN_FLIGHT = 200
MOST_ENDED = 50


@require_safe
def now(request: HttpRequest) -> HttpResponse:
    """Show what is in flight and what failed in the last day."""
    rights = permissions.rights(request.user)
    version = ChangeCounter.latest()
    moment = timezone.now()
    stages = list(Stage.objects.present().filter(rights.places()).select_related("pipeline"))
    flying = in_flight.flying(rights)
    counts = in_flight.counts(rights, moment, flying)
    as_of = in_flight.as_of(rights, stages, flying, counts)
    terms = live_region.of(
        request,
        rights,
        "now",
        version,
        in_flight=bool(flying),
        aborting=in_flight.aborting(rights),
        as_of=as_of,
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    blind = site_context.of(request).blind
    worst = in_flight.worst(flying, failed=counts.just_failed > 0)
    late, just_failed, waiting, calm, aborted, failed = (
        list(table.values())
        for table in run_row.html_of_each(
            [
                in_flight.late(rights)[:MOST_IN_FLIGHT],
                in_flight.just_failed(rights, moment)[:MOST_ENDED],
                in_flight.waiting_late(rights)[:MOST_IN_FLIGHT],
                in_flight.calm(rights)[:MOST_IN_FLIGHT],
                in_flight.aborted(rights, moment)[:MOST_ENDED],
                in_flight.failed_before(rights, moment)[:MOST_ENDED],
            ],
            rights,
        )
    )
    parts = {
        "nav": "now",
        "title": tab_title.now(
            counts.in_flight, worst, blind=blind, incomplete=bool(as_of.incomplete)
        ),
        "attention": [*late, *just_failed, *waiting],
        "in_flight": calm,
        "aborted": aborted,
        "failed": failed,
        "counts": counts,
        "all": abort_all.all_of_now(rights),
        "why_not": rights.why_not(stage for stage in stages if stage.pk in flying),
        "as_of": as_of,
        "attention_empty": empty_states.attention(as_of, stages),
        "in_flight_empty": empty_states.in_flight(rights, as_of, stages, counts.late),
        "failed_empty": empty_states.failures(rights, as_of, counts.just_failed),
    }
    return live_region.answer(request, "now.html", terms, parts)
