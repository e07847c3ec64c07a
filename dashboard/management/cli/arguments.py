"""Command-line arguments that select runs by id, project, pipeline and stage."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Q

from dashboard.models import Run
from dashboard.models.catalog import StageName
from dashboard.sync.log_reader import MAX_LINES
from dashboard.web.api import params, queries
from dashboard.web.http.responses.json_responses import ApiError


def clean_text(value: str) -> str:
    """Return an argument as text that any database accepts, with "?" for undecodable bytes."""
    return value.encode(errors="replace").decode()


def clean_id(value: str) -> str:
    """Return an id, like `clean_text`; refuse an empty one, as of a variable that is not set."""
    if not value:
        raise ArgumentTypeError("must not be empty; leave the option out to select all.")
    return clean_text(value)


def parse_line_count(value: str) -> int:
    """Return a number of lines of a log, up to Northflank's limit; refuse any other text."""
    if not (value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= MAX_LINES):
        raise ArgumentTypeError(f"must be a number from 1 to {MAX_LINES}.")
    return int(value)


def add_place_options(parser: ArgumentParser) -> None:
    """Add the options --project, --pipeline and --stage."""
    parser.add_argument("--project", type=clean_id, help="Only in this project (ID).")
    parser.add_argument("--pipeline", type=clean_id, help="Only in this pipeline (ID).")
    parser.add_argument(
        "--stage", type=str.capitalize, choices=StageName.values, help="Only in this stage."
    )


def add_run_argument(parser: ArgumentParser) -> None:
    """Add the argument RUN and the options of `add_place_options`."""
    parser.add_argument("run", type=clean_text, metavar="RUN", help="Run ID.")
    add_place_options(parser)


def place_of(options: dict[str, Any]) -> dict[str, str]:
    """Return the given project, pipeline and stage, by parameter name."""
    return {part: options[part] for part in params.PlaceQuery.__annotations__ if options[part]}


def find_run(options: dict[str, Any], visible: Q | None = None) -> Run:
    """Return the selected run among those matching `visible`, by default all.

    Raise CommandError if no run or more than one matches.
    """
    try:
        return queries.find_run(
            options["run"], place_of(options), Q() if visible is None else visible
        )
    except ApiError as error:
        place_lines = [f"  {place}" for place in error.extra.get("places", ())]
        raise CommandError("\n".join([error.message, *place_lines])) from error
