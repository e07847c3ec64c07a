"""Board: all pipelines and the latest run of each of their stages."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter, Stage
from dashboard.web.components import board_cells as boards
from dashboard.web.components import empty_states, history_charts, in_flight, stage_cell, tab_title
from dashboard.web.http import lookup, site_context
from dashboard.web.live import region as live_region


@require_safe
def board(request: HttpRequest) -> HttpResponse:
    """Show pipelines by project, with their three stages."""
    rights = permissions.rights(request.user)
    version = ChangeCounter.latest()
    seen = Stage.objects.present().filter(rights.places())
    all_stages = list(seen.select_related("pipeline__project"))
    as_of = live_region.as_of_board(rights, all_stages)
    swept = lookup.are_listed()
    terms = live_region.of(
        request,
        rights,
        "board",
        version,
        swept,
        in_flight=in_flight.in_flight(rights).exists(),
        aborting=in_flight.aborting(rights),
        as_of=as_of,
    )
    if live_region.unchanged(request, terms):
        return live_region.not_modified(terms)
    asked = boards.read(request)
    strips = history_charts.strips(all_stages, brief=True)
    projects = boards.projects(
        rights, asked, stage_cell.cells(all_stages, runs_each=1, strips=strips)
    )
    parts = {
        "nav": "board",
        "title": tab_title.board(
            in_flight.news(rights, timezone.now(), in_flight.flying(rights)),
            blind=site_context.of(request).blind,
            incomplete=bool(as_of.incomplete),
        ),
        "filter": asked,
        "projects": projects,
        "as_of": as_of,
        "empty": empty_states.pipelines(
            rights, swept=swept, incomplete=bool(as_of.incomplete), filtered=bool(asked)
        ),
    }
    return live_region.answer(request, "board.html", terms, parts)
