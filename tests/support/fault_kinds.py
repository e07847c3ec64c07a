"""What can go wrong between the dashboard and Northflank: the faults of the matrix in tests/faults.

A fault answers in place of Northflank, which then has not acted, or spoils the answer, once
Northflank has.
"""

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from tests.support.fault_proxy import Answer, Exchange, Fault
from tests.support.scripted_server import (
    Responder,
    drip_bytes,
    never_respond,
    reset_connection,
    respond_with,
    send_bytes,
)

HTML = b"<!doctype html><title>Bad Gateway</title><h1>Bad Gateway</h1><hr>proxy"
ERROR = {"error": {"message": "It broke", "id": "nf-1"}}
SPENT = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "120"}
BIG = 10 * 1024 * 1024
CHUNK = b"x" * 64 * 1024
BROKEN_OFF = "unreachable", "unexpected_response"  # where it breaks off, and how large it is


@dataclass(frozen=True)
class FaultKind:
    """One fault, and what the dashboard may call it."""

    answer: Fault
    causes: frozenset[str]  # of a NorthflankError
    acts: bool = False  # Northflank has received the request
    hangs: bool = False  # the client has to give up
    is_heavy: bool = False  # costs memory unless it is bounded
    # How the connection itself fails; then no request arrives, whichever it is.
    connection: str = ""  # untrusted, plain, refused


# --- in place of the answer ----------------------------------------------------------------------


def instead(
    responder: Responder, *causes: str, hangs: bool = False, is_heavy: bool = False
) -> FaultKind:
    async def answer(exchange: Exchange) -> None:
        await responder(exchange.writer)

    return FaultKind(answer, frozenset(causes), hangs=hangs, is_heavy=is_heavy)


def after_acting(kind: FaultKind) -> FaultKind:
    """Return the fault, after Northflank has acted."""

    async def answer(exchange: Exchange) -> None:
        await exchange.forward()
        await kind.answer(exchange)

    return replace(kind, answer=answer, acts=True)


def redirect(status: int, target: str) -> FaultKind:
    """Redirect to a path of the proxy, which records what arrives there."""

    async def answer(exchange: Exchange) -> None:
        location = f"http://{exchange.request.headers['host']}{target or exchange.request.path}"
        await respond_with(b"", status=status, headers={"Location": location})(exchange.writer)

    return FaultKind(answer, frozenset({"unexpected_response"}))


async def close_connection(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def send_endless_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Filler: " + CHUNK + b"\r\n")
        await writer.drain()


async def send_endless_body(writer: asyncio.StreamWriter) -> None:
    """Send JSON that never ends, in chunks, without its length."""
    writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"filler":"\r\n')
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
        await writer.drain()


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * 60_000_000, 1)


def send_bomb(status: int) -> Responder:
    async def respond(writer: asyncio.StreamWriter) -> None:
        encoding = {"Content-Encoding": "gzip"}
        await respond_with(_bomb(), status=status, headers=encoding)(writer)

    return respond


async def send_big_error(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 502 X\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % BIG)
    await _send_filler(writer, BIG)


