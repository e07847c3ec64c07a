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
from tests.support.processes import WAIT_TIMEOUT

_HOP_BY_HOP_HEADERS = {"connection", "transfer-encoding"}


class ProxyTransport(httpx.HTTPTransport):
    """A client's connection to `server` by a proxy: HTTPS to the client, plain HTTP to the server.

    The proxy forwards the Host header, and removes `removed_prefix` from the path.
    """

    def __init__(self, server: str, removed_prefix: str = "") -> None:
        super().__init__()
        self.server, self.removed_prefix = httpx.URL(server), removed_prefix.encode()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.scheme == "https", request.url
        path = request.url.raw_path
        assert path.startswith(self.removed_prefix), (
            request.url
        )  # other paths belong to another site
        url = self.server.copy_with(raw_path=path.removeprefix(self.removed_prefix))
        headers = [*request.headers.raw, (b"X-Forwarded-Proto", b"https")]
        answer = super().handle_request(
            httpx.Request(
                request.method,
                url,
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
    target_urls: list[str] = []
    client = httpx.AsyncClient(timeout=None)

    async def forward(request: Request) -> Response:
        path = request.scope["raw_path"].decode() + "?" + request.scope["query_string"].decode()
        answer = await client.send(
            client.build_request(
                request.method,
                target_urls[0] + path.removesuffix("?"),
                headers=[*request.headers.raw, (b"x-forwarded-proto", b"http")],
                content=await request.body(),
            ),
            stream=True,
        )

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            finally:
                await answer.aclose()

        response = StreamingResponse(body(), status_code=answer.status_code)
        response.raw_headers = [
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.lower().decode() not in _HOP_BY_HOP_HEADERS
        ]
        return response

    route = Route(f"{prefix}/{{rest:path}}", forward, methods=["GET", "HEAD", "POST"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = live.web_server(Starlette(routes=[route]))

    async def serve() -> None:
        async with client:  # open streams end with the client
            await server._serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not server.started:
        assert time.monotonic() < deadline, "the proxy did not start"
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}", target_urls
    finally:
        server.should_exit = server.force_exit = True
        thread.join(WAIT_TIMEOUT)
        listener.close()


def origin(address: str) -> str:
    """Return the origin of a URL."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
