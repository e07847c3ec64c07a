"""A TCP proxy in front of a database, which a test can cut and restore, or let lose one reply."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.support.ports import free_port

WAIT_TIMEOUT = 60  # seconds


class DatabaseProxy:
    """Forwards connections to `target`; when cut, it resets open ones and refuses new ones."""

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.loop = asyncio.new_event_loop()
        self.port = free_port()  # which nobody else takes while it is cut
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._uncertain_statement = b""

    def lose_commit_reply(self, statement: str) -> None:
        """Reset the next connection that sends `statement`, when its commit has been answered."""
        self._uncertain_statement = statement.encode()

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._run_on_loop(self._cut)

    def restore(self) -> None:
        """Accept connections again, on the same port."""
        self._run_on_loop(self._listen)

    def end(self) -> None:
        """Cut the connections and close all sockets."""
        self._run_on_loop(self._end)

    def _run_on_loop(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self.loop).result(WAIT_TIMEOUT)

    async def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        # asyncio sets it for sockets of its own only; a connection inherits it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = await asyncio.start_server(self._connected, sock=listener)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            self._reset(writer)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _end(self) -> None:
        await self._cut()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.target)
        except OSError:  # as if the client had connected to the server itself
            self._reset(writer)
            self._open.discard(writer)
            return
        self._open.add(server_writer)
        uncertain_commit = asyncio.Event()  # sent, and its answer is to be lost
        for source, sink in ((reader, server_writer), (server_reader, writer)):
            task = asyncio.ensure_future(self._pump(source, sink, uncertain_commit))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        uncertain_commit: asyncio.Event,
    ) -> None:
        has_sent_statement = False
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if uncertain_commit.is_set():
                    self._reset(sink)
                    break
                if self._uncertain_statement and self._uncertain_statement in data:
                    has_sent_statement, self._uncertain_statement = True, b""
                if has_sent_statement and b"COMMIT" in data:
                    uncertain_commit.set()
                sink.write(data)
                await sink.drain()
        self._open.discard(sink)
        sink.close()


@contextlib.contextmanager
def database_proxy(database: str) -> Iterator[tuple[str, DatabaseProxy]]:
    """Yield the URL of a PostgreSQL database behind a proxy, and the proxy."""
    parts = urlsplit(database)
    proxy = DatabaseProxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    thread = threading.Thread(target=proxy.loop.run_forever, daemon=True)
    thread.start()
    proxy.restore()
    credentials = parts.netloc.rpartition("@")[0]
    netloc = f"{credentials}@127.0.0.1:{proxy.port}"
    try:
        yield parts._replace(netloc=netloc).geturl(), proxy
    finally:
        proxy.end()
        proxy.loop.call_soon_threadsafe(proxy.loop.stop)
        thread.join(WAIT_TIMEOUT)
        proxy.loop.close()
