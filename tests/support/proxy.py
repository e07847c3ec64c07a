"""A reverse proxy in front of a dashboard: forwarded requests, and headers about the client."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.support.asgi_servers import Server, serve_in_thread

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

    class ProxyServer(Server):
        async def serve_on(self, listener: socket.socket) -> None:
            async with client:  # open streams end with the client
                await super().serve_on(listener)

    with serve_in_thread(ProxyServer(Starlette(routes=[route]))) as url:
        yield f"{url}{prefix}", target_urls


def origin(address: str) -> str:
    """Return the origin of a URL."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
