"""A scripted HTTP server on loopback: real sockets, to simulate real faults.

Each request gets the script's next entry; after the last one it gets an empty page.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SELF_SIGNED = Path(__file__).with_name("self_signed.pem")  # for 127.0.0.1
WAIT_TIMEOUT = 60  # seconds until a waiting test fails
Responder = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """One received request, with its path still percent-encoded."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class ScriptedServer:
    """Plays a script, and records the requests it received."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self._script: list[Responder] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._handle_connection, "127.0.0.1", 0, ssl=self._tls
        )
        self.url = (
            f"http{'s' if self._tls else ''}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_requests(self, number: int) -> None:
        """Wait until `number` requests have arrived."""
        async with asyncio.timeout(WAIT_TIMEOUT):
            while len(self.requests) < number:
                await asyncio.sleep(0.005)

    async def wait_until_closed(self) -> None:
        """Wait until all connections are closed."""
        async with asyncio.timeout(WAIT_TIMEOUT):
            await asyncio.gather(*self._tasks)

    def enqueue(self, *script: Responder) -> None:
        self._script.extend(script)

    @property
    def request(self) -> Request:
        """Return the only request that arrived."""
        assert len(self.requests) == 1
        return self.requests[0]

    async def _handle_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while not writer.is_closing():
                request = await _receive(reader)
                self.requests.append(request)
                await self._respond(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except RuntimeError:
            if not writer.is_closing():  # uvloop: a write to a connection that is closed
                raise
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)

    async def _respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        empty_page = respond_with({"data": {"projects": []}})
        await (self._script.pop(0) if self._script else empty_page)(writer)


async def _receive(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    request_line, *lines = head.strip().split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    path, _, query = target.partition("?")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, query, headers, body)


def respond_with(
    body: Any = None, *, status: int = 200, headers: dict[str, str] | None = None
) -> Responder:
    """Respond with JSON, or with bytes as they are; None is an empty body."""
    content = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    if status == 204:
        del fields["Content-Length"]
    head = "".join(f"{name}: {value}\r\n" for name, value in (fields | (headers or {})).items())
    return send_bytes(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + content)


def send_bytes(raw: bytes, *, close: bool = False) -> Responder:
    """Send bytes as they are."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if close:
            writer.close()

    return respond


async def reset_connection(writer: asyncio.StreamWriter) -> None:
    """Reset the connection without a response."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def never_respond(writer: asyncio.StreamWriter) -> None:
    """Keep the connection open without a response."""
    await asyncio.Event().wait()


async def drip_bytes(writer: asyncio.StreamWriter) -> None:
    """Send the response byte by byte, each within a client's timeout between bytes."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)
