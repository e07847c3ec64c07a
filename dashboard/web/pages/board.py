"""The board: all pipelines with the latest run of each stage."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter, Stage
from dashboard.web.components import board_cells as boards
from dashboard.web.components import empty_states, history_charts, in_flight, stage_cell, tab_title
from dashboard.web.http import lookup, site_context
from dashboard.web.live import region


@require_safe
def board(request: HttpRequest) -> HttpResponse:
    """Show the pipelines by project, each with its three stages."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    visible_stages = Stage.objects.listed().filter(user_permissions.stage_filter())
    all_stages = list(visible_stages.select_related("pipeline__project"))
    data_age = region.board_data_age(user_permissions, all_stages)
    catalog_loaded = lookup.is_catalog_loaded()
    live_region = region.build_region(
        request,
        user_permissions,
        "board",
        version,
        catalog_loaded,
        in_flight=in_flight.in_flight(user_permissions).exists(),
        aborting=in_flight.has_open_aborts(user_permissions),
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    board_filter = boards.parse(request)
    charts = history_charts.render_charts(all_stages, compact=True)
    projects = boards.projects(
        user_permissions,
        board_filter,
        stage_cell.cells_by_pipeline(all_stages, runs_per_stage=1, history_charts=charts),
    )
    page_context = {
        "nav": "board",
        "tab_title": tab_title.board(
            in_flight.load_title_totals(
                user_permissions, timezone.now(), in_flight.in_flight_by_stage(user_permissions)
            ),
            upstream_down=site_context.for_request(request).upstream_down,
            incomplete=bool(data_age.incomplete_text),
        ),
        "filter": board_filter,
        "projects": projects,
        "data_age": data_age,
        "empty": empty_states.pipelines(
            user_permissions,
            is_catalog_loaded=catalog_loaded,
            is_incomplete=bool(data_age.incomplete_text),
            is_filtered=bool(board_filter),
        ),
    }
    return region.render_page(request, "pages/board.html", live_region, page_context)
