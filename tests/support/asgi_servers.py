"""Servers of ASGI applications in a thread, on the event loop and with the protocol of `serve`."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn
import uvloop
from django.conf import settings

from dashboard.server.http_protocol import LimitedHttpProtocol

WAIT_TIMEOUT = 30  # seconds for a server to start or stop on a busy machine


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop, as `serve` does, until it ends.

    asyncio's own loop leaves Nagle's algorithm on for listeners of `socket.create_server`: each
    answer on a connection kept alive took 40 ms more.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


class Server(uvicorn.Server):
    """A server that can be stopped at once: uvicorn looks every tenth of a second."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedHttpProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
                forwarded_allow_ips=settings.FORWARDED_ALLOW_IPS,
            )
        )
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve on a listening socket until `stop`."""
        self._loop = asyncio.get_running_loop()
        await self._serve(sockets=[listener])

    def wait_until_started(self) -> None:
        assert self._ready.wait(WAIT_TIMEOUT), "the server did not start"

    def stop(self) -> None:
        """Stop; may be called from any thread."""
        self.should_exit = self.force_exit = True
        # It may have failed: then there is no loop, or a closed one.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    async def main_loop(self) -> None:
        self._ready.set()
        while not await self.on_tick(0):  # which sets the time of answers' `Date`
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=0.1)


@contextlib.contextmanager
def serve_in_thread(server: Server) -> Iterator[str]:
    """Serve in a thread until the block ends; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: run(server.serve_on(listener)), daemon=True)
        thread.start()
        try:
            server.wait_until_started()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.stop()
            thread.join(WAIT_TIMEOUT)
