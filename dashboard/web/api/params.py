"""Parse query parameters and bodies; anything unknown or invalid is rejected.

A script that misspells a filter must not get, and abort, other runs than it meant.
"""

from collections.abc import Collection

import msgspec
from django.http import HttpRequest

from dashboard.models.catalog import StageName
from dashboard.web.http.responses.json_responses import ApiError

PLACE_PARAMETERS = ("project", "pipeline", "stage")
MAX_BODY_BYTES = 16 * 1024  # of a request body; a reason has 500 characters at most


class AbortBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to abort a run, or what its abort has left running, by its id."""

    reason: str = ""
    again: bool = False
    left_running: str | None = None


def parse_parameters(request: HttpRequest, allowed: Collection[str]) -> dict[str, str]:
    """Return the query parameters; raise ApiError for empty ones and names not in `allowed`."""
    parameters = {}
    for name, values in request.GET.lists():
        if name not in allowed:
            raise ApiError(
                400,
                "bad_parameter",
                f"Unknown parameter “{name[:80]}”. Allowed: {', '.join(allowed)}.",
            )
        if len(values) > 1 or "\0" in values[0]:
            raise ApiError(400, "bad_parameter", f"Give “{name}” once, as plain text.")
        if not values[0]:  # the usual result of a variable that a script has not set
            raise ApiError(
                400, "bad_parameter", f"“{name}” is empty: give it a value, or leave it out."
            )
        parameters[name] = values[0]
    stage = parameters.get("stage")
    if stage is not None and stage.lower() not in map(str.lower, StageName.values):
        raise ApiError(
            400, "bad_parameter", f"Unknown stage. Allowed: {', '.join(StageName.values)}."
        )
    return parameters


def parse_number(text: str, name: str, *, maximum: int) -> int:
    """Return a number from 1 to `maximum`; raise ApiError if it is not one."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and 1 <= int(text) <= maximum):
        raise ApiError(400, "bad_parameter", f"“{name}” must be a number from 1 to {maximum}.")
    return int(text)


def parse_abort_body(request: HttpRequest) -> AbortBody:
    """Return the parsed body of an abort request; raise ApiError if it is invalid."""
    if request.content_type != "application/json":
        raise ApiError(415, "not_json", "Send “Content-Type: application/json”.")
    if len(request.body) > MAX_BODY_BYTES:
        raise ApiError(413, "too_large", f"The body may have at most {MAX_BODY_BYTES} bytes.")
    try:
        return msgspec.json.decode(request.body, type=AbortBody)
    except msgspec.ValidationError as error:
        raise ApiError(422, "bad_field", f"{error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "bad_json", "The body is not valid JSON.") from error
