"""Missing, broken and wrong responses, over real sockets."""

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import httpx
import pytest

from dashboard.northflank import (
    AccessDenied,
    Call,
    NorthflankClient,
    NorthflankError,
    NotFound,
    RateLimit,
    RateLimited,
    RequestRejected,
    ServerError,
    UnexpectedResponse,
    Unreachable,
)
from dashboard.northflank.http import MAX_RESPONSE_BYTES
from tests.support import payloads
from tests.support.scripted_server import (
    SELF_SIGNED,
    Responder,
    ScriptedServer,
    drip_bytes,
    never_respond,
    reset_connection,
    respond_with,
    send_bytes,
)

pytestmark = pytest.mark.anyio


HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
LIMITS = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "7", "x-ratelimit-reset": "61"}


async def abort(client: NorthflankClient) -> Any:
    return await client.abort_run("shop", "main", "staging", payloads.RUN_ID)


async def read(client: NorthflankClient) -> Any:
    return await client.get_run("shop", "main", "staging", payloads.RUN_ID)


async def failure_of(call: Any) -> NorthflankError:
    with pytest.raises(NorthflankError) as failure:
        await call
    return failure.value


@pytest.fixture
def calls() -> list[Call]:
    return []


@pytest.fixture
async def unreachable_client(calls: list[Call]) -> AsyncIterator[NorthflankClient]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with NorthflankClient("TKN", base_url=url, on_call=calls.append) as client:
            yield client


async def test_refused_connection_raises_unreachable_not_sent(
    unreachable_client: NorthflankClient,
) -> None:
    failure = await failure_of(abort(unreachable_client))
    assert isinstance(failure, Unreachable)
    assert (failure.cause, failure.may_have_arrived) == ("unreachable", False)


async def test_unsent_request_is_not_observed(
    unreachable_client: NorthflankClient, calls: list[Call]
) -> None:
    await failure_of(abort(unreachable_client))
    assert calls == []


@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_abort_with_failed_connect_is_retried(
    failure: type[httpx.TransportError],
) -> None:
    attempts: list[httpx.Request] = []

    def fail_first_attempt(request: httpx.Request) -> httpx.Response:
        attempts.append(request)
        if len(attempts) == 1:
            raise failure("no")
        return httpx.Response(200, json=payloads.data(payloads.detail(status="aborting")))

    transport = httpx.MockTransport(fail_first_attempt)
    async with NorthflankClient("TKN", transport=transport) as client:
        assert (await abort(client)).run.status == "aborting"
    assert len(attempts) == 2


@pytest.mark.parametrize(
    "failure",
    [httpx.ReadError, httpx.WriteError, httpx.ReadTimeout, httpx.WriteTimeout,
     httpx.RemoteProtocolError, httpx.LocalProtocolError],
)  # fmt: skip
async def test_abort_with_broken_transfer_is_not_retried(
    failure: type[httpx.TransportError],
) -> None:
    attempts: list[httpx.Request] = []

    def fail(request: httpx.Request) -> httpx.Response:
        attempts.append(request)
        raise failure("no")

    async with NorthflankClient("TKN", transport=httpx.MockTransport(fail)) as client:
        error = await failure_of(abort(client))
    assert isinstance(error, Unreachable)
    assert error.may_have_arrived
    assert len(attempts) == 1


