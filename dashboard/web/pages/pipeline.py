"""A pipeline's page: its stages side by side."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.models import Abort, ChangeCounter, Run
from dashboard.web.components import (
    history_charts,
    in_flight,
    removed_notice,
    stage_cell,
    tab_title,
)
from dashboard.web.http import lookup, site_context
from dashboard.web.live import region

RUNS_PER_STAGE = 10


@require_safe
def pipeline(request: HttpRequest, project_id: str, pipeline_id: str) -> HttpResponse:
    """Show a pipeline's stages, each with its latest runs."""
    user_permissions = permissions.for_user(request.user)
    version = ChangeCounter.latest()
    pipeline = lookup.get_pipeline_or_404(user_permissions, project_id, pipeline_id)
    pipeline_stages = list(
        pipeline.stages.filter(user_permissions.stage_filter()).select_related("pipeline__project")
    )
    removal = removed_notice.for_pipeline(pipeline)
    in_flight_by_stage = in_flight.totals_by_stage(
        Run.objects.in_flight().filter(stage__in=pipeline_stages)
    )
    data_age = region.place_data_age(pipeline_stages)
    live_region = region.build_region(
        request,
        user_permissions,
        "pipeline",
        version,
        removal,
        key=pipeline.pk,
        in_flight=bool(in_flight_by_stage),
        aborting=Abort.objects.open().filter(run__stage__in=pipeline_stages).exists(),
        data_age=data_age,
    )
    if region.is_unchanged(request, live_region):
        return region.not_modified(live_region)
    page_context = {
        "tab_title": tab_title.pipeline(
            pipeline,
            in_flight.combine(in_flight_by_stage.values()),
            upstream_down=site_context.for_request(request).upstream_down,
            incomplete=bool(data_age.incomplete_text),
        ),
        "place": {"project": pipeline.project.name, "pipeline": pipeline.name},
        "removal": removal,
        "stages": stage_cell.cells_by_pipeline(
            pipeline_stages,
            runs_per_stage=RUNS_PER_STAGE,
            history_charts=history_charts.render_charts(pipeline_stages),
        ).get(pipeline.pk, []),
        "data_age": data_age,
    }
    return region.render_page(request, "pages/pipeline.html", live_region, page_context)
