"""HTTP of the web server: limits that uvicorn lacks, and the address of the peer."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of the request line and all headers, and of trailers; else anybody could fill the memory.
MAX_HEAD_BYTES = 32_768
# For a whole request, and until a connection's first; else anybody could hold every connection.
REQUEST_SECONDS = 30.0


class LimitedHttpProtocol(HttpToolsProtocol):
    """Refuses a large head (431), and a request that is not complete in time (408).

    Trailers are dropped: uvicorn would add them to the headers, where a `Cookie` signs in.

    The time runs from the first byte of the request or, if the previous response ends later, from
    its end: neither streams nor slow pages are limited. A connection without a request is closed
    after the same time, and one that waits for its next request after uvicorn's 5 seconds.

    The scope of each request also has `peer`: the address that has connected. uvicorn replaces
    `client` by what a proxy says in X-Forwarded-For, which proves nothing about who has sent the
    request. Served without this, nobody is trusted (accounts/authentication/auth_proxy.py).
    """

    _head_bytes = 0
    _is_head_complete = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head()
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self.cycle or self.cycle.response_complete:
            self._start_timer()
        if self.client:
            self.scope["peer"] = self.client[0]  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_head_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        else:
            super().on_headers_complete()
            self._is_head_complete = True

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._head_bytes = 0  # trailers have the limit to themselves

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._start_head()
        if not self.cycle.response_complete:  # else this is the rest of a refused body
            self._stop_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete or self.cycle.more_body:  # no further request is complete
            self._start_timer()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._end_late_request)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_late_request(self) -> None:
        if self._head_bytes or self._is_head_complete:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _start_head(self) -> None:
        self._head_bytes, self._is_head_complete = 0, False

    def _refuse(self, status: bytes) -> None:
        # A refused body may go on after its response: a second one would answer nothing.
        if not (self._is_head_complete and self.cycle.response_complete):
            self.transport.write(
                b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status
            )
        self.transport.close()
