"""Limits of the web server, over real sockets."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from dashboard.asgi import MAX_BODY_BYTES
from dashboard.server.http_protocol import MAX_HEAD_BYTES, REQUEST_SECONDS
from tests.support.live import Live
from tests.support.sessions import session_key

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@contextlib.contextmanager
def connect(url: str) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        yield connection


def receive_all(connection: socket.socket) -> bytes:
    """Return everything received until the server ends the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


# --- large requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        (HEAD + b"X: ").ljust(MAX_HEAD_BYTES + 1, b"x"),
        (HEAD + b"X: 1\r\n" * MAX_HEAD_BYTES)[: MAX_HEAD_BYTES + 1],
        b"GET /healthz?".ljust(MAX_HEAD_BYTES + 1, b"x"),
        (HEAD + b"X: ").ljust(MAX_HEAD_BYTES + 50, b"x") + b"\r\n\r\n",
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


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("body", [b"", b"1\r\nx\r\n"], ids=["empty", "body"])
@pytest.mark.parametrize("trailers", [b"a:b\r\n", b"a" * 6], ids=["many", "one"])
def test_large_trailers_are_refused(live: Live, body: bytes, trailers: bytes) -> None:
    with connect(live.base_url) as connection:
        connection.sendall(HEAD + CHUNKED + body)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"0\r\n" + trailers * MAX_HEAD_BYTES)
        assert receive_all(connection)[:13] in {b"", b"HTTP/1.1 431 "}


def test_trailer_is_no_header_of_its_request(live: Live, viewer: User) -> None:
    trailer = b"0\r\nCookie: sessionid=%s\r\n\r\n" % session_key("viewer").encode()
    with connect(live.base_url) as connection:
        connection.sendall(b"GET /board/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CHUNKED + trailer)
        assert connection.recv(65536).startswith(b"HTTP/1.1 302 ")


def test_large_body_is_read_whatever_the_limit_of_the_head(live: Live) -> None:
    body = b"x=" + b"y" * 60_000
    with connect(live.base_url) as connection:
        connection.sendall(
            b"POST /hooks/northflank/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        assert not receive_all(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "size",
    [
        b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BODY_BYTES + 1)
        + b"x" * (MAX_BODY_BYTES + 1),
    ],
    ids=["length", "chunks"],
)
def test_large_body_is_refused_before_it_has_arrived(live: Live, size: bytes) -> None:
    with connect(live.base_url) as connection:
        connection.sendall(b"POST /accounts/login/ HTTP/1.1\r\nHost: localhost\r\n" + size)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


# --- slow requests -----------------------------------------------------------------------------


@pytest.mark.slow
def test_incomplete_request_ends_after_its_time_even_if_it_continues(live: Live) -> None:
    post = b"POST /accounts/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    answered = HEAD + b"\r\n" + post + b"1000\r\n\r\nx"
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        late = stack.enter_context(connect(live.base_url))
        lines = [stack.enter_context(connect(live.base_url)) for _ in range(5)]
        head, body, after_answer, refused = lines[1:]  # nothing is sent by the first
        head.sendall(HEAD)
        body.sendall(post + b"1000\r\n\r\nx")
        after_answer.sendall(answered)
        refused.sendall(post + b"99999999\r\n\r\nx")
        while time.monotonic() < started + REQUEST_SECONDS - 2:
            for line in (head, body, after_answer, refused):
                line.sendall(b"x")
            time.sleep(1)
        late.sendall(HEAD)  # its own time begins now
        answers = [receive_all(line) for line in lines]
        seconds = time.monotonic() - started
        time.sleep(1)
        late.sendall(b"\r\n")
        assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert [b" 408 " in answer for answer in answers] == [False, True, True, True, False]
    assert answers[0] == b""
    assert answers[4].startswith(b"HTTP/1.1 413 ")
    assert REQUEST_SECONDS - 1 < seconds < REQUEST_SECONDS + 10


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
