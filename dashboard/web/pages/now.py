"""The start page: runs that need attention, other runs in flight, and failures of the last day."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter, Stage
from dashboard.web.components import abort_all, empty_states, in_flight, run_row, tab_title
from dashboard.web.http import site_context
from dashboard.web.live import region

# Rows per table; a longer page can no longer be read at a glance.
MAX_IN_FLIGHT = 200
MAX_CONCLUDED = 50


@require_safe
def now(request: HttpRequest) -> HttpResponse:
    """Show the runs in flight, and those aborted or failed recently."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    current_time = timezone.now()
    stages = list(
        Stage.objects.listed().filter(user_permissions.stage_filter()).select_related("pipeline")
    )
    in_flight_by_stage = in_flight.in_flight_by_stage(user_permissions)
    counts = in_flight.load_counts(user_permissions, current_time, in_flight_by_stage)
    data_age = in_flight.data_age(user_permissions, stages, in_flight_by_stage, counts)
    live_region = region.build_region(
        request,
        user_permissions,
        "now",
        version,
        in_flight=bool(in_flight_by_stage),
        aborting=in_flight.has_open_aborts(user_permissions),
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    upstream_down = site_context.for_request(request).upstream_down
    worst = in_flight.title_totals(
        in_flight_by_stage, has_recent_failure=counts.recently_failed > 0
    )
    (
        overdue_rows,
        recent_failure_rows,
        overdue_queued_rows,
        on_time_rows,
        aborted_rows,
        earlier_failure_rows,
    ) = (
        list(table.values())
        for table in run_row.render_tables(
            [
                in_flight.overdue(user_permissions)[:MAX_IN_FLIGHT],
                in_flight.recently_failed(user_permissions, current_time)[:MAX_CONCLUDED],
                in_flight.overdue_in_queue(user_permissions)[:MAX_IN_FLIGHT],
                in_flight.on_time(user_permissions)[:MAX_IN_FLIGHT],
                in_flight.recently_aborted(user_permissions, current_time)[:MAX_CONCLUDED],
                in_flight.failed_earlier(user_permissions, current_time)[:MAX_CONCLUDED],
            ],
            user_permissions,
        )
    )
    page_context = {
        "nav": "now",
        "tab_title": tab_title.now(
            counts.in_flight,
            worst,
            upstream_down=upstream_down,
            incomplete=bool(data_age.incomplete_text),
        ),
        "attention_rows": [*overdue_rows, *recent_failure_rows, *overdue_queued_rows],
        "in_flight_rows": on_time_rows,
        "aborted_rows": aborted_rows,
        "failed_rows": earlier_failure_rows,
        "counts": counts,
        "abort_all": abort_all.offer_for_now(user_permissions),
        "denied_reason": user_permissions.abort_denied_reasons(
            stage for stage in stages if stage.pk in in_flight_by_stage
        ),
        "data_age": data_age,
        "attention_empty": empty_states.attention(data_age, stages),
        "in_flight_empty": empty_states.in_flight(
            user_permissions, data_age, stages, counts.overdue
        ),
        "failed_empty": empty_states.failures(user_permissions, data_age, counts.recently_failed),
    }
    return region.render_page(request, "pages/now.html", live_region, page_context)
