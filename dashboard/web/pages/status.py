"""The status page: sync health, rate limit, workers, webhook, and the data age of each stage."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import ChangeCounter
from dashboard.web.components import sync_report, tab_title
from dashboard.web.http import site_context
from dashboard.web.live import region


@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Show the state of the sync, with the stages in the worst state first."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    status_data = sync_report.load_status(user_permissions, db_threads.now())
    # Each row shows its own data age.
    data_age = region.DataAge(None, is_stale=False)
    incomplete = bool(status_data.incomplete_text)
    live_region = region.build_region(
        request,
        user_permissions,
        "status",
        version,
        status_data,
        in_flight=False,
        aborting=False,
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    upstream_down = (
        site_context.for_request(request).upstream_down or not status_data.health.is_syncing
    )
    title = tab_title.status(upstream_down=upstream_down, incomplete=incomplete)
    page_context = {
        "nav": "status",
        "tab_title": title,
        "status": status_data,
        "data_age": data_age,
    }
    return region.render_page(request, "pages/status.html", live_region, page_context)
