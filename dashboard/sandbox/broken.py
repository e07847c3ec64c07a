"""Carries out faults: answers, edits of answers, and responses that break the connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .calls import MAX_PER_PAGE, ApiError, ApiResponse
from .faults import Fault

TRANSPORT_KEY = "sandbox.transport"
"""Where the scope keeps the connection, if the server lets us have it."""

CHUNK_BYTES = 64 * 1024


class DroppedConnection(Response):
    """Closes the connection after an optional wait, with nothing answered, or with half."""

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
                transport.close()  # unlike abort(), sends what has been written
        elif transport is not None:
            transport.abort()
        # The server would call it an error of ours to return before the connection is gone.
        await _wait_for_disconnect(5, receive)


async def _wait_for_disconnect(seconds: float, receive: Receive) -> None:
    """Wait, but not longer than the client does."""

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        async with asyncio.timeout(seconds):
            await disconnect()
    except TimeoutError:
        pass


async def apply_delays(faults: Iterable[Fault]) -> None:
    for fault in faults:
        if fault.name == "latency":
            await asyncio.sleep(fault.number)


def replace_response(fault: Fault, no_access: str) -> ApiResponse | Response:
    """Answer in place of the API, for a fault that strikes before."""
    match fault.name:
        case "500" | "503":
            status = int(fault.name)
            raise ApiError(status, "Internal server error" if status == 500 else "Unavailable")
        case "502-html" | "404-html":
            status, reason = (
                (502, "Bad Gateway") if fault.name == "502-html" else (404, "Not Found")
            )
            page = f"<!doctype html><title>{status}</title><h1>{reason}</h1><hr>proxy"
            return HTMLResponse(page, status_code=status)
        case "404":
            raise ApiError(404, "Not found")
        case "bad-token":
            raise ApiError(401, "Unauthorized")
        case "feature-401":
            raise ApiError(401, "Feature flag release-flows is not enabled for this account")
        case "forbidden" if no_access == "403":
            raise ApiError(403, "Missing permission: Project > Pipelines > General > Read")
        case "forbidden":
            raise ApiError(404, "Project not found")
        case "error-without-wrapper":
            status = int(fault.number)
            return ApiResponse(status, {"code": "error", "message": "It broke", "status": status})
        case "error-string":
            return ApiResponse(int(fault.number), {"error": "It broke"})
        case "abort-lost":
            return DroppedConnection(fault.number)
    return DroppedConnection()


def edit_body(fault: Fault, body: Any) -> Any:
    """Return the answer with the fault in it."""
    match fault.name:
        case "data":
            return body | {"data": json.loads(fault.value)}
        case "unreadable" | "hidden" | "surplus":
            return _edit_list(body, fault)
        case "missing-fields":
            return _remove_fields(body, set(fault.value.split(",")))
        case "null-fields":
            return _replace_fields(body, dict.fromkeys(fault.value.split(",")))
        case "unknown-status":
            return _replace_fields(body, {"status": fault.value})
    return _replace_fields(body, {"kind": fault.value})


def break_response(fault: Fault, response: Response) -> Response:
    """Return a response that is broken as a whole."""
    status = response.status_code
    match fault.name:
        case "truncated":
            return DroppedConnection(partial_response=response)
        case "not-json":
            return PlainTextResponse("Everything is fine, but this is not JSON.", status)
        case "empty-body":
            return Response(b"", status, media_type="application/json")
        case "huge":
            return StreamingResponse(
                _stream_padding(int(fault.number * 1024 * 1024)),
                status,
                media_type="application/json",
            )
        case "abort-timeout":
            return DroppedConnection(fault.number)
    return DroppedConnection()


async def _stream_padding(size: int) -> AsyncIterator[bytes]:
    """Stream a JSON answer of that size, without ever holding it."""
    head, tail = b'{"data":{"runs":[],"padding":"', b'"},"pagination":{"hasNextPage":false}}'
    yield head
    remaining = size - len(head) - len(tail)
    while remaining > 0:
        yield b"x" * min(CHUNK_BYTES, remaining)
        remaining -= CHUNK_BYTES
        await asyncio.sleep(0)  # other requests want to be answered meanwhile
    yield tail


def _edit_list(body: Any, fault: Fault) -> Any:
    data = body.get("data")
    lists = data.items() if isinstance(data, dict) else ()
    for name, entries in lists:
        if isinstance(entries, list) and "pagination" in body:
            return body | {"data": data | {name: _edit_entries(entries, fault)}}
    return body


def _edit_entries(entries: list[Any], fault: Fault) -> list[Any]:
    match fault.name:
        case "hidden":
            return [entry for entry in entries if entry["id"] != fault.value]
        case "unreadable":
            count = int(fault.number)
            return [None] * min(count, len(entries)) + entries[count:]
    return entries + entries[-1:] * (MAX_PER_PAGE - len(entries) + int(fault.number))


def _remove_fields(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _remove_fields(v, names) for k, v in value.items() if k not in names}
    return [_remove_fields(v, names) for v in value] if isinstance(value, list) else value


def _replace_fields(value: Any, new: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {k: new[k] if k in new else _replace_fields(v, new) for k, v in value.items()}
    return [_replace_fields(v, new) for v in value] if isinstance(value, list) else value
