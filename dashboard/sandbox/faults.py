"""Faults: scripted errors of the sandbox, and the syntax to request them.

    NAME[:VALUE][+SECONDS][*COUNT][@TARGET]

SECONDS count from the start of the sandbox. TARGET is a part of "METHOD /path$ NAME", so it can
select a method, a resource, a single run, the end of a path, or a call by its name, such as
`read-logs`. `docs/build/sandbox.md` has examples and says what each fault does.
"""

import asyncio
import json
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from .errors import NO_ACCESS, ApiError

type Answer = Callable[[str], Response | ApiError]
type Change = Callable[[str, Response], Response]


class DroppedConnection(Response):
    """Close the connection after an optional wait, with no response or half of one."""

    def __init__(self, delay_seconds: float = 0, partial_response: Response | None = None) -> None:
        super().__init__()
        self.delay_seconds = delay_seconds
        self.partial_response = partial_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI cannot break a connection. uvicorn's `receive` is a method of the object that has it.
        transport = receive.__self__.transport  # type: ignore[attr-defined]
        if self.delay_seconds:
            await _wait_for_disconnect(self.delay_seconds, receive)
        if partial := self.partial_response:
            start = {"type": "http.response.start", "status": partial.status_code}
            await send(start | {"headers": partial.raw_headers})
            half = bytes(partial.body)[: len(partial.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
            transport.close()  # unlike abort(), sends pending data
        else:
            transport.abort()
        # The server logs an error if this returns while the connection is open.
        await _wait_for_disconnect(5, receive)


async def _wait_for_disconnect(seconds: float, receive: Receive) -> None:
    """Wait for `seconds`, or until the client disconnects."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass


# --- answers in place of the API's: the request has no effect ------------------------------------


def _html(status: int, reason: str) -> Answer:
    """Answer a proxy's error page."""
    page = f"<!doctype html><title>{status}</title><h1>{reason}</h1><hr>proxy"
    return lambda _: HTMLResponse(page, status)


def _unwrapped_error(value: str) -> Response:
    status = int(value or 500)
    return JSONResponse({"code": "error", "message": "It broke", "status": status}, status)


ANSWERS: dict[str, Answer] = {
    "500": lambda _: ApiError(500, "Internal server error"),
    "503": lambda _: ApiError(503, "Unavailable"),
    "502-html": _html(502, "Bad Gateway"),
    "404": lambda _: ApiError(404, "Not found"),
    "404-html": _html(404, "Not Found"),
    "bad-token": lambda _: ApiError(401, "Unauthorized"),
    "403": lambda _: ApiError(403, NO_ACCESS),
    "too-fast": lambda value: ApiError(429, "Slow down", headers={"Retry-After": value or "5"}),
    "error-without-wrapper": _unwrapped_error,
    "error-string": lambda value: JSONResponse({"error": "It broke"}, int(value or 500)),
    "reset": lambda value: DroppedConnection(float(value or 0)),
}
"""What is answered, by the name of the fault; each function gets the fault's VALUE."""


# --- changes of the API's answer ---------------------------------------------------------------


def _huge(value: str, _: Response) -> Response:
    padding = b"x" * int(float(value or 50) * 1024 * 1024)
    return Response(b'{"data":"%s"}' % padding, media_type="application/json")


def _edit(edit: Callable[[str, Any], Any]) -> Change:
    """Edit the JSON of an answer that is not an error."""

    def change(value: str, response: Response) -> Response:
        if response.status_code != 200:
            return response
        # In ASCII, which may hold half a surrogate.
        body = json.dumps(edit(value, json.loads(bytes(response.body))))
        return Response(body, media_type="application/json")

    return change


def _hide(value: str, body: Any) -> Any:
    if "pagination" not in body:
        return body
    [(key, items)] = body["data"].items()
    return body | {"data": {key: [item for item in items if item["id"] != value]}}


def _edit_objects(part: Any, edit: Callable[[Any], Any]) -> Any:
    """Return a part of an answer with each object in it edited, the innermost first."""
    if isinstance(part, dict):
        return edit({key: _edit_objects(value, edit) for key, value in part.items()})
    return [_edit_objects(item, edit) for item in part] if isinstance(part, list) else part


def _remove_fields(value: str, body: Any) -> Any:
    names = value.split(",")
    return _edit_objects(body, lambda fields: {k: fields[k] for k in fields if k not in names})


def _replace_field(value: str, body: Any) -> Any:
    name, _, text = value.partition("=")
    replacement = {name: json.loads(text)}
    return _edit_objects(body, lambda fields: fields | (replacement if name in fields else {}))


CHANGES: dict[str, Change] = {
    "reset-after": lambda value, _: DroppedConnection(float(value or 0)),
    "truncated": lambda _, response: DroppedConnection(0, response),
    "not-json": lambda _, __: PlainTextResponse("Everything is fine, but this is not JSON."),
    "empty-body": lambda _, __: Response(media_type="application/json"),
    "huge": _huge,
    "data": _edit(lambda value, body: body | {"data": json.loads(value or "null")}),
    "hidden": _edit(_hide),
    "missing-fields": _edit(_remove_fields),
    "field": _edit(_replace_field),
}
"""What becomes of the API's answer, by the name of the fault."""


# --- faults as requested -----------------------------------------------------------------------

FAULTS = ("latency", "rate-limited", *ANSWERS, *CHANGES)
"""The names of all; the first two are the business of `sandbox.py`."""


@dataclass
class Fault:
    name: str
    value: str = ""
    count: int | None = None
    """How often the fault applies; None: always."""
    target: str = ""
    """A part of "METHOD /path$ NAME" that requests must contain."""
    after_seconds: float = 0.0
    """Seconds from the start of the sandbox until the fault applies."""
    hit_count: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ArgumentTypeError(f"unknown fault {self.name!r}; known are: {', '.join(FAULTS)}")

    def try_trigger(self, request: str, uptime: float) -> bool:
        """Return whether the fault applies to a request, and count it if so.

        `request` is "METHOD /path$ NAME"; `uptime` is in seconds since the start of the sandbox.
        """
        applies = (
            (not self.after_seconds or uptime >= self.after_seconds)
            and self.target in request
            and (self.count is None or self.hit_count < self.count)
        )
        self.hit_count += applies
        return applies


_GRAMMAR = re.compile(
    r"(?P<name>[^:+*@]+)(:(?P<value>[^+*@]+))?(\+(?P<after>\d*\.?\d+))?"
    r"(\*(?P<count>\d+))?(@(?P<target>.+))?"
)


def parse_fault(text: str) -> Fault:
    """Parse a fault as written on the command line; raise ArgumentTypeError if it is invalid."""
    match = _GRAMMAR.fullmatch(text)
    if not match:
        raise ArgumentTypeError(
            f"cannot read the fault {text!r}; write NAME[:VALUE][+SECONDS][*COUNT][@TARGET], "
            "for example 500*3@/runs"
        )
    return Fault(
        match["name"],
        match["value"] or "",
        int(match["count"]) if match["count"] else None,
        match["target"] or "",
        float(match["after"] or 0),
    )
