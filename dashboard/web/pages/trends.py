"""Trends of a stage, a pipeline or a project: how its runs of some weeks ended, in what time."""

from django.db.models import Min
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe

from dashboard.runs import abort_reasons
from dashboard.runs import trends as trend_rules
from dashboard.web.components import trend_charts, trend_places
from dashboard.web.components.lists import export


@require_safe
def trends(request: HttpRequest, **ids: str) -> HttpResponse:
    """Show the trends of the last 30 days, or of 90 if the address says so."""
    place = trend_places.find(request, ids)
    weeks = place.load_weeks()
    context = {
        "place": place,
        "choices": trend_places.DAYS,
        "as_of": place.read_stages.aggregate(at=Min("synced_at"))["at"],
    }
    if known := trend_places.since_first_run(weeks):
        total = trend_rules.total(weeks)
        reasons = sorted(total.abort_reasons.items(), key=lambda item: -item[1])
        context |= {
            "charts": trend_charts.draw(weeks, total),
            "ends": [trend_charts.week_text(week) for week in (weeks[0], weeks[-1])],
            "outcomes": [
                (key, trend_charts.OUTCOME_LABELS[key], n) for key, n in total.outcomes.items() if n
            ],
            "reasons": [(abort_reasons.LABELS[key], n) for key, n in reasons],
            "headings": trend_charts.headings(),
            "rows": trend_charts.table([*known[::-1], total]),
            "since": trend_charts.day_text(known[0].first) if len(known) < len(weeks) else "",
        }
    return render(request, "pages/trends.html", context)


@require_GET
def trends_export(request: HttpRequest, **ids: str) -> HttpResponse:
    """Download the table as CSV, a row for each week; durations are in seconds."""
    weeks = trend_places.find(request, ids).load_weeks()
    known = trend_places.since_first_run(weeks) or weeks[-1:]
    return export.respond_with("trends", [trend_charts.csv_row(week) for week in known])
