"""An HTTP proxy in front of the sandbox that breaks the answers to chosen requests."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.scripted_server import Request, ScriptedServer


@dataclass(frozen=True)
class Answer:
    """One answer of the sandbox, as received."""

    status: int
    head: bytes  # with the blank line at its end
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """A request to break, and the means to answer it."""

    request: Request
    writer: asyncio.StreamWriter
    fetch: Callable[[Request], Awaitable[Answer]]

    async def forward(self) -> Answer:
        """Pass the request on, so that it takes effect, and return the answer."""
        return await self.fetch(self.request)


type Fault = Callable[[Exchange], Awaitable[None]]


class FaultProxy(ScriptedServer):
    """Passes requests on to `upstream_url`, but those that match go to a fault."""

    def __init__(self, upstream_url: str) -> None:
        super().__init__()
        self._upstream = urlsplit(upstream_url)
        self._faults: list[tuple[Fault, Callable[[Request], bool]]] = []
        self.hits = 0  # requests that went to a fault

    def break_answers(self, fault: Fault, matches: Callable[[Request], bool]) -> None:
        """Let `fault` answer the requests that match, until `restore`."""
        self._faults.append((fault, matches))

    def restore(self) -> None:
        """Pass on all requests again."""
        self._faults = []

    async def _respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        for fault, matches in self._faults:
            if matches(request):
                self.hits += 1
                await fault(Exchange(request, writer, self._fetch))
                return
        answer = await self._fetch(request)
        writer.write(answer.head + answer.body)
        await writer.drain()

    async def _fetch(self, request: Request) -> Answer:
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        try:
            headers = request.headers | {"connection": "close"}
            target = f"{request.path}?{request.query}" if request.query else request.path
            head = f"{request.method} {target} HTTP/1.1\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"{head}\r\n".encode() + request.body)
            raw_head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        # The client's connection stays open, as with Northflank.
        lines = [line for line in raw_head.split(b"\r\n") if line.lower() != b"connection: close"]
        return Answer(int(lines[0].split()[1]), b"\r\n".join([*lines, b"", b""]), body)
