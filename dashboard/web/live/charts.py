"""The history charts of stages as live parts: they change when a run of their stage ends."""

from collections.abc import Collection, Iterable

from dashboard.models import Run, Stage
from dashboard.web.components.runs import history_charts
from dashboard.web.live.page import LivePart, render_part


def ended_stages(runs: Iterable[Run]) -> list[Stage]:
    """Return the stages in which some of these changed runs have ended."""
    return list({run.stage_id: run.stage for run in runs if not run.in_flight}.values())


def chart_parts(stages: Collection[Stage], marked_run: int = 0) -> list[LivePart]:
    """Return the charts of stages; `marked_run` is the key of the run to mark."""
    if not stages:
        return []
    charts = history_charts.render_charts(stages, marked_run=marked_run)
    return [
        render_part(
            f"history-chart-{key}",
            "components/history_chart.html#history",
            key=key,
            chart=chart,
        )
        for key, chart in charts.items()
    ]
