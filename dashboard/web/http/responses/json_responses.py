"""JSON responses, and errors with stable codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.http import HttpResponse


@dataclass(eq=False)
class ApiError(Exception):
    """An error response: HTTP status, stable code, and a message for people."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the body


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