async def test_abort_with_reset_connection_is_sent_once_and_unknown(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(reset_connection)
    failure = await failure_of(abort(client))
    assert isinstance(failure, Unreachable)
    assert (failure.cause, failure.may_have_arrived) == ("unreachable", True)
    await client.list_projects()
    assert [request.method for request in server.requests] == ["POST", "GET"]


async def test_abort_on_reused_connection_that_resets_is_sent_once(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(payloads.data(payloads.detail())), reset_connection)
    await read(client)
    assert isinstance(await failure_of(abort(client)), Unreachable)
    await client.list_projects()
    assert [request.method for request in server.requests] == ["GET", "POST", "GET"]


async def test_idle_connection_closed_by_server_is_replaced(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    body = json.dumps(payloads.data(payloads.detail())).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    server.enqueue(
        send_bytes(head + body, close=True), respond_with(payloads.data(payloads.detail()))
    )
    await read(client)
    await server.wait_until_closed()
    assert await abort(client) is not None
    assert server.connections == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_abort_with_server_error_is_not_retried(
    client: NorthflankClient, server: ScriptedServer, status: int
) -> None:
    server.enqueue(respond_with(HTML, status=status))
    failure = await failure_of(abort(client))
    assert isinstance(failure, ServerError)
    assert (failure.cause, failure.http_status) == ("server_error", status)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [reset_connection, respond_with(HTML, status=502)])
async def test_read_with_fault_is_retried_once(
    client: NorthflankClient, server: ScriptedServer, fault: Responder
) -> None:
    server.enqueue(fault, respond_with(payloads.data(payloads.detail())))
    assert (await read(client)).run.id == payloads.RUN_ID
    assert len(server.requests) == 2


async def test_read_is_not_retried_twice(client: NorthflankClient, server: ScriptedServer) -> None:
    server.enqueue(reset_connection, reset_connection, reset_connection)
    assert (await failure_of(read(client))).cause == "unreachable"
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", [never_respond, drip_bytes])
@pytest.mark.parametrize("send", [read, abort])
async def test_silent_or_slow_response_times_out_without_retry(
    short_timeout_client: NorthflankClient, server: ScriptedServer, fault: Responder, send: Any
) -> None:
    server.enqueue(fault)
    start_time = monotonic()
    async with asyncio.timeout(10):  # the default client would wait longer
        failure = await failure_of(send(short_timeout_client))
    assert monotonic() - start_time >= 0.4
    assert isinstance(failure, Unreachable)
    assert (failure.cause, failure.may_have_arrived) == ("timeout", True)
    assert len(server.requests) == 1


async def test_abort_with_truncated_response_raises_unreachable_sent(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(send_bytes(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"data":', close=True))
    failure = await failure_of(abort(client))
    assert isinstance(failure, Unreachable)
    assert failure.may_have_arrived


async def test_server_with_self_signed_certificate_receives_no_request() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(SELF_SIGNED)
    async with ScriptedServer(tls) as server:
        async with NorthflankClient("TKN", base_url=server.url) as client:
            failure = await failure_of(abort(client))
        assert isinstance(failure, Unreachable)
        assert not failure.may_have_arrived
        assert "CERTIFICATE_VERIFY_FAILED" in str(failure.__cause__)
        assert server.requests == []


async def test_response_that_is_not_http_raises_unreachable(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(send_bytes(b"SSH-2.0-OpenSSH_9.9\r\n", close=True))
    assert (await failure_of(abort(client))).cause == "unreachable"


@pytest.mark.parametrize(
    ("status", "message", "kind", "cause"),
    [
        (400, "Bad name", RequestRejected, "rejected"),
        (401, "Unauthorized", AccessDenied, "unauthorised"),
        (401, "This feature flag is off", AccessDenied, "feature_off"),
        (403, "Missing permission: Update", AccessDenied, "forbidden"),
        (404, "Run not found", NotFound, "not_found"),
        (409, "Already concluded", RequestRejected, "rejected"),
        (418, "Teapot", RequestRejected, "rejected"),
        (422, "Invalid", RequestRejected, "rejected"),
        (429, "Slow down", RateLimited, "rate_limited"),
        (500, "Oops", ServerError, "server_error"),
    ],
)
async def test_error_status_raises_its_exception_with_message(
    client: NorthflankClient,
    server: ScriptedServer,
    status: int,
    message: str,
    kind: type[NorthflankError],
    cause: str,
) -> None:
    server.enqueue(respond_with(payloads.error(message, id="nf-1"), status=status))
    failure = await failure_of(abort(client))
    assert type(failure) is kind
    assert (failure.cause, failure.http_status, failure.error_id) == (cause, status, "nf-1")
    assert message in str(failure)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Run not found"}},
        {"error": {"status": 404, "message": "Run not found", "id": "nf-1"}},
        {"code": "not_found", "message": "Run not found", "status": 404},
    ],
)
async def test_northflanks_own_404_raises_not_found(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(respond_with(body, status=404))
    assert type(await failure_of(read(client))) is NotFound


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        b"",
        b"404 page not found",
        {"message": "no Route matched with those values", "request_id": "x"},
        {"timestamp": "2026-03-02", "status": 404, "error": "Not Found", "path": "/v1"},
        {"error": {}},
        [],
    ],
)
async def test_other_404_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(respond_with(body, status=404))
    failure = await failure_of(read(client))
    assert (type(failure), failure.http_status) == (UnexpectedResponse, 404)
    assert "probably from a proxy" in str(failure)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        (LIMITS, None),  # requests remain, so the hour is not spent
        (LIMITS | {"x-ratelimit-remaining": "0"}, 61),
        (LIMITS | {"Retry-After": "5"}, 5),
        ({"Retry-After": "soon", "x-ratelimit-reset": "never"}, None),
        ({"Retry-After": "999999999999"}, 3600),
    ],
)
async def test_rate_limited_error_has_reset_seconds_of_headers(
    client: NorthflankClient,
    server: ScriptedServer,
    headers: dict[str, str],
    seconds: float | None,
) -> None:
    server.enqueue(respond_with(b"", status=429, headers=headers))
    assert (await failure_of(read(client))).retry_after_seconds == seconds
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("send", "expected"), [(read, UnexpectedResponse), (abort, UnexpectedResponse)]
)
async def test_redirect_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, send: Any, expected: type[NorthflankError]
) -> None:
    server.enqueue(respond_with(b"", status=302, headers={"Location": f"{server.url}/elsewhere"}))
    assert type(await failure_of(send(client))) is expected
    assert len(server.requests) == 1


