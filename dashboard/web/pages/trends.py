"""Trends of a stage, a pipeline or a project: how its runs of some weeks ended, in what time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import dropwhile

from django.db.models import Min, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe

from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.models import Pipeline, Project, ProjectDay, Stage, StageDay
from dashboard.models.catalog import StageName
from dashboard.runs import abort_reasons
from dashboard.runs import trends as trend_rules
from dashboard.runs.trends import Period
from dashboard.web.components import headings, trend_charts
from dashboard.web.components.lists import export
from dashboard.web.http import lookup

DAYS = 30, 90


@require_safe
def trends(request: HttpRequest, **ids: str) -> HttpResponse:
    """Show the trends of the last 30 days, or of 90 if the address says so."""
    place = _find(request, ids)
    weeks = place.load_weeks()
    context = {
        "place": place,
        "choices": DAYS,
        "as_of": place.read_stages.aggregate(at=Min("synced_at"))["at"],
    }
    if known := _since_first_run(weeks):
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
    weeks = _find(request, ids).load_weeks()
    known = _since_first_run(weeks) or weeks[-1:]
    return export.respond_with("trends", [trend_charts.csv_row(week) for week in known])


@dataclass(frozen=True)
class TrendPlace:
    """A place, or the part of it that the user may view, and the days that are asked for."""

    project: Project
    pipeline: Pipeline | None
    stage: Stage | None
    stage_names: list[str]
    stages: QuerySet[Stage]
    sums: QuerySet[StageDay] | QuerySet[ProjectDay]
    days: int

    @property
    def name(self) -> str:
        """Its name in headings."""
        name = headings.cut(str(self.pipeline or self.project))
        return f"{name} / {self.stage.name}" if self.stage else name

    @property
    def read_stages(self) -> QuerySet[Stage]:
        """Its stages that are read as planned: neither removed nor without a release flow."""
        listed = self.stages.filter(pipeline__removed_at=None, pipeline__project__removed_at=None)
        return listed.exclude(has_flow=False)

    def load_weeks(self) -> list[Period]:
        """Return the weeks of its days, of which today is the last."""
        last = now().astimezone(UTC).date()
        first = last - timedelta(days=self.days - 1)
        sums = self.sums.filter(day__gte=first, day__lte=last).values_list("day", "counts")
        return trend_rules.by_week(sums, first, last)


def _find(request: HttpRequest, ids: Mapping[str, str]) -> TrendPlace:
    """Return the place of an address; raise PageNotFound unless the user may view its page.

    The parameter `days` chooses between DAYS.
    """
    user, keys = permissions.for_user(request.user), list(ids.values())
    days = next((days for days in DAYS if request.GET.get("days") == str(days)), DAYS[0])
    if len(keys) == 1:
        project = lookup.get_project_or_404(user, *keys)
        names = [name for name in StageName.values if user.right_at(project.pk, name).action]
        stages = Stage.objects.filter(user.stage_filter(), pipeline__project=project)
        project_sums = ProjectDay.objects.filter(project=project, stage_name__in=names)
        return TrendPlace(project, None, None, names, stages, project_sums, days)
    stage = lookup.get_stage_or_404(user, *keys) if len(keys) == 3 else None
    pipeline = stage.pipeline if stage else lookup.get_pipeline_or_404(user, *keys)
    if stage:
        names, stages = [stage.name], Stage.objects.filter(pk=stage.pk)
    else:
        stages = Stage.objects.filter(user.stage_filter(), pipeline=pipeline).order_by("pk")
        names = list(stages.values_list("name", flat=True))
    sums = StageDay.objects.filter(stage__in=stages)
    return TrendPlace(pipeline.project, pipeline, stage, names, stages, sums, days)


def _since_first_run(weeks: list[Period]) -> list[Period]:
    """Return the weeks without those before the first run, of which nothing is known."""
    return [*dropwhile(lambda week: not week.runs, weeks)]
