"""A stage's page: the runs of its release flow."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.models import Abort, ChangeCounter
from dashboard.runs import concurrency_policy, saved_views
from dashboard.sync import watchers
from dashboard.web.components import (
    abort_all,
    empty_states,
    filters,
    history_charts,
    in_flight,
    pagination,
    removed_notice,
    run_row,
    saved_view_menu,
    tab_title,
)
from dashboard.web.http import lookup, sign_in, site_context
from dashboard.web.live import region


@require_safe
def stage(request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str) -> HttpResponse:
    """Show one page of a stage's runs: runs in flight first, then newest first.

    Redirect to the user's default view if there is one and the URL has no query string.
    """
    user, user_permissions = sign_in.signed_in_user(request), permissions.for_user(request.user)
    version = ChangeCounter.latest()
    stage = lookup.get_stage_or_404(user_permissions, project_id, pipeline_id, stage_id)
    # A refresh of an open page does not apply the default view.
    is_refresh = request.headers.get("HX-Request") == "true"
    default = None if is_refresh else saved_views.default_for(user)
    if default and not request.GET:
        return redirect(f"{request.path}?{default.query}")
    watchers.watch_stage(stage, now())
    data_age = region.place_data_age([stage])
    removal = removed_notice.for_pipeline(stage.pipeline)
    in_flight_by_stage = in_flight.totals_by_stage(stage.runs.in_flight())
    live_region = region.build_region(
        request,
        user_permissions,
        "stage",
        version,
        removal,
        key=stage.pk,
        in_flight=bool(in_flight_by_stage),
        aborting=bool(in_flight_by_stage)
        and Abort.objects.open().filter(run__stage=stage).exists(),
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    run_filter = filters.parse(request.GET, stage, user)
    status = run_filter.single_status
    page = pagination.page(stage.runs.all(), run_filter)
    page_runs = stage.runs.filter(pk__in=page.keys).newest_first()
    upstream_down = site_context.for_request(request).upstream_down
    stage_args = run_row.stage_url_args(stage)
    page_context = {
        "tab_title": tab_title.stage(
            stage,
            in_flight.combine(in_flight_by_stage.values()),
            upstream_down=upstream_down,
            incomplete=bool(data_age.incomplete_text),
        ),
        "place": {
            "project": stage.pipeline.project.name,
            "pipeline": stage.pipeline.name,
            "pipeline_url": reverse("pipeline", args=stage_args[:2]),
            "stage": stage.name,
            "project_id": stage_args[0],
            "pipeline_id": stage_args[1],
            "stage_id": stage_args[2],
        },
        "removal": removal,
        "policy_notes": concurrency_policy.stage_facts(stage),
        "stage_key": stage.pk,
        "chart": history_charts.render_charts([stage])[stage.pk],
        "filter": run_filter,
        "all_url": filters.ALL_RUNS_URL,
        "stage_error": region.stage_error(stage),
        # Lazy: outside the live region, so a refresh does not need them.
        "saved_views": SimpleLazyObject(
            lambda: saved_view_menu.build_menu(user, user_permissions, run_filter, default)
        ),
        "may_abort": user_permissions.abort_permission(stage).allowed,
        "abort_all": None
        if status is None
        else abort_all.offers_for_stage(user_permissions, stage).get(status),
        "denied_reason": user_permissions.abort_denied_reasons(
            [stage] if in_flight_by_stage else []
        ),
        "rows": run_row.render_table(page_runs, user_permissions).values(),
        "empty": empty_states.no_release_flow()
        if stage.has_flow is False
        else empty_states.runs(data_age, run_filter, page),
        "page": page,
        "data_age": data_age,
    }
    return region.render_page(request, "pages/stage.html", live_region, page_context)