UNREADABLE = [
    respond_with(status=204),
    respond_with(b""),
    respond_with({}),
    respond_with([]),
    respond_with(payloads.data({})),
    respond_with(payloads.data(None)),
    respond_with(payloads.data("accepted")),
    respond_with(HTML),
    respond_with(b'{"data":'),
    respond_with(b"[" * 90_000),
    respond_with(b" " * (MAX_RESPONSE_BYTES + 1)),
    respond_with(gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
    respond_with(b"", status=202),
]


@pytest.mark.parametrize(
    "respond",
    [
        *UNREADABLE,
        respond_with(payloads.data([])),
        respond_with(payloads.data({"id": payloads.RUN_ID})),
        respond_with(payloads.data(payloads.detail(id="another"))),
        respond_with(payloads.error("It broke")),
    ],
)
async def test_abort_with_2xx_without_run_state_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, respond: Responder
) -> None:
    server.enqueue(respond)
    assert type(await failure_of(abort(client))) is UnexpectedResponse
    assert len(server.requests) == 1


async def test_abort_past_deadline_is_not_sent(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    ids = "shop", "main", "staging", payloads.RUN_ID
    failure = await failure_of(client.abort_run(*ids, deadline=monotonic()))
    assert isinstance(failure, Unreachable)
    assert (failure.may_have_arrived, failure.cause) == (False, "timeout")
    assert server.requests == []


async def test_abort_without_response_times_out_at_deadline(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(never_respond)
    ids = "shop", "main", "staging", payloads.RUN_ID
    failure = await failure_of(client.abort_run(*ids, deadline=monotonic() + 0.2))
    assert isinstance(failure, Unreachable)
    assert (failure.may_have_arrived, failure.cause) == (True, "timeout")
    assert str(failure).startswith("Northflank did not respond within 0.")


@pytest.mark.parametrize("respond", UNREADABLE)
async def test_read_with_unreadable_2xx_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, respond: Responder
) -> None:
    server.enqueue(respond)
    assert type(await failure_of(read(client))) is UnexpectedResponse


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_abort_with_any_2xx_status_succeeds(
    client: NorthflankClient, server: ScriptedServer, status: int
) -> None:
    server.enqueue(respond_with(payloads.data(payloads.detail(status="aborting")), status=status))
    detail = await abort(client)
    assert (detail.run.status, detail.run.concluded) == ("aborting", False)


async def test_gzip_response_is_decompressed(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    compressed = gzip.compress(json.dumps(payloads.data(payloads.detail())).encode())
    server.enqueue(respond_with(compressed, headers={"Content-Encoding": "gzip"}))
    assert (await read(client)).run.id == payloads.RUN_ID


def detail_body_of_size(size: int) -> bytes:
    """A run's detail of `size` bytes."""
    body = json.dumps(payloads.data(payloads.detail(description=""))).encode()
    body_of_size = body.replace(
        b'"description": ""', b'"description": "%s"' % (b"x" * (size - len(body)))
    )
    assert len(body_of_size) == size
    return body_of_size


@pytest.mark.parametrize("encode", [lambda body: (body, {}), lambda body: (
    gzip.compress(body), {"Content-Encoding": "gzip"}
)])  # fmt: skip
async def test_response_size_limit_applies_to_decompressed_body(
    client: NorthflankClient, server: ScriptedServer, encode: Any
) -> None:
    for size in (MAX_RESPONSE_BYTES, MAX_RESPONSE_BYTES + 1):
        body, headers = encode(detail_body_of_size(size))
        server.enqueue(respond_with(body, headers=headers))
    assert (await read(client)).run.id == payloads.RUN_ID
    failure = await failure_of(read(client))
    assert str(failure) == "Unexpected response from Northflank: larger than 5,242,880 bytes."


async def test_error_with_damaged_body_raises_by_status(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(b"\x00\x01", status=403, headers={"Content-Encoding": "gzip"}))
    assert (await failure_of(read(client))).cause == "forbidden"


async def test_observer_is_called_for_each_sent_request(server: ScriptedServer) -> None:
    calls: list[Call] = []
    server.enqueue(
        reset_connection,
        respond_with(payloads.error("no"), status=404, headers=LIMITS),
        never_respond,
    )
    async with NorthflankClient(
        "TKN", base_url=server.url, on_call=calls.append, timeout_seconds=0.5
    ) as client:
        client._spell = str.lower
        await failure_of(read(client))
        await failure_of(abort(client))
    assert [(call.method, call.route, call.status, call.rate_limit) for call in calls] == [
        ("GET", "GET run", None, None),
        ("GET", "GET run", 404, RateLimit(1000, 7, 61)),
        ("POST", "POST abort", None, None),
    ]
    assert calls[2].seconds >= 0.4


async def test_cancelled_request_is_observed_and_client_stays_usable(
    server: ScriptedServer,
) -> None:
    calls: list[Call] = []
    server.enqueue(never_respond)
    async with NorthflankClient("TKN", base_url=server.url, on_call=calls.append) as client:
        task = asyncio.ensure_future(abort(client))
        await server.wait_for_requests(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.list_projects()
    assert [call.route for call in calls] == ["POST abort", "GET projects"]
