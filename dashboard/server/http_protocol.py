"""HTTP of the web server: a limit of heads, which uvicorn lacks, and the address of the peer."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 32_768  # of the request line and all headers; else anybody could fill the memory


class LimitedHttpProtocol(HttpToolsProtocol):
    """Refuses a large head (431).

    The scope of each request also has `peer`: the address that has connected. uvicorn replaces
    `client` by what a proxy says in X-Forwarded-For, which proves nothing about who has sent the
    request. Served without this, nobody is trusted (accounts/authentication/auth_proxy.py).
    """

    _head_bytes = 0
    _is_head_complete = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._is_head_complete and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.client:
            self.scope["peer"] = self.client[0]  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self._is_head_complete = True
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._start_head()

    def _start_head(self) -> None:
        self._head_bytes, self._is_head_complete = 0, False

    def _refuse_head(self) -> None:
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.transport.close()
