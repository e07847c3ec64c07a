"""JSON responses that no cache stores, and errors with stable codes."""

from collections.abc import Mapping
from typing import Any

import msgspec
from django.http import HttpResponse


class ApiError(Exception):
    """An error response: HTTP status, stable code, and a message for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.extra = extra or {}  # what the answer holds beside the error


def json_response(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return `body` as an uncached JSON response."""
    response = HttpResponse(
        msgspec.json.encode(body) + b"\n",
        status=status,
        content_type="application/json",
        headers=dict(headers or {}),
    )
    response["Cache-Control"] = "no-store"
    return response


def error_response(api_error: ApiError) -> HttpResponse:
    """Return the response to a failed request."""
    error_body = {"code": api_error.code, "message": api_error.message}
    response = json_response(
        {"error": error_body, **api_error.extra}, status=api_error.status, headers=api_error.headers
    )
    # The caller is told. Django would log each one, and anybody can send thousands; an abort that
    # was not allowed is logged where it is refused.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response
