"""Which runs a command is about: by id, project, pipeline and stage."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Q

from dashboard.models import Run
from dashboard.models.catalog import StageName
from dashboard.web.api import params, queries


def text(given: str) -> str:
    """Return an argument as text that any database takes, whatever bytes the shell has passed."""
    return given.encode(errors="replace").decode()


def add_place(parser: ArgumentParser) -> None:
    """Add the options that name a place."""
    parser.add_argument("--project", type=text, help="Only in this project, by its id.")
    parser.add_argument("--pipeline", type=text, help="Only in this pipeline, by its id.")
    parser.add_argument(
        "--stage", type=str.capitalize, choices=StageName.values, help="Only in this stage."
    )


def add_run(parser: ArgumentParser) -> None:
    """Add the argument that names a run, and the options that name its place."""
    parser.add_argument("run", type=text, metavar="RUN", help="The run's id.")
    add_place(parser)


def place(options: dict[str, Any]) -> dict[str, str]:
    """Return the place that the options name, as far as they do."""
    return {part: options[part] for part in params.PLACE if options[part]}


def run(options: dict[str, Any], seen: Q | None = None) -> Run:
    """Return the run that is meant, among those `seen`; raises CommandError."""
    try:
        return queries.find(options["run"], place(options), Q() if seen is None else seen)
    except queries.Unknown as unknown:
        raise CommandError(str(unknown)) from unknown
    except queries.Ambiguous as several:
        listed = "\n".join(f"  {one}" for one in several.places)
        raise CommandError(f"{several}\n{listed}") from several