async def send_many_values(writer: asyncio.StreamWriter) -> None:
    """Send what takes forty times its size as Python objects, just below the limit of a body."""
    entry = b"[[[[[[[[]]]]]]]],"
    body = b'{"data":{"runs":[' + entry * (5_000_000 // len(entry)) + b"0]}}"
    await respond_with(body)(writer)


async def _send_filler(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()


# --- the answer, spoilt --------------------------------------------------------------------------


def spoil(edit: Callable[[Answer], Responder], *causes: str, is_heavy: bool = False) -> FaultKind:
    async def answer(exchange: Exchange) -> None:
        await edit(await exchange.forward())(exchange.writer)

    return FaultKind(answer, frozenset(causes), acts=True, is_heavy=is_heavy)


def spoil_json(edit: Callable[[Any], Any], *causes: str) -> FaultKind:
    """Return a fault that edits the JSON of the answer."""
    return spoil(
        lambda answer: respond_with(edit(json.loads(answer.body)), status=answer.status), *causes
    )


def _truncate(answer: Answer) -> Responder:
    return send_bytes(answer.head + answer.body[: len(answer.body) // 2], close=True)


def _pad(answer: Answer) -> Responder:
    """Put ten megabytes into the object, before what is in it."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        length = len(b'{"filler":"') + BIG + len(b'",') + len(answer.body) - 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        writer.write(b'{"filler":"')
        await _send_filler(writer, BIG)
        writer.write(b'",' + answer.body[1:])
        await writer.drain()

    return respond


# Of these the dashboard needs the right type to know a run at all.
REQUIRED = frozenset({"id", "status", "concluded", "createdAt", "hasNextPage", "apiVersion"})


def _change_types(value: Any, keep: frozenset[str] = frozenset()) -> Any:
    """Give each value another type, except those under the names in `keep`."""
    match value:
        case dict():
            return {
                name: item if name in keep else _change_types(item, keep)
                for name, item in value.items()
            }
        case list():
            return [_change_types(item, keep) for item in value]
        case bool():
            return "yes"
        case str():
            return 7
        case _:
            return "many"


def _swap_containers(body: Any) -> Any:
    """Make a list of an object, and an object of a list."""
    match body:
        case dict():
            return [_swap_containers(item) for item in body.values()]
        case list():
            return {str(number): _swap_containers(item) for number, item in enumerate(body)}
        case _:
            return body


async def _answer_another_request(exchange: Exchange) -> None:
    """Send what belongs to another request, as a proxy that mixes up its connections."""
    other = replace(exchange.request, method="GET", path="/v1/auth", query="", body=b"")
    await exchange.forward()
    answer = await exchange.fetch(other)
    exchange.writer.write(answer.head + answer.body)
    await exchange.writer.drain()


def _fail_to_connect(how: str) -> FaultKind:
    return replace(instead(never_respond, "unreachable"), connection=how)


FAULTS: dict[str, FaultKind] = {
    "timeout before acting": instead(never_respond, "timeout", hangs=True),
    "timeout after acting": after_acting(instead(never_respond, "timeout", hangs=True)),
    "slow drip": instead(drip_bytes, "timeout", hangs=True),
    "reset before acting": instead(reset_connection, "unreachable"),
    "reset after acting": after_acting(instead(reset_connection, "unreachable")),
    "closed without an answer": instead(close_connection, "unreachable"),
    "not HTTP": instead(send_bytes(b"SSH-2.0-OpenSSH_9.9\r\n", close=True), "unreachable"),
    "refused connection": _fail_to_connect("refused"),
    "untrusted certificate": _fail_to_connect("untrusted"),
    "plain text where TLS belongs": _fail_to_connect("plain"),
    "429 without headers": instead(respond_with(b"", status=429), "rate_limited"),
    "429 with Retry-After": instead(
        respond_with(ERROR, status=429, headers={"Retry-After": "90"}), "rate_limited"
    ),
    "429 with a spent window": instead(
        respond_with(ERROR, status=429, headers=SPENT), "rate_limited"
    ),
    "500 as HTML": instead(respond_with(HTML, status=500), "server_error"),
    "502 of ten megabytes": instead(send_big_error, "server_error", is_heavy=True),
    "401": instead(respond_with(ERROR, status=401), "unauthorised"),
    "403": instead(respond_with(ERROR, status=403), "forbidden"),
    "404": instead(respond_with(ERROR, status=404), "not_found", "unexpected_response"),
    "404 as HTML": instead(respond_with(HTML, status=404), "unexpected_response"),
    "redirect elsewhere": redirect(302, "/elsewhere"),
    "redirect to itself": redirect(307, ""),
    "204": instead(respond_with(status=204), "unexpected_response"),
    "empty body": instead(respond_with(b""), "unexpected_response"),
    "HTML in place of JSON": instead(respond_with(HTML), "unexpected_response"),
    "deeply nested JSON": instead(respond_with(b"[" * 200_000), "unexpected_response"),
    "data of nothing": instead(respond_with({"data": {}}), "unexpected_response"),
    "no data": instead(respond_with({"data": None}), "unexpected_response"),
    "error with status 200": instead(respond_with(ERROR), "unexpected_response"),
    "JSON that takes most memory": instead(send_many_values, "unexpected_response", is_heavy=True),
    "endless JSON": instead(send_endless_body, *BROKEN_OFF, is_heavy=True),
    "endless head": instead(send_endless_head, *BROKEN_OFF, is_heavy=True),
    "compressed bomb": instead(send_bomb(200), "unexpected_response", is_heavy=True),
    "truncated JSON": spoil(_truncate, *BROKEN_OFF),
    "JSON of ten megabytes": spoil(_pad, "unexpected_response", is_heavy=True),
    "wrong types": spoil_json(_change_types, "unexpected_response"),
    "wrong types where optional": spoil_json(
        partial(_change_types, keep=REQUIRED), "unexpected_response"
    ),
    "lists and objects swapped": spoil_json(_swap_containers, "unexpected_response"),
    "answer to another request": FaultKind(
        _answer_another_request, frozenset({"unexpected_response"}), acts=True
    ),
}
