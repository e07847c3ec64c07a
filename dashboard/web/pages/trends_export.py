"""The trends of a stage, a pipeline or a project as a CSV download."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from dashboard.web.components import trend_charts, trend_places
from dashboard.web.components.lists import export


@require_GET
def trends_export(request: HttpRequest, **ids: str) -> HttpResponse:
    """Download the table of trends.py, a row for each week; durations are in seconds."""
    weeks = trend_places.find(request, ids).load_weeks()
    known = trend_places.since_first_run(weeks) or weeks[-1:]
    return export.respond_with("trends", [trend_charts.csv_row(week) for week in known])
