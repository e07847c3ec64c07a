"""Board: all pipelines and the latest run of each of their stages."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import access
from dashboard.models import ChangeCounter, Stage
from dashboard.web import board as boards
from dashboard.web import context, empty, history, live, overview, places, stages, titles


@require_safe
def board(request: HttpRequest) -> HttpResponse:
    """Show pipelines by project, with their three stages."""
    rights = access.rights(request.user)
    version = ChangeCounter.latest()
    seen = Stage.objects.present().filter(rights.places())
    all_stages = list(seen.select_related("pipeline__project"))
    as_of = live.as_of_board(rights, all_stages)
    swept = places.are_listed()
    terms = live.of(
        request,
        rights,
        "board",
        version,
        swept,
        in_flight=overview.in_flight(rights).exists(),
        aborting=overview.aborting(rights),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    asked = boards.read(request)
    strips = history.strips(all_stages, brief=True)
    projects = boards.projects(rights, asked, stages.cells(all_stages, runs_each=1, strips=strips))
    parts = {
        "nav": "board",
        "title": titles.board(
            overview.news(rights, timezone.now(), overview.flying(rights)),
            blind=context.of(request).blind,
            incomplete=bool(as_of.incomplete),
        ),
        "filter": asked,
        "projects": projects,
        "as_of": as_of,
        "empty": empty.pipelines(
            rights, swept=swept, incomplete=bool(as_of.incomplete), filtered=bool(asked)
        ),
    }
    return live.answer(request, "board.html", terms, parts)
