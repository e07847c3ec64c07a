"""Find runs by id and place among those that a user may view."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Q

from dashboard.accounts.permissions import Permissions
from dashboard.db.threads import now
from dashboard.models import Project, Run, Stage
from dashboard.sync.reports import report as sync_report
from dashboard.sync.reports.report import Report
from dashboard.web.http import lookup
from dashboard.web.http.responses.json_responses import ApiError

_PATHS = {
    "project": "stage__pipeline__project__slug",
    "pipeline": "stage__pipeline__slug",
    "stage": "stage__name__iexact",
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A stage by the slugs of its address."""

    project: str
    pipeline: str
    stage: str

    def __str__(self) -> str:
        return f"{self.project} / {self.pipeline} / {self.stage}"


def run_condition(place: Mapping[str, object]) -> Q:
    """Return the condition for runs of a project, a pipeline or a stage; each is optional."""
    return Q(**{_PATHS[part]: value for part, value in place.items() if part in _PATHS})


def load_report(place: Mapping[str, object], permissions: Permissions) -> Report:
    """Return the report on the listed stages of a place; raise ApiError if there is none.

    While the catalog is incomplete, the place may exist: the report is incomplete.
    """
    paths = {part: path.removeprefix("stage__") for part, path in _PATHS.items()}
    of_place = Q(**{paths[part]: value for part, value in place.items() if part in paths})
    visible = Stage.objects.filter(permissions.stage_filter(), of_place)
    lists = lookup.visible_catalog_lists(permissions)
    projects = Project.objects.filter(permissions.project_filter())
    if "project" in place:
        lists = lists.filter(Q(project=None) | Q(project__slug=place["project"]))
        projects = projects.filter(slug=place["project"])
    report = sync_report.load(visible.listed(), lists, now())
    # A stage alone is known; a project without a pipeline, too. Removed ones count: their runs stay
    # in flight until they are dismissed.
    is_known = (
        place.keys().isdisjoint({"project", "pipeline"})
        or visible.exists()
        or ("pipeline" not in place and projects.filter(pipelines=None).exists())
    )
    if report.is_complete and not is_known:
        raise ApiError("bad_parameter", "No such project, pipeline or stage, or it is hidden.")
    return report


def run_place(run: Run) -> Place:
    """Return the place of a run."""
    pipeline = run.stage.pipeline
    return Place(pipeline.project.slug, pipeline.slug, run.stage.name)


def find_run(run_id: str, place: Mapping[str, object], visible: Q) -> Run:
    """Return a run of `visible` with its place; raise ApiError if there is none, or several."""
    runs = list(
        Run.objects.with_stage()
        .without_detail()
        .filter(visible, run_condition(place), run_id=run_id)
    )
    if not runs:
        raise ApiError("unknown_run", f"Run “{run_id}” not found.")
    if len(runs) > 1:
        places = sorted(map(run_place, runs))
        raise ApiError(
            "ambiguous_run",
            f"Run “{run_id}” exists in {len(places)} places; specify project, pipeline and stage.",
            extra={"places": places},
        )
    return runs[0]
