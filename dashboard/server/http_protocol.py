"""HTTP of the web server: limits that uvicorn does not have, and the address of the peer.

Without the limits anybody could keep a thousand connections open, by sending half a request on each
or by not reading the answers, or fill the memory with headers.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class LimitedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request takes too long to arrive, or whose answer is not read.

    Refuses a large head (431).

    The scope of each request also has `peer`: the address that has connected. uvicorn replaces
    `client` by what a proxy says in X-Forwarded-For, which proves nothing about who has sent the
    request. Served without this, nobody is trusted (accounts/authentication/auth_proxy.py).
    """

    request_timeout: ClassVar[float] = 20.0  # seconds from the first byte to the last
    max_head_bytes: ClassVar[int] = 32_768  # of the request line and all headers
    # Seconds in which the client has to take what waits in this process: a page, or a piece of a
    # list that is exported.
    reading_timeout: ClassVar[float] = 300.0

    _reading_deadline: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_head_complete = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_request()
        self._end_reading_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._end_reading_deadline()
        self._reading_deadline = self.loop.call_later(self.reading_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():  # a closing one resumes before all has been taken
            self._end_reading_deadline()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        is_idle = self.cycle is None or self.cycle.response_complete
        # Data that begins no request, such as an empty line, has ended the wait for the next one.
        if is_idle and self._deadline is None and self.timeout_keep_alive_task is None:
            self._start_request()
        if not self._is_head_complete and self._head_bytes > self.max_head_bytes:
            self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.client:
            self.scope["peer"] = self.client[0]  # type: ignore[typeddict-unknown-key]
        if self._deadline is None:  # a further request of the connection
            self._start_request()

    def on_headers_complete(self) -> None:
        self._is_head_complete = True
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head_bytes > self.max_head_bytes:
            self._refuse_head()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._end_request()

    def _start_request(self) -> None:
        self._head_bytes, self._is_head_complete = 0, False
        self._deadline = self.loop.call_later(self.request_timeout, self.transport.abort)

    def _end_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._head_bytes, self._is_head_complete = 0, False

    def _refuse_head(self) -> None:
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.transport.close()

    def _end_reading_deadline(self) -> None:
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None
