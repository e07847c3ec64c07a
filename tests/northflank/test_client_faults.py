"""Every way in which an answer can fail to come, or to be what was asked for, over real sockets."""

import asyncio
import gzip
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import httpx
import pytest

from dashboard.northflank import (
    Call,
    NorthflankClient,
    NorthflankError,
    NotFound,
    RateLimit,
    RateLimited,
    Refused,
    Rejected,
    ServerError,
    UnexpectedAnswer,
    Unreachable,
)
from tests.support import payloads
from tests.support.scripted_server import (
    Play,
    ScriptedServer,
    answers,
    drips,
    resets,
    says_nothing,
    sends,
)

pytestmark = pytest.mark.anyio

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
LIMITS = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "7", "x-ratelimit-reset": "61"}


async def abort(client: NorthflankClient) -> Any:
    return await client.abort_run("shop", "main", "staging", payloads.RUN_ID)


async def read(client: NorthflankClient) -> Any:
    return await client.run("shop", "main", "staging", payloads.RUN_ID)


async def failure_of(asked: Any) -> NorthflankError:
    with pytest.raises(NorthflankError) as failure:
        await asked
    return failure.value


@pytest.fixture
def calls() -> list[Call]:
    return []


@pytest.fixture
async def nowhere(calls: list[Call]) -> AsyncIterator[NorthflankClient]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with NorthflankClient("TKN", base_url=url, observe=calls.append) as client:
            yield client


async def test_a_refused_connection_means_nothing_was_sent(nowhere: NorthflankClient) -> None:
    failure = await failure_of(abort(nowhere))
    assert isinstance(failure, Unreachable)
    assert (failure.cause, failure.sent) == ("unreachable", False)


async def test_what_was_never_sent_is_not_counted(
    nowhere: NorthflankClient, calls: list[Call]
) -> None:
    await failure_of(abort(nowhere))
    assert calls == []


@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_an_abort_whose_connection_never_opened_is_tried_again(
    failure: type[httpx.TransportError],
) -> None:
    attempts: list[httpx.Request] = []

    def opens_at_the_second_try(request: httpx.Request) -> httpx.Response:
        attempts.append(request)
        if len(attempts) == 1:
            raise failure("no")
        return httpx.Response(200, json=payloads.data(payloads.detail(status="aborting")))

    transport = httpx.MockTransport(opens_at_the_second_try)
    async with NorthflankClient("TKN", transport=transport) as client:
        assert (await abort(client)).run.status == "aborting"
    assert len(attempts) == 2


@pytest.mark.parametrize(
    "failure",
    [httpx.ReadError, httpx.WriteError, httpx.ReadTimeout, httpx.WriteTimeout,
     httpx.RemoteProtocolError, httpx.LocalProtocolError],
)  # fmt: skip
async def test_an_abort_that_may_have_arrived_is_never_tried_again(
    failure: type[httpx.TransportError],
) -> None:
    attempts: list[httpx.Request] = []

    def breaks(request: httpx.Request) -> httpx.Response:
        attempts.append(request)
        raise failure("no")

    async with NorthflankClient("TKN", transport=httpx.MockTransport(breaks)) as client:
        unknown = await failure_of(abort(client))
    assert isinstance(unknown, Unreachable)
    assert unknown.sent
    assert len(attempts) == 1


