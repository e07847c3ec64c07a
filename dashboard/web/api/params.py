"""Parse query parameters and bodies; anything unknown or invalid is rejected.

A script that misspells a filter must not get, and abort, other runs than it meant.
"""

from collections.abc import Mapping
from typing import Annotated, TypedDict

import msgspec
from django.http import HttpRequest
from msgspec import Meta

from dashboard.models.catalog import StageName
from dashboard.sync import log_reader
from dashboard.web.api.schemas import about
from dashboard.web.http.responses.json_responses import ApiError

PER_PAGE, MAX_PER_PAGE = 100, 500  # runs per response
_MAX_KEY = 2**63 - 1  # the largest primary key

type Text = Annotated[str, Meta(min_length=1, pattern=r"^[^\x00]+$")]


class PlaceQuery(TypedDict, total=False):
    """The parameters of a call about one run: its place, if its id is not unique."""

    project: Annotated[Text, about("id of a project")]
    pipeline: Annotated[Text, about("id of a pipeline")]
    stage: Annotated[Text, about(f"{', '.join(StageName.values)}; in any case")]


class RunQuery(PlaceQuery, total=False):
    """The parameters of one run."""

    log: Annotated[
        int,
        Meta(ge=1, le=log_reader.MAX_LINES, description="so many newest lines; needs scope `logs`"),
    ]


class RunsQuery(PlaceQuery, total=False):
    """The parameters of the list of runs."""

    status: Annotated[Text, about("as Northflank spells it")]
    q: Annotated[Text, about("a text to search for, as in the search")]
    limit: Annotated[
        int, Meta(ge=1, le=MAX_PER_PAGE, description=f"runs of a response; {PER_PAGE} if not given")
    ]
    after: Annotated[int, Meta(ge=1, le=_MAX_KEY, description="from `next`")]


class AbortBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to abort a run, or what its abort has left running, by its id."""

    reason: Annotated[
        str,
        Meta(
            description="required in the stages of `ABORT_REASON_REQUIRED`; cut to 500 characters",
            examples=["Stuck on migrate for 40 min"],
        ),
    ] = ""
    again: Annotated[
        bool,
        about("where one has been under way for 10 minutes or may not have arrived"),
    ] = False
    left_running: Annotated[
        str | None,
        about("aborts one of the run's `left_running` instead, by its id"),
    ] = None


def parse_query[Q: Mapping[str, object]](request: HttpRequest, schema: type[Q]) -> Q:
    """Return the query parameters; raise ApiError for unknown, repeated, empty and invalid ones."""
    allowed = schema.__annotations__
    parameters = {}
    for name, values in request.GET.lists():
        problem = None
        if name not in allowed:
            problem = f"Unknown parameter “{name[:80]}”. Allowed: {', '.join(allowed)}."
        elif len(values) > 1:
            problem = f"Give “{name}” once."
        elif not values[0]:  # the usual result of a variable that a script has not set
            problem = f"“{name}” is empty: give it a value, or leave it out."
        if problem:
            raise ApiError("bad_parameter", problem)
        parameters[name] = values[0]
    stage = parameters.get("stage")
    if stage is not None and stage.lower() not in map(str.lower, StageName.values):
        raise ApiError("bad_parameter", f"Unknown stage. Allowed: {', '.join(StageName.values)}.")
    try:
        return msgspec.convert(parameters, schema, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError("bad_parameter", f"{error}.") from error


def parse_abort_body(request: HttpRequest) -> AbortBody:
    """Return the parsed body of an abort request; raise ApiError if it is invalid."""
    if request.content_type != "application/json":
        raise ApiError("not_json", "Send “Content-Type: application/json”.")
    try:
        return msgspec.json.decode(request.body, type=AbortBody)
    except msgspec.ValidationError as error:
        raise ApiError("bad_field", f"{error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("bad_json", "The body is not valid JSON.") from error
