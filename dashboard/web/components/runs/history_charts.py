"""Load, render and cache the history charts of stages.

A chart is rendered when it is first needed, and cached until another run of its stage has ended.
With a filled cache a page costs one index lookup per stage, whatever the length of the history.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache as cache_result
from itertools import batched
from typing import Any

from django.core.cache import cache
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from dashboard.db.prepared import Keys, PreparedQuery
from dashboard.models import Run, Stage
from dashboard.web.components.runs import history_chart
from dashboard.web.components.runs.history_chart import ConcludedRun

STAGES_PER_QUERY = 100
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)  # a short history is read whole, by the same statement


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
    runs_by_stage = _load_runs(stages)
    html_by_stage = {}
    for stage in stages:
        chart = history_chart.draw(runs_by_stage.get(stage, []), marked_run=marked_run)
        template = "components/history_chart.html#chart"
        template_context = {"chart": chart, "view_box": history_chart.VIEW_BOX}
        html_by_stage[stage] = render_to_string(template, template_context).strip() if chart else ""
    return html_by_stage


def _load_runs(stages: Sequence[int]) -> dict[int, list[ConcludedRun]]:
    """Return the latest concluded runs of each stage, newest first."""
    runs_by_stage: dict[int, list[ConcludedRun]] = {}
    for stage_keys in batched(stages, STAGES_PER_QUERY, strict=False):
        for row in _concluded_runs(stage_keys):
            stage, key, status, started_at, concluded_at, ended_at, failed_step = row
            # Northflank may omit concludedAt: `ended_at` is then too late, or too early.
            duration = (
                concluded_at - started_at if concluded_at and concluded_at >= started_at else None
            )
            runs_by_stage.setdefault(stage, []).append(
                ConcludedRun(key, status, duration, ended_at, failed_step)
            )
    return runs_by_stage


def _concluded_runs(stages: Sequence[int]) -> Iterable[tuple[Any, ...]]:
    concluded = Run.objects.filter(in_flight=False, concluded=True).newest_first()
    condition = Q(stage=stages[0])
    if len(stages) > 1:
        # Find the oldest wanted run of each stage in the index, then read the runs from there on:
        # a window function would read all runs.
        stage_runs = concluded.filter(stage=OuterRef("pk")).values("created_at")
        oldest_created_at = Subquery(
            stage_runs[history_chart.MAX_RUNS - 1 : history_chart.MAX_RUNS]
        )
        oldest_by_stage = (
            Stage.objects.filter(pk__in=stages).order_by().values_list("pk", oldest_created_at)
        )
        condition = Q(pk__in=[])
        for stage, oldest in oldest_by_stage:
            condition |= Q(stage=stage, created_at__gte=oldest or _EARLIEST)
    started_at = Coalesce("started_at", "created_at")
    rows = concluded.filter(condition).values_list(
        "stage", "pk", "status", started_at, "concluded_at", "ended_at", "failed_step"
    )
    return rows[: history_chart.MAX_RUNS] if len(stages) == 1 else rows