async def test_an_abort_whose_connection_breaks_is_sent_once_and_its_outcome_unknown(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(resets)
    failure = await failure_of(abort(client))
    assert isinstance(failure, Unreachable)
    assert (failure.cause, failure.sent) == ("unreachable", True)
    await client.projects()
    assert [request.method for request in server.requests] == ["POST", "GET"]


async def test_an_abort_on_a_reused_connection_that_breaks_is_sent_once(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(answers(payloads.data(payloads.detail())), resets)
    await read(client)
    assert isinstance(await failure_of(abort(client)), Unreachable)
    await client.projects()
    assert [request.method for request in server.requests] == ["GET", "POST", "GET"]


async def test_an_idle_connection_that_the_server_closed_is_replaced(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    body = json.dumps(payloads.data(payloads.detail())).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    server.plays(sends(head + body, then_closes=True), answers(payloads.data(payloads.detail())))
    await read(client)
    await server.closed()
    assert await abort(client) is not None
    assert server.connections == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_abort_is_not_repeated_after_a_server_error(
    client: NorthflankClient, server: ScriptedServer, status: int
) -> None:
    server.plays(answers(HTML, status=status))
    failure = await failure_of(abort(client))
    assert isinstance(failure, ServerError)
    assert (failure.cause, failure.http_status) == ("server_error", status)
    assert len(server.requests) == 1


async def test_a_start_is_not_repeated_either(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(resets)
    await failure_of(client.start_run("shop", "main", "staging"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [resets, answers(HTML, status=502)])
async def test_a_read_is_repeated_once(
    client: NorthflankClient, server: ScriptedServer, fault: Play
) -> None:
    server.plays(fault, answers(payloads.data(payloads.detail())))
    assert (await read(client)).run.id == payloads.RUN_ID
    assert len(server.requests) == 2


async def test_a_read_is_not_repeated_twice(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(resets, resets, resets)
    assert (await failure_of(read(client))).cause == "unreachable"
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", [says_nothing, drips])
@pytest.mark.parametrize("ask", [read, abort])
async def test_silence_and_dripping_end_at_the_deadline_and_are_not_repeated(
    impatient: NorthflankClient, server: ScriptedServer, fault: Play, ask: Any
) -> None:
    server.plays(fault)
    started = monotonic()
    async with asyncio.timeout(10):  # another client would wait for longer
        failure = await failure_of(ask(impatient))
    assert monotonic() - started >= 0.4
    assert isinstance(failure, Unreachable)
    assert (failure.cause, failure.sent) == ("timeout", True)
    assert len(server.requests) == 1


async def test_a_truncated_answer_leaves_an_abort_unknown(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(sends(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"data":', then_closes=True))
    failure = await failure_of(abort(client))
    assert isinstance(failure, Unreachable)
    assert failure.sent


async def test_what_is_not_http_is_no_answer(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(sends(b"SSH-2.0-OpenSSH_9.9\r\n", then_closes=True))
    assert (await failure_of(abort(client))).cause == "unreachable"


@pytest.mark.parametrize(
    ("status", "message", "kind", "cause"),
    [
        (400, "Bad name", Rejected, "refused"),
        (401, "Unauthorized", Refused, "unauthorised"),
        (401, "This feature flag is off", Refused, "feature_off"),
        (403, "Missing permission: Update", Refused, "forbidden"),
        (404, "Run not found", NotFound, "not_found"),
        (409, "Already concluded", Rejected, "refused"),
        (418, "Teapot", Rejected, "refused"),
        (422, "Invalid", Rejected, "refused"),
        (429, "Slow down", RateLimited, "rate_limited"),
        (500, "Oops", ServerError, "server_error"),
    ],
)
async def test_each_status_has_its_exception_with_northflanks_own_words(
    client: NorthflankClient,
    server: ScriptedServer,
    status: int,
    message: str,
    kind: type[NorthflankError],
    cause: str,
) -> None:
    server.plays(answers(payloads.error(message, id="nf-1"), status=status))
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
async def test_a_404_in_northflanks_form_says_that_there_is_no_such_thing(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.plays(answers(body, status=404))
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
async def test_any_other_404_is_a_proxys_and_says_nothing(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.plays(answers(body, status=404))
    failure = await failure_of(read(client))
    assert (type(failure), failure.http_status) == (UnexpectedAnswer, 404)
    assert "not Northflank's own" in str(failure)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        (LIMITS, None),  # with some left it is not the hour that is spent
        (LIMITS | {"x-ratelimit-remaining": "0"}, 61),
        (LIMITS | {"Retry-After": "5"}, 5),
        ({"x-ratelimit-reset": "9"}, 9),
        ({"Retry-After": "soon", "x-ratelimit-reset": "never"}, None),
        (
            {
                "Date": "Mon, 02 Mar 2026 08:00:00 GMT",
                "Retry-After": "Mon, 02 Mar 2026 08:01:40 GMT",
            },
            100,
        ),
        ({"Date": "nonsense", "Retry-After": "Mon, 02 Mar 2026 08:01:40 GMT"}, None),
        ({"Retry-After": "999999999999"}, 3600),
        (
            {
                "Date": "Mon, 02 Mar 2026 08:00:00 GMT",
                "Retry-After": "Mon, 02 Mar 9999 08:01:40 GMT",
            },
            3600,
        ),
    ],
)
async def test_a_429_says_when_there_are_requests_again_if_it_was_told(
    client: NorthflankClient,
    server: ScriptedServer,
    headers: dict[str, str],
    seconds: float | None,
) -> None:
    server.plays(answers(b"", status=429, headers=headers))
    assert (await failure_of(read(client))).reset_seconds == seconds
    assert len(server.requests) == 1


@pytest.mark.parametrize(("ask", "expected"), [(read, UnexpectedAnswer), (abort, UnexpectedAnswer)])
async def test_a_redirect_is_not_followed(
    client: NorthflankClient, server: ScriptedServer, ask: Any, expected: type[NorthflankError]
) -> None:
    server.plays(answers(b"", status=302, headers={"Location": f"{server.url}/elsewhere"}))
    assert type(await failure_of(ask(client))) is expected
    assert len(server.requests) == 1


UNREADABLE = [
    answers(status=204),
    answers(b""),
    answers({}),
    answers([]),
    answers(payloads.data({})),
    answers(payloads.data(None)),
    answers(payloads.data("accepted")),
    answers(HTML),
    answers(b'{"data":'),
    answers(b"[" * 90_000),
    answers(b" " * 100_001),
    answers(b"\x00\x01", headers={"Content-Encoding": "gzip"}),
    answers(gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
    answers(b"", status=202),
]


@pytest.mark.parametrize(
    "play",
    [
        *UNREADABLE,
        answers(payloads.data([])),
        answers(payloads.data({"id": payloads.RUN_ID})),
        answers(payloads.data(payloads.detail(id="another"))),
        answers(payloads.error("It broke")),
    ],
)
async def test_a_2xx_that_does_not_tell_how_the_run_stands_is_no_accepted_abort(
    client: NorthflankClient, server: ScriptedServer, play: Play
) -> None:
    server.plays(play)
    assert type(await failure_of(abort(client))) is UnexpectedAnswer
    assert len(server.requests) == 1


async def test_an_abort_whose_time_is_up_is_not_sent(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    place = "shop", "main", "staging", payloads.RUN_ID
    failure = await failure_of(client.abort_run(*place, until=monotonic()))
    assert isinstance(failure, Unreachable)
    assert (failure.sent, failure.cause) == (False, "timeout")
    assert server.requests == []


async def test_an_abort_is_waited_for_until_its_time_is_up(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(says_nothing)
    place = "shop", "main", "staging", payloads.RUN_ID
    failure = await failure_of(client.abort_run(*place, until=monotonic() + 0.2))
    assert isinstance(failure, Unreachable)
    assert (failure.sent, failure.cause) == (True, "timeout")
    assert str(failure).startswith("Northflank did not answer within 0.")


@pytest.mark.parametrize("play", UNREADABLE)
async def test_a_2xx_that_cannot_be_read_is_no_run(
    client: NorthflankClient, server: ScriptedServer, play: Play
) -> None:
    server.plays(play)
    assert type(await failure_of(read(client))) is UnexpectedAnswer


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_any_2xx_is_success(
    client: NorthflankClient, server: ScriptedServer, status: int
) -> None:
    server.plays(answers(payloads.data(payloads.detail(status="aborting")), status=status))
    said = await abort(client)
    assert (said.run.status, said.run.concluded) == ("aborting", False)


async def test_a_packed_answer_is_unpacked(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    packed = gzip.compress(json.dumps(payloads.data(payloads.detail())).encode())
    server.plays(answers(packed, headers={"Content-Encoding": "gzip"}))
    assert (await read(client)).run.id == payloads.RUN_ID


@pytest.mark.parametrize("packed", ["br", "gzip, gzip", "x"])
async def test_what_is_packed_in_another_way_than_asked_for_is_not_read(
    client: NorthflankClient, server: ScriptedServer, packed: str
) -> None:
    server.plays(answers(payloads.data(payloads.detail()), headers={"Content-Encoding": packed}))
    assert "packed" in str(await failure_of(read(client)))


def unpacked(size: int) -> bytes:
    """A run of so many bytes."""
    body = json.dumps(payloads.data(payloads.detail(description=""))).encode()
    filled = body.replace(
        b'"description": ""', b'"description": "%s"' % (b"x" * (size - len(body)))
    )
    assert len(filled) == size
    return filled


@pytest.mark.parametrize("pack", [lambda body: (body, {}), lambda body: (
    gzip.compress(body), {"Content-Encoding": "gzip"}
)])  # fmt: skip
async def test_an_answer_is_bounded_by_its_size_unpacked(
    client: NorthflankClient, server: ScriptedServer, pack: Any
) -> None:
    for size in (100_000, 100_001):
        body, headers = pack(unpacked(size))
        server.plays(answers(body, headers=headers))
    assert (await read(client)).run.id == payloads.RUN_ID
    failure = await failure_of(read(client))
    assert str(failure) == "Northflank's answer is larger than 100,000 bytes."


async def test_an_answer_that_unpacks_to_more_than_memory_holds_costs_no_more_than_the_limit(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    bomb = gzip.compress(b" " * 60_000_000)  # one chunk as it comes: 58 KB
    server.plays(answers(bomb, headers={"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        await failure_of(read(client))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


async def test_an_error_is_known_by_its_status_though_its_body_is_damaged(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(answers(b"\x00\x01", status=403, headers={"Content-Encoding": "gzip"}))
    assert (await failure_of(read(client))).cause == "forbidden"


async def test_a_start_that_names_no_run_returns_none(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(answers(payloads.data({"message": "ok"})), answers(payloads.data({"id": "r9"})))
    assert await client.start_run("p", "l", "s") is None
    started = await client.start_run("p", "l", "s")
    assert started is not None
    assert started.run.id == "r9"


async def test_the_observer_is_told_of_each_request_that_was_sent(server: ScriptedServer) -> None:
    calls: list[Call] = []
    server.plays(resets, answers(payloads.error("no"), status=404, headers=LIMITS), says_nothing)
    async with NorthflankClient(
        "TKN", base_url=server.url, observe=calls.append, timeout_seconds=0.5
    ) as client:
        await failure_of(read(client))
        await failure_of(abort(client))
    assert [(call.method, call.route, call.status, call.ratelimit) for call in calls] == [
        ("GET", "GET run", None, None),
        ("GET", "GET run", 404, RateLimit(1000, 7, 61)),
        ("POST", "POST abort", None, None),
    ]
    assert calls[2].seconds >= 0.4


async def test_an_observer_that_fails_does_not_fail_the_abort(server: ScriptedServer) -> None:
    def fails(call: Call) -> None:
        raise RuntimeError

    server.plays(answers(payloads.data(payloads.detail())))
    async with NorthflankClient("TKN", base_url=server.url, observe=fails) as client:
        assert await abort(client) is not None


async def test_a_cancelled_call_is_counted_and_leaves_the_client_usable(
    server: ScriptedServer,
) -> None:
    calls: list[Call] = []
    server.plays(says_nothing)
    async with NorthflankClient("TKN", base_url=server.url, observe=calls.append) as client:
        task = asyncio.ensure_future(abort(client))
        await server.received(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.projects()
    assert [call.route for call in calls] == ["POST abort", "GET projects"]
