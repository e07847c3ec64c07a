"""A reverse proxy in front of a dashboard: forwarded requests, and headers about the client."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.support import live
from tests.support.processes import PATIENCE

_HOP_BY_HOP_HEADERS = {"connection", "transfer-encoding"}


class ProxyTransport(httpx.HTTPTransport):
    """A client's connection to `server` by a proxy: HTTPS to the client, plain HTTP to the server.

    The proxy forwards the Host header, and removes the prefix `cuts` from the path.
    """

    def __init__(self, server: str, cuts: str = "") -> None:
        super().__init__()
        self.server, self.cuts = httpx.URL(server), cuts.encode()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.scheme == "https", request.url
        path = request.url.raw_path
        assert path.startswith(self.cuts), request.url  # other paths belong to another site
        inner = self.server.copy_with(raw_path=path.removeprefix(self.cuts))
        headers = [*request.headers.raw, (b"X-Forwarded-Proto", b"https")]
        answer = super().handle_request(
            httpx.Request(
                request.method,
                inner,
                headers=headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        )
        answer.request = request
        return answer


@contextlib.contextmanager
def proxy(prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Proxy requests under `prefix`; others get a 404, as from another site.

    Yields the proxy's URL with the prefix, and a list to which the caller adds the dashboard's URL.
    """
    behind: list[str] = []
    client = httpx.AsyncClient(timeout=None)

    async def pass_on(request: Request) -> Response:
        path = request.scope["raw_path"].decode() + "?" + request.scope["query_string"].decode()
        answer = await client.send(
            client.build_request(
                request.method,
                behind[0] + path.removesuffix("?"),
                headers=[*request.headers.raw, (b"x-forwarded-proto", b"http")],
                content=await request.body(),
            ),
            stream=True,
        )

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in answer.aiter_raw():
                    yield part
            finally:
                await answer.aclose()

        response = StreamingResponse(body(), status_code=answer.status_code)
        response.raw_headers = [
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.lower().decode() not in _HOP_BY_HOP_HEADERS
        ]
        return response

    route = Route(f"{prefix}/{{rest:path}}", pass_on, methods=["GET", "HEAD", "POST"])
    place = socket.create_server(("127.0.0.1", 0))
    server = live.web_server(Starlette(routes=[route]))

    async def serve() -> None:
        async with client:  # open streams end with the client
            await server._serve(sockets=[place])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    until = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < until, "the proxy did not start"
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}{prefix}", behind
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE)
        place.close()


def origin(address: str) -> str:
    """Return the origin of a URL."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
