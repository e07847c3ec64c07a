"""Faults: scripted errors of the sandbox, and the syntax to request them.

    NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT][@TARGET]

`500`, `latency:0.3`, `503+60`, `500%0.2@/runs`, `reset*3`, `latency:5@POST`, `forbidden:payments`.
SECONDS count from the start of the sandbox. TARGET is a part of "METHOD /path$ NAME", so it can
select a method, a resource, a single run, the end of a path, or a call by its name, such as
`read-logs`. What each fault does is described in `docs/build/sandbox.md`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.types import Receive, Scope, Send

from .api import MAX_PER_PAGE
from .errors import ApiError, NoAccess, RateLimited

CHUNK_BYTES = 64 * 1024

type Answer = Callable[[str], Response | ApiError]
type Spoil = Callable[[str, Response], Response]
type Edit = Callable[[str, Any], Any]


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


# --- answers in place of the API's -------------------------------------------------------------


def _status(status: int, message: str) -> Answer:
    return lambda _: ApiError(status, message)


def _html(status: int, reason: str) -> Answer:
    """Answer a proxy's error page."""
    page = f"<!doctype html><title>{status}</title><h1>{reason}</h1><hr>proxy"
    return lambda _: HTMLResponse(page, status)


def _unwrapped_error(value: str) -> Response:
    return JSONResponse({"code": "error", "message": "It broke", "status": int(value)}, int(value))


def _error_string(value: str) -> Response:
    return JSONResponse({"error": "It broke"}, int(value))


def _drop(value: str) -> Response:
    return DroppedConnection(float(value or 0))


# --- changes of the API's answer ---------------------------------------------------------------


def _drop_after(value: str, _: Response) -> Response:
    return _drop(value)


def _huge(value: str, response: Response) -> Response:
    size = int(float(value) * 1024 * 1024)
    return StreamingResponse(_pad(size), response.status_code, media_type="application/json")


async def _pad(size: int) -> AsyncIterator[bytes]:
    """Stream JSON of the given size without holding it in memory."""
    head, tail = b'{"data":{"runs":[],"padding":"', b'"},"pagination":{"hasNextPage":false}}'
    yield head
    for remaining in range(size - len(head) - len(tail), 0, -CHUNK_BYTES):
        yield b"x" * min(CHUNK_BYTES, remaining)
        await asyncio.sleep(0)  # lets other requests run
    yield tail


def _edit(edit: Edit) -> Spoil:
    """Edit the JSON of an answer that is not an error."""

    def spoil(value: str, response: Response) -> Response:
        if not isinstance(response, JSONResponse) or response.status_code != 200:
            return response
        # In ASCII, which may hold half a surrogate.
        response.body = json.dumps(edit(value, json.loads(bytes(response.body)))).encode()
        response.headers["Content-Length"] = str(len(response.body))
        return response

    return spoil


def _edit_list(edit: Callable[[str, list[Any]], list[Any]]) -> Spoil:
    """Edit the list in an answer, if there is one."""

    def edit_body(value: str, body: Any) -> Any:
        if "pagination" not in body:
            return body
        return body | {"data": {key: edit(value, items) for key, items in body["data"].items()}}

    return _edit(edit_body)


def _make_unreadable(value: str, items: list[Any]) -> list[Any]:
    count = int(float(value))
    return [None] * min(count, len(items)) + items[count:]


def _add_surplus(value: str, items: list[Any]) -> list[Any]:
    return items + items[-1:] * (MAX_PER_PAGE - len(items) + int(float(value)))


def _edit_objects(part: Any, edit: Callable[[Any], Any]) -> Any:
    """Return a part of an answer with each object in it edited, the innermost first."""
    if isinstance(part, dict):
        return edit({key: _edit_objects(value, edit) for key, value in part.items()})
    return [_edit_objects(item, edit) for item in part] if isinstance(part, list) else part


def _remove_fields(value: str, body: Any) -> Any:
    names = value.split(",")
    return _edit_objects(body, lambda fields: {k: fields[k] for k in fields if k not in names})


def _replace(name: str, value: Any, body: Any) -> Any:
    return _edit_objects(body, lambda fields: fields | ({name: value} if name in fields else {}))


def _replace_lines(value: str, body: Any) -> Any:
    if value == "many":  # 20 MB, whatever was asked for
        return {"data": [{"log": "x" * 20_000, "ts": "2030-01-01T00:00:00.000Z"}] * 1000}
    return _replace("log", LINES[value], body)


# --- the table ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault that can be requested; each function gets the fault's VALUE."""

    answer: Answer | None = None
    """Returns what is answered in place of the API: the request has no effect."""
    spoil: Spoil | None = None
    """Changes the API's answer."""
    value: str = ""
    """Pattern of the VALUE; "": there is none."""
    default: str = ""
    """Of the VALUE."""
    is_abort_only: bool = False


TEXT, NUMBER, STATUS = r".+", r"\d+(\.\d+)?", r"[45]\d\d"
"""Patterns of values; a status is that of an error."""
OPTIONAL_FIELDS = "description,startedAt,concludedAt,refs,response,settings,steps"
"""Optional fields of runs and nodes: clients must work without them."""
NO_FEATURE = "Feature flag release-flows is not enabled for this account"
PERMISSION = "Project > Pipelines > General > Read"
NOT_JSON = "Everything is fine, but this is not JSON."

LINES: dict[str, Any] = {
    "long": "x" * 100_000,
    "nul": "before\0after",
    "cr": "progress 10 %\rprogress 20 %\r\n",
    "bidi": "\u202eeman desrever\u2066",
    "surrogate": "half \ud83d of a pair",
    "markup": "<script>alert('log')</script><b>&amp;",
    "terminal": "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b[2J",
    "object": {"level": "info", "message": "not a text"},
    "null": None,
}
"""What lines may hold, by name."""

