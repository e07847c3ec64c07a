"""Carries out faults: answers, edits of answers, and responses that break the connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .calls import MAX_PER_PAGE, Answer, ApiError
from .faults import Fault

TRANSPORT = "sandbox.transport"
"""Where the scope keeps the connection, if the server lets us have it."""

CHUNK = 64 * 1024


class Drop(Response):
    """Closes the connection after an optional wait, with nothing answered, or with half."""

    def __init__(self, wait: float = 0, half_of: Response | None = None) -> None:
        super().__init__()
        self.wait = wait
        self.half_of = half_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.wait:
            await _wait(self.wait, receive)
        transport = scope.get(TRANSPORT)
        if self.half_of is not None:
            body = bytes(self.half_of.body)
            start = {"type": "http.response.start", "status": self.half_of.status_code}
            await send(start | {"headers": self.half_of.raw_headers})
            half = {"type": "http.response.body", "body": body[: len(body) // 2]}
            await send(half | {"more_body": True})
            if transport is not None:
                transport.close()  # unlike abort(), sends what has been written
        elif transport is not None:
            transport.abort()
        # The server would call it an error of ours to return before the connection is gone.
        await _wait(5, receive)


async def _wait(seconds: float, receive: Receive) -> None:
    """Wait, but not longer than the client does."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        async with asyncio.timeout(seconds):
            await gone()
    except TimeoutError:
        pass


async def delay(faults: Iterable[Fault]) -> None:
    for fault in faults:
        if fault.name == "latency":
            await asyncio.sleep(fault.amount)


def refuse(fault: Fault, no_access: str) -> Answer | Response:
    """Answer in place of the API, for a fault that strikes before."""
    match fault.name:
        case "500" | "503":
            status = int(fault.name)
            raise ApiError(status, "Internal server error" if status == 500 else "Unavailable")
        case "502-html" | "404-html":
            status, said = (502, "Bad Gateway") if fault.name == "502-html" else (404, "Not Found")
            page = f"<!doctype html><title>{status}</title><h1>{said}</h1><hr>proxy"
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
            status = int(fault.amount)
            return Answer(status, {"code": "error", "message": "It broke", "status": status})
        case "error-string":
            return Answer(int(fault.amount), {"error": "It broke"})
        case "abort-lost":
            return Drop(fault.amount)
    return Drop()


def edit(fault: Fault, body: Any) -> Any:
    """Return the answer with the fault in it."""
    match fault.name:
        case "data":
            return body | {"data": json.loads(fault.value)}
        case "unreadable" | "hidden" | "surplus":
            return _with_odd_list(body, fault)
        case "missing-fields":
            return _without(body, set(fault.value.split(",")))
        case "null-fields":
            return _replace(body, dict.fromkeys(fault.value.split(",")))
        case "unknown-status":
            return _replace(body, {"status": fault.value})
    return _replace(body, {"kind": fault.value})


def spoil(fault: Fault, response: Response) -> Response:
    """Return a response that is broken as a whole."""
    status = response.status_code
    match fault.name:
        case "truncated":
            return Drop(half_of=response)
        case "not-json":
            return PlainTextResponse("Everything is fine, but this is not JSON.", status)
        case "empty-body":
            return Response(b"", status, media_type="application/json")
        case "huge":
            return StreamingResponse(
                _endless(int(fault.amount * 1024 * 1024)), status, media_type="application/json"
            )
        case "abort-timeout":
            return Drop(fault.amount)
    return Drop()


async def _endless(size: int) -> AsyncIterator[bytes]:
    """Stream a JSON answer of that size, without ever holding it."""
    head, tail = b'{"data":{"runs":[],"padding":"', b'"},"pagination":{"hasNextPage":false}}'
    yield head
    left = size - len(head) - len(tail)
    while left > 0:
        yield b"x" * min(CHUNK, left)
        left -= CHUNK
        await asyncio.sleep(0)  # other requests want to be answered meanwhile
    yield tail


def _with_odd_list(body: Any, fault: Fault) -> Any:
    data = body.get("data")
    named = data.items() if isinstance(data, dict) else ()
    for name, entries in named:
        if isinstance(entries, list) and "pagination" in body:
            return body | {"data": data | {name: _odd(entries, fault)}}
    return body


def _odd(entries: list[Any], fault: Fault) -> list[Any]:
    match fault.name:
        case "hidden":
            return [entry for entry in entries if entry["id"] != fault.value]
        case "unreadable":
            odd = int(fault.amount)
            return [None] * min(odd, len(entries)) + entries[odd:]
    return entries + entries[-1:] * (MAX_PER_PAGE - len(entries) + int(fault.amount))


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, names) for k, v in value.items() if k not in names}
    return [_without(v, names) for v in value] if isinstance(value, list) else value


def _replace(value: Any, new: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {k: new[k] if k in new else _replace(v, new) for k, v in value.items()}
    return [_replace(v, new) for v in value] if isinstance(value, list) else value
