"""What trends are of: a project, a pipeline or a stage, found by its address, and its weeks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import dropwhile

from django.db.models import QuerySet
from django.http import HttpRequest

from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.models import Pipeline, Project, ProjectDay, Stage, StageDay
from dashboard.models.catalog import StageName
from dashboard.runs import trends
from dashboard.runs.trends import Period
from dashboard.web.components import headings
from dashboard.web.http import lookup

DAYS = 30, 90


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
        return trends.by_week(sums, first, last)


def find(request: HttpRequest, ids: Mapping[str, str]) -> TrendPlace:
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


def since_first_run(weeks: list[Period]) -> list[Period]:
    """Return the weeks without those before the first run, of which nothing is known."""
    return [*dropwhile(lambda week: not week.runs, weeks)]