FAULT_KINDS: dict[str, FaultKind] = {
    "latency": FaultKind(value=NUMBER, default="1"),  # before all others: `sandbox.py`
    "500": FaultKind(_status(500, "Internal server error")),
    "503": FaultKind(_status(503, "Unavailable")),
    "502-html": FaultKind(_html(502, "Bad Gateway")),
    "404": FaultKind(_status(404, "Not found")),
    "404-html": FaultKind(_html(404, "Not Found")),
    "bad-token": FaultKind(_status(401, "Unauthorized")),
    "feature-401": FaultKind(_status(401, NO_FEATURE)),
    "403": FaultKind(_status(403, "Forbidden")),
    "forbidden": FaultKind(lambda _: NoAccess(PERMISSION, "Project"), value=TEXT),
    "rate-limited": FaultKind(lambda _: RateLimited(exhausts_window=True)),
    "too-fast": FaultKind(RateLimited, value=NUMBER, default="5"),
    "error-without-wrapper": FaultKind(_unwrapped_error, value=STATUS, default="500"),
    "error-string": FaultKind(_error_string, value=STATUS, default="500"),
    "reset": FaultKind(_drop),
    "reset-after": FaultKind(spoil=_drop_after),
    "truncated": FaultKind(spoil=lambda _, response: DroppedConnection(0, response)),
    "not-json": FaultKind(spoil=lambda _, response: PlainTextResponse(NOT_JSON)),
    "empty-body": FaultKind(spoil=lambda _, __: Response(media_type="application/json")),
    "huge": FaultKind(spoil=_huge, value=NUMBER, default="50"),
    "data": FaultKind(
        spoil=_edit(lambda value, body: body | {"data": json.loads(value)}),
        value=TEXT,
        default="null",
    ),
    "unreadable": FaultKind(spoil=_edit_list(_make_unreadable), value=NUMBER, default="1"),
    "hidden": FaultKind(
        spoil=_edit_list(lambda value, items: [item for item in items if item["id"] != value]),
        value=TEXT,
    ),
    "surplus": FaultKind(spoil=_edit_list(_add_surplus), value=NUMBER, default="1000"),
    "missing-fields": FaultKind(spoil=_edit(_remove_fields), value=TEXT, default=OPTIONAL_FIELDS),
    "lines": FaultKind(
        spoil=_edit(_replace_lines), value="|".join(["many", *LINES]), default="many"
    ),
    "unknown-status": FaultKind(
        spoil=_edit(partial(_replace, "status")), value=TEXT, default="hibernating"
    ),
    "abort-timeout": FaultKind(spoil=_drop_after, value=NUMBER, default="60", is_abort_only=True),
    "abort-lost": FaultKind(_drop, value=NUMBER, default="60", is_abort_only=True),
}


# --- faults as requested -----------------------------------------------------------------------


@dataclass
class Fault:
    name: str
    value: str = ""
    probability: float = 1.0
    count: int | None = None
    """How often the fault applies; None: always."""
    target: str = ""
    """A part of "METHOD /path$ NAME" that requests must contain; see `name_call`."""
    after_seconds: float = 0.0
    """Seconds from the start of the sandbox until the fault applies."""
    hit_count: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        kind = FAULT_KINDS.get(self.name)
        if kind is None:
            raise ValueError(f"unknown fault {self.name!r}; known are: {', '.join(FAULT_KINDS)}")
        self.value = self.value or kind.default
        if not re.fullmatch(kind.value, self.value):
            raise ValueError(
                f"fault {self.name!r} cannot have the VALUE {self.value!r}: "
                "see docs/build/sandbox.md"
            )
        if not 0 <= self.probability <= 1:
            raise ValueError(f"the probability of fault {self.name!r} must be between 0 and 1")

    @property
    def kind(self) -> FaultKind:
        return FAULT_KINDS[self.name]

    def try_trigger(
        self, method: str, path: str, random_value: float, uptime: float, name: str = ""
    ) -> bool:
        """Return whether the fault applies to a request, and count it if so.

        `random_value` is between 0 and 1; `uptime` is in seconds since the start of the sandbox.
        """
        applies = (
            (not self.after_seconds or uptime >= self.after_seconds)
            and self.target in f"{method} {path}$ {name}"
            and (not self.kind.is_abort_only or is_abort(method, path))
            and (self.name != "forbidden" or f"/projects/{self.value}/" in f"{path}/")
            and (self.count is None or self.hit_count < self.count)
            and random_value < self.probability
        )
        self.hit_count += applies
        return applies


def is_abort(method: str, path: str) -> bool:
    """Return whether a request aborts a run, or a job run or build."""
    return method == "DELETE" or (method == "POST" and path.endswith("/abort"))


_GRAMMAR = re.compile(
    r"(?P<name>[^:+%*@]+)(:(?P<value>[^+%*@]+))?(\+(?P<after>\d*\.?\d+))?"
    r"(%(?P<probability>\d*\.?\d+))?(\*(?P<count>\d+))?(@(?P<target>.+))?"
)


def parse_fault(text: str) -> Fault:
    """Parse a fault as written on the command line; raise ValueError with a message for users."""
    match = _GRAMMAR.fullmatch(text)
    if not match:
        raise ValueError(
            f"cannot read the fault {text!r}; write NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT]"
            "[@TARGET], for example 500%0.2@/runs"
        )
    return Fault(
        match["name"],
        match["value"] or "",
        float(match["probability"] or 1),
        int(match["count"]) if match["count"] else None,
        match["target"] or "",
        float(match["after"] or 0),
    )
