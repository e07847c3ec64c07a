"""Limits of the web server, over real sockets."""

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dashboard.server.http_protocol import LimitedHttpProtocol
from tests.support.asgi_servers import Server, serve_in_thread
from tests.support.live import Live

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
LIMIT = LimitedHttpProtocol.max_head_bytes


@contextlib.contextmanager
def connect(url: str) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        yield connection


def send_slowly(connection: socket.socket) -> None:
    """Send a header every 50 ms until the server ends the connection; 200 at most."""
    with contextlib.suppress(ConnectionError):
        for number in range(200):
            connection.sendall(b"X-%d: 1\r\n" % number)
            if select.select([connection], [], [], 0.05)[0]:
                return


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    """Return what is received, up to `end`."""
    received = b""
    while not received.endswith(end):
        chunk = connection.recv(65536)
        assert chunk, f"the connection ended after {received!r}"
        received += chunk
    return received


def receive_all(connection: socket.socket) -> bytes:
    """Return everything received until the server ends the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


# --- requests that do not arrive ---------------------------------------------------------------


def create_app() -> Any:
    """Return an application that answers "ok"; on /hold only after a request for /release."""
    is_released = asyncio.Event()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/hold":
            await send({"type": "http.response.body", "body": b"held\n", "more_body": True})
            await is_released.wait()
        elif scope["path"] == "/release":
            is_released.set()
        await send({"type": "http.response.body", "body": b"ok\n"})

    return answer


def protocol_with(**timeouts: float) -> type[LimitedHttpProtocol]:
    """Return our protocol with other timeouts, in seconds."""
    return type("Protocol", (LimitedHttpProtocol,), timeouts)


@pytest.fixture
def short_timeout_url() -> Iterator[str]:
    """The URL of a server that waits half a second for a request."""
    server = Server(create_app(), protocol=protocol_with(request_timeout=0.5))
    with serve_in_thread(server) as url:
        yield url


@pytest.fixture
def timeout_url() -> Iterator[str]:
    """The URL of a server that waits for a request long enough for one to arrive."""
    server = Server(create_app(), protocol=protocol_with(request_timeout=2.0))
    with serve_in_thread(server) as url:
        yield url


@pytest.mark.parametrize(
    "start",
    [b"", HEAD, b"POST /accounts/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"],
    ids=["nothing", "half_a_head", "half_a_body"],
)
def test_incomplete_request_is_ended_after_the_timeout(
    short_timeout_url: str, start: bytes
) -> None:
    with connect(short_timeout_url) as connection:
        connection.sendall(start)
        assert receive_all(connection) == b""


def test_slowly_sent_request_is_ended_although_bytes_arrive(short_timeout_url: str) -> None:
    with connect(short_timeout_url) as connection:
        connection.sendall(HEAD)
        send_slowly(connection)
        assert receive_all(connection) == b""


def test_timeout_ends_no_response(timeout_url: str) -> None:
    with connect(timeout_url) as held:
        held.sendall(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n")
        receive_until(held, b"held\n\r\n")
        with connect(timeout_url) as later:
            assert receive_all(later) == b""  # so the time of the first one is over, too
        with connect(timeout_url) as releasing:
            releasing.sendall(b"GET /release HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert receive_until(held, b"ok\n\r\n0\r\n\r\n")


def test_empty_line_after_a_request_starts_a_timeout(timeout_url: str) -> None:
    with connect(timeout_url) as connection:
        connection.sendall(HEAD + b"\r\n")
        receive_until(connection, b"ok\n\r\n0\r\n\r\n")
        connection.sendall(b"\r\n")
        assert receive_all(connection) == b""


# --- large requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        (HEAD + b"X: ").ljust(LIMIT + 1, b"x"),
        (HEAD + b"X: 1\r\n" * LIMIT)[: LIMIT + 1],
        b"GET /healthz?".ljust(LIMIT + 1, b"x"),
        (HEAD + b"X: ").ljust(LIMIT + 50, b"x") + b"\r\n\r\n",
    ],
    ids=["header", "headers", "address", "complete_head"],
)
def test_large_head_is_refused(live: Live, head: bytes) -> None:
    # The last bytes arrive together, so that nothing is unread when the connection ends: else the
    # end would be a reset, which may lose the answer.
    with connect(live.base_url) as connection:
        connection.sendall(head[:-100])
        connection.sendall(head[-100:])
        assert receive_all(connection).startswith(b"HTTP/1.1 431 ")


def test_endless_head_ends_the_connection(live: Live) -> None:
    with connect(live.base_url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(HEAD + b"X: " + b"x" * 400_000)
        assert receive_all(connection)[:13] in {b"", b"HTTP/1.1 431 "}


def test_large_body_is_read_whatever_the_limit_of_the_head(live: Live) -> None:
    body = b"x=" + b"y" * 100_000
    with connect(live.base_url) as connection:
        connection.sendall(
            b"POST /hooks/northflank/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        assert not receive_all(connection).startswith(b"HTTP/1.1 431 ")


def test_pages_are_answered_beside_many_half_sent_requests(live: Live) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(live.base_url)).sendall(HEAD)
        with connect(live.base_url) as connection:
            connection.sendall(HEAD + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_request_for_a_websocket_is_answered_as_any_other(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with connect(live.base_url) as connection:
        connection.sendall(HEAD + upgrade + b"Sec-WebSocket-Key: eA==\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_malformed_request_is_refused_and_not_logged(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(live.base_url) as connection:
        connection.sendall(b"\x00\r\n\r\n")
        assert receive_all(connection).startswith(b"HTTP/1.1 400")
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


# --- answers that are not read -----------------------------------------------------------------

ANSWER_BYTES = 32_000_000  # more than the kernel takes for a client that reads nothing


async def send_answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one piece, or in many where the address says so."""
    count = 1000 if scope["path"] == "/in-parts" else 1
    length = (b"content-length", b"%d" % ANSWER_BYTES)
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    for number in range(count):
        body = b"x" * (ANSWER_BYTES // count)
        more = number < count - 1
        await send({"type": "http.response.body", "body": body, "more_body": more})


@contextlib.asynccontextmanager
async def serving(*, reading_timeout: float) -> AsyncIterator[tuple[Server, int]]:
    """Yield a server with our limits, but this `reading_timeout` in seconds, and its port."""
    server = Server(send_answer, protocol=protocol_with(reading_timeout=reading_timeout))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve_on(listener))
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.stop()
            await task


async def request_answer(client: socket.socket, port: int, path: str, connection: str) -> None:
    loop = asyncio.get_running_loop()
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", port))
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
    await loop.sock_sendall(client, head.encode())


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/in-parts"])
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_answer_that_nobody_reads_is_ended(path: str, connection: str) -> None:
    async with serving(reading_timeout=0.2) as (server, port):
        with socket.socket() as client:
            await request_answer(client, port, path, connection)
            await asyncio.get_running_loop().sock_recv(client, 15)  # it has begun
            async with asyncio.timeout(30):
                while server.server_state.connections:
                    await asyncio.sleep(0.05)


@pytest.mark.anyio
async def test_answer_in_parts_that_is_read_slowly_arrives_completely() -> None:
    received = 0
    async with serving(reading_timeout=2.0) as (_, port):
        with socket.socket() as client:
            await request_answer(client, port, "/in-parts", "close")
            while chunk := await asyncio.get_running_loop().sock_recv(client, 1_000_000):
                received += len(chunk)
                await asyncio.sleep(0.08)  # so that all of it takes longer than the timeout
    assert received > ANSWER_BYTES
