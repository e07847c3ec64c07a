"""JSON responses, and errors with stable codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.http import HttpResponse

from dashboard.models.accounts.api_tokens import REQUESTS_PER_WINDOW

# By code: the status, and what it says beside the message of the response.
ERRORS = {
    "bad_parameter": (400, "a parameter is unknown, invalid, or of a place that is hidden"),
    "bad_json": (400, "the body is not JSON"),
    "token_missing": (401, "send a token"),
    "token_unknown": (401, "no such token"),
    "token_expired": (401, "the token has expired"),
    "token_revoked": (401, "the token was revoked"),
    "token_inactive": (401, "the account of the token is inactive"),
    "https_required": (403, "use HTTPS; replace a token that you sent: it was not encrypted"),
    "not_allowed": (403, "the message says who may"),
    "no_address": (404, "no such address; all end with a slash"),
    "unknown_run": (404, "never read, or hidden"),
    "method_not_allowed": (405, "see `Allow`"),
    "ambiguous_run": (409, "several places have a run of this id: give one of `places`"),
    "not_in_flight": (409, "the run has ended; nothing was sent"),
    "end_unknown": (409, "the run was removed and taken off the list; nothing was sent"),
    "not_removed": (409, "Northflank lists the run, or it has ended"),
    "too_large": (413, "a body of more than 64 KB"),
    "not_json": (415, "send `Content-Type: application/json`"),
    "bad_field": (422, "a field of the body is unknown or invalid"),
    "reason_missing": (422, "a reason is required in this stage"),
    "too_many_requests": (429, f"more than {REQUESTS_PER_WINDOW} in a minute; see `Retry-After`"),
    "too_many_failures": (429, "refused too often; see `Retry-After`"),
    "defect": (500, "see the dashboard’s log"),
    "refused": (502, "Northflank rejected the abort: `response`, `response_status`"),
    "not_sent": (503, "the abort did not reach Northflank; try after `Retry-After`"),
    "database_outage": (503, "after a POST, `recorded` says whether it counts"),
    "no_response": (504, "the abort may not have arrived; it is read and resent for 2 minutes"),
}


@dataclass(eq=False)
class ApiError(Exception):
    """An error response: stable code, and a message for people; by default what ERRORS says."""

    code: str
    message: str = ""
    headers: Mapping[str, str] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the body

    def __post_init__(self) -> None:
        self.status, meaning = ERRORS[self.code]
        self.message = self.message or f"{meaning[0].upper()}{meaning[1:]}."


def json_response(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return `body` as a JSON response."""
    return HttpResponse(
        msgspec.json.encode(body) + b"\n",
        status=status,
        content_type="application/json",
        headers=dict(headers or {}),
    )


def error_response(api_error: ApiError) -> HttpResponse:
    """Return the JSON response for an error."""
    error_body = {"code": api_error.code, "message": api_error.message}
    response = json_response(
        {"error": error_body, **api_error.extra}, status=api_error.status, headers=api_error.headers
    )
    # The client gets the error; a denied abort is logged by the use case.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response
