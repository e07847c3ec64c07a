"""Find runs by id and place among those that a user may view."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Q

from dashboard.accounts.permissions import Permissions
from dashboard.models import Project, Run, Stage

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


class RunNotFound(Exception):
    """The run is unknown or not visible to the user; the message is the same in both cases."""


class AmbiguousRun(Exception):
    """Several runs in different places have this id."""

    def __init__(self, run_id: str, places: list[Place]) -> None:
        super().__init__(
            f"Run “{run_id}” exists in {len(places)} places; specify project, pipeline and stage."
        )
        self.places = places


def run_condition(place: Mapping[str, object]) -> Q:
    """Return the condition for runs of a project, a pipeline or a stage; each is optional."""
    return Q(**{_PATHS[part]: value for part, value in place.items() if part in _PATHS})


def stage_condition(place: Mapping[str, object]) -> Q:
    """Return the same condition for stages themselves."""
    paths = {part: path.removeprefix("stage__") for part, path in _PATHS.items()}
    return Q(**{paths[part]: value for part, value in place.items() if part in paths})


def catalog_list_condition(place: Mapping[str, object]) -> Q:
    """Return the same condition for the catalog lists."""
    return Q(project=None) | Q(project__slug=place["project"]) if "project" in place else Q()


def is_place_known(place: Mapping[str, object], permissions: Permissions) -> bool:
    """Return whether a user may view a stage of the place, or a project that has no pipeline.

    Removed ones count: their runs stay in flight until they are dismissed. A stage alone is known.
    """
    if not place.keys() & {"project", "pipeline"}:
        return True
    if Stage.objects.filter(permissions.stage_filter(), stage_condition(place)).exists():
        return True
    empty_projects = Project.objects.filter(permissions.project_filter(), pipelines=None)
    return "pipeline" not in place and empty_projects.filter(slug=place["project"]).exists()


def run_place(run: Run) -> Place:
    """Return the place of a run."""
    pipeline = run.stage.pipeline
    return Place(pipeline.project.slug, pipeline.slug, run.stage.name)


def find_run(run_id: str, place: Mapping[str, object], visible: Q) -> Run:
    """Return a run of `visible` with its place; raise RunNotFound or AmbiguousRun."""
    runs = list(
        Run.objects.with_stage()
        .without_detail()
        .filter(visible, run_condition(place), run_id=run_id)
    )
    if not runs:
        raise RunNotFound(f"Run “{run_id}” not found.")
    if len(runs) > 1:
        raise AmbiguousRun(run_id, sorted(map(run_place, runs)))
    return runs[0]
