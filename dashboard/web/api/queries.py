"""A run by its id alone, among the places that somebody may see."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Q

from dashboard.models import Run

_PATHS = {
    "project": "stage__pipeline__project__slug",
    "pipeline": "stage__pipeline__slug",
    "stage": "stage__name__iexact",
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a run is, in the words of an address."""

    project: str
    pipeline: str
    stage: str

    def __str__(self) -> str:
        return f"{self.project} / {self.pipeline} / {self.stage}"


class Unknown(Exception):
    """No run of this id is known, or it is hidden; the message says the same of both."""


class Ambiguous(Exception):
    """Runs of this id are known in several places."""

    def __init__(self, run_id: str, places: list[Place]) -> None:
        super().__init__(
            f"There are runs “{run_id}” in {len(places)} places: say which project, pipeline and "
            "stage."
        )
        self.places = places


def at(place: Mapping[str, str]) -> Q:
    """Return the condition for runs of a project, a pipeline or a stage; each may be left out."""
    return Q(**{_PATHS[part]: value for part, value in place.items() if part in _PATHS})


def stages_at(place: Mapping[str, str]) -> Q:
    """Return the same condition for stages themselves."""
    paths = {part: path.removeprefix("stage__") for part, path in _PATHS.items()}
    return Q(**{paths[part]: value for part, value in place.items() if part in paths})


def lists_at(place: Mapping[str, str]) -> Q:
    """Return the same condition for the lists of the catalogue."""
    return Q(project=None) | Q(project__slug=place["project"]) if "project" in place else Q()


def place_of(run: Run) -> Place:
    """Return where a run is."""
    pipeline = run.stage.pipeline
    return Place(pipeline.project.slug, pipeline.slug, run.stage.name)


def find(run_id: str, place: Mapping[str, str], seen: Q) -> Run:
    """Return a run, with its place loaded, among those `seen`; raises Unknown and Ambiguous."""
    found = list(Run.objects.with_place().without_detail().filter(seen, at(place), run_id=run_id))
    if not found:
        raise Unknown(f"No run “{run_id}” is known here.")
    if len(found) > 1:
        raise Ambiguous(run_id, sorted(map(place_of, found)))
    return found[0]
