"""Projects, pipelines, stages and runs by address, or a 404 that says what was looked for."""

from django.http import Http404
from django.urls import reverse

from dashboard.models import Pipeline, Project, Run, Stage


class NothingHere(Http404):
    """Nothing is known at this address: what was looked for, and where to go on."""

    def __init__(self, looked_for: str, *onward: tuple[str, str]) -> None:
        super().__init__(looked_for)
        self.looked_for = looked_for
        self.onward = onward


def pipeline(project: str, slug: str) -> Pipeline:
    """Return a pipeline; raises NothingHere."""
    try:
        return Pipeline.objects.select_related("project").get(project__slug=project, slug=slug)
    except Pipeline.DoesNotExist:
        if Project.objects.filter(slug=project).exists():
            raise NothingHere(f"No pipeline “{slug}” is known in project “{project}”.") from None
        raise NothingHere(f"No project “{project}” is known here.") from None


def stage(project: str, pipeline_slug: str, name: str) -> Stage:
    """Return a stage, in whatever case its name is written; raises NothingHere."""
    found = (
        Stage.objects.select_related("pipeline__project")
        .filter(pipeline__project__slug=project, pipeline__slug=pipeline_slug, name__iexact=name)
        .first()
    )
    if found is None:
        known = pipeline(project, pipeline_slug)
        raise NothingHere(
            f"Pipeline “{known}” has no stage “{name}”.",
            (f"The stages of {known}", reverse("pipeline", args=[project, pipeline_slug])),
        )
    return found


def run(of: Stage, run_id: str) -> Run | None:
    """Return a mirrored run of a stage, or None where it was never seen."""
    return of.runs.filter(run_id=run_id).first()  # its stage is `of` itself
