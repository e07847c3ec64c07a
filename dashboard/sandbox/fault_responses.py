"""Effects of faults: responses in place of the API's, edits of its JSON, broken connections.

Functions take the VALUE of their fault as first argument.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .http import MAX_PER_PAGE, ApiError, ApiResponse, NoAccess

TRANSPORT_KEY = "sandbox.transport"
"""Key of the connection in the ASGI scope, if the server provides it."""

CHUNK_BYTES = 64 * 1024


class DroppedConnection(Response):
    """Close the connection after an optional wait, with no response or half of one."""

    def __init__(self, delay_seconds: float = 0, partial_response: Response | None = None) -> None:
        super().__init__()
        self.delay_seconds = delay_seconds
        self.partial_response = partial_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.delay_seconds:
            await _wait_for_disconnect(self.delay_seconds, receive)
        transport = scope.get(TRANSPORT_KEY)
        if self.partial_response is not None:
            body = bytes(self.partial_response.body)
            start_message = {
                "type": "http.response.start",
                "status": self.partial_response.status_code,
            }
            await send(start_message | {"headers": self.partial_response.raw_headers})
            body_message = {"type": "http.response.body", "body": body[: len(body) // 2]}
            await send(body_message | {"more_body": True})
            if transport is not None:
                transport.close()  # unlike abort(), sends pending data
        elif transport is not None:
            transport.abort()
        # The server logs an error if this returns while the connection is open.
        await _wait_for_disconnect(5, receive)


async def _wait_for_disconnect(seconds: float, receive: Receive) -> None:
    """Wait for `seconds`, or until the client disconnects."""

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        async with asyncio.timeout(seconds):
            await disconnect()
    except TimeoutError:
        pass


type Replace = Callable[[str], ApiResponse | Response]
type Edit = Callable[[str, Any], Any]
type Spoil = Callable[[str, Response], Response]

# --- in place of the API -----------------------------------------------------------------------


def error(status: int, message: str) -> Replace:
    def replace(_: str) -> ApiResponse:
        raise ApiError(status, message)

    return replace


def html_page(status: int, reason: str) -> Replace:
    """Return a function that responds with a proxy's error page."""
    page = f"<!doctype html><title>{status}</title><h1>{reason}</h1><hr>proxy"
    return lambda _: HTMLResponse(page, status_code=status)


def error_without_wrapper(value: str) -> ApiResponse:
    status = int(float(value))
    return ApiResponse(status, {"code": "error", "message": "It broke", "status": status})


def error_string(value: str) -> ApiResponse:
    return ApiResponse(int(float(value)), {"error": "It broke"})


def forbid_project(_: str) -> ApiResponse:
    raise NoAccess("Project > Pipelines > General > Read", hidden="Project")


def drop_connection(value: str) -> Response:
    return DroppedConnection(float(value or 0))


# --- the JSON of a response --------------------------------------------------------------------


def set_data(value: str, body: Any) -> Any:
    return body | {"data": json.loads(value)}


def edit_list(edit_entries: Callable[[str, list[Any]], list[Any]]) -> Edit:
    """Return a function that edits the list in a response, if there is one."""

    def edit(value: str, body: Any) -> Any:
        data = body.get("data")
        lists = data.items() if isinstance(data, dict) else ()
        for name, entries in lists:
            if isinstance(entries, list) and "pagination" in body:
                return body | {"data": data | {name: edit_entries(value, entries)}}
        return body

    return edit


def make_unreadable(value: str, entries: list[Any]) -> list[Any]:
    count = int(float(value))
    return [None] * min(count, len(entries)) + entries[count:]


def hide_entry(value: str, entries: list[Any]) -> list[Any]:
    return [entry for entry in entries if entry["id"] != value]


def add_surplus(value: str, entries: list[Any]) -> list[Any]:
    return entries + entries[-1:] * (MAX_PER_PAGE - len(entries) + int(float(value)))


def remove_fields(value: str, body: Any) -> Any:
    names = set(value.split(","))

    def remove(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: remove(v) for k, v in part.items() if k not in names}
        return [remove(v) for v in part] if isinstance(part, list) else part

    return remove(body)


def replace_status(value: str, body: Any) -> Any:
    if isinstance(body, dict):
        return {k: value if k == "status" else replace_status(value, v) for k, v in body.items()}
    return [replace_status(value, v) for v in body] if isinstance(body, list) else body


# --- a response as a whole ---------------------------------------------------------------------


def truncate(_: str, response: Response) -> Response:
    return DroppedConnection(partial_response=response)


def not_json(_: str, response: Response) -> Response:
    text = "Everything is fine, but this is not JSON."
    return PlainTextResponse(text, response.status_code)


def empty_body(_: str, response: Response) -> Response:
    return Response(b"", response.status_code, media_type="application/json")


def huge_body(value: str, response: Response) -> Response:
    padding = _stream_padding(int(float(value) * 1024 * 1024))
    return StreamingResponse(padding, response.status_code, media_type="application/json")


def drop_after(value: str, _: Response) -> Response:
    return drop_connection(value)


async def _stream_padding(size: int) -> AsyncIterator[bytes]:
    """Stream a JSON response of the given size without holding it in memory."""
    head, tail = b'{"data":{"runs":[],"padding":"', b'"},"pagination":{"hasNextPage":false}}'
    yield head
    remaining = size - len(head) - len(tail)
    while remaining > 0:
        yield b"x" * min(CHUNK_BYTES, remaining)
        remaining -= CHUNK_BYTES
        await asyncio.sleep(0)  # lets other requests run
    yield tail
