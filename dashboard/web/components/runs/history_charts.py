"""Load, render and cache the history charts of stages.

A chart is rendered when it is first needed, and cached until another run of its stage has ended.
With a filled cache a page costs one index lookup per stage, whatever the length of the history.
"""

from collections.abc import Collection
from functools import cache as cache_result

from django.core.cache import cache
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from dashboard.db.prepared import Keys, PreparedQuery
from dashboard.models import Run, Stage
from dashboard.web.components.runs import history_chart
from dashboard.web.components.runs.history_chart import ConcludedRun


def render_charts(stages: Collection[Stage], *, marked_run: int = 0) -> dict[int, SafeString]:
    """Return the charts of stages by stage key; empty markup if no run has concluded.

    `marked_run` is the key of the run to mark.
    """
    keys = {
        stage: f"history_chart:{stage}:{marked_run}:{version}"
        for stage, version in latest_versions([stage.pk for stage in stages]).items()
    }
    cached = cache.get_many(keys.values())
    missing = [stage for stage, key in keys.items() if key not in cached]
    rendered = _render(missing, marked_run=marked_run) if missing else {}
    cache.set_many({keys[stage]: html for stage, html in rendered.items()})
    return {
        stage: mark_safe(cached[key] if key in cached else rendered[stage])
        for stage, key in keys.items()
    }


def latest_versions(stages: list[int]) -> dict[int, int | None]:
    """Return the version of each stage's chart, by stage key; None: no run has ended.

    It is the highest version of the stage's ended runs.
    """
    return dict(_versions_query().fetch(stages=stages))


@cache_result
def _versions_query() -> PreparedQuery:
    # As a range, not as an equality, so that only the index by stage and version has this order.
    # PostgreSQL would read all versions in search of a stage without runs.
    of_stage = Run.objects.filter(stage__gte=OuterRef("pk"), stage__lte=OuterRef("pk"))
    latest = of_stage.filter(in_flight=False).order_by("stage_id", "-version")
    latest_version = Subquery(latest.values("version")[:1])
    stages = Stage.objects.filter(pk__in=Keys("stages")).order_by()
    return PreparedQuery(stages.values_list("pk", latest_version))


def _render(stages: list[int], *, marked_run: int) -> dict[int, str]:
    html_by_stage = {}
    for stage in stages:
        chart = history_chart.draw(_load_runs(stage), marked_run=marked_run)
        template = "components/history_chart.html#chart"
        template_context = {"chart": chart, "view_box": history_chart.VIEW_BOX}
        html_by_stage[stage] = render_to_string(template, template_context).strip() if chart else ""
    return html_by_stage


def _load_runs(stage: int) -> list[ConcludedRun]:
    """Return the latest concluded runs of a stage, newest first."""
    concluded = Run.objects.filter(stage=stage, in_flight=False, concluded=True).newest_first()
    begin = Coalesce("started_at", "created_at")
    rows = concluded.values_list("pk", "status", begin, "concluded_at", "ended_at", "failed_step")
    return [
        # Northflank may omit concludedAt: `ended_at` is then too late, or too early.
        ConcludedRun(key, status, end - start if end and end >= start else None, ended_at, step)
        for key, status, start, end, ended_at, step in rows[: history_chart.MAX_RUNS]
    ]
