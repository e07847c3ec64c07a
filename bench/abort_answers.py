"""Outcome of an abort for each kind of response, and how soon the user is informed.

    uv run bench/abort_answers.py [--quick] [words of the kinds ...]

A real dashboard uses a sandbox through a proxy that answers the first abort of a run, or all of
them, with a scripted response and forwards all other requests. Prints a Markdown row for each kind,
and exits with 1 if a user was informed wrongly, or later than 5 s after the response, or a run that
could be aborted was not. About four minutes; `--quick` leaves out kinds that last up to a minute
and a half.
"""

import argparse
import asyncio
import gzip
import html
import http.client
import json
import re
import socket
import sqlite3
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from processes import Bench, Browser, Upstream, scratch, start_dashboard, start_upstream, wait_for

# Stages that allow any number of concurrent runs.
PLACES = [
    ("payments", "billing-api", "development"),
    ("shop", "search", "development"),
    ("payments", "ledger", "staging"),
    ("identity", "auth-gateway", "development"),
]
CONCURRENCY = 16  # runs; more would measure how many aborts a process can send concurrently
TIMEOUT = 150.0  # seconds until an abort must have settled
HTML = b"<!doctype html><title>Sign in</title><p>Welcome to the station's network."
ALWAYS = 10_000  # sends
CRITICAL = 2  # a severity of dashboard/models/severity.py

type ScriptedResponse = bytes | str  # raw bytes, or the name of a connection fault


@dataclass
class ResponseKind:
    """How the first sends of an abort are answered, and the outcome that it must have."""

    name: str
    response: ScriptedResponse | None  # None: the sandbox's response
    times: int = 1  # number of sends answered so; later ones get the sandbox's response
    is_delivered: bool = False  # whether the abort reaches the sandbox anyway
    delay: float = 0.0  # seconds before the response
    wait: float = 0.0  # seconds until the response, or the timeout, if there is none
    outcome: str = "aborted"  # required: aborted, refused or unknown


def build_response(status: int, body: bytes = b"", *, json_: Any = ..., **headers: str) -> bytes:
    """Return an HTTP response as bytes."""
    content_type = "text/html"
    if json_ is not ...:
        body, content_type = json.dumps(json_).encode(), "application/json"
    fields = {"Content-Type": content_type, "Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def build_error(status: int, **headers: Any) -> bytes:
    return build_response(status, json_={"error": {"message": "It broke", "id": "e-1"}}, **headers)


def build_data(value: Any) -> bytes:
    return build_response(200, json_={"data": value})


def list_kinds() -> list[ResponseKind]:
    other_run = {"id": "another", "status": "aborting", "concluded": False}
    success = gzip.compress(
        json.dumps({"data": {"status": "aborting", "concluded": False}}).encode()
    )
    unreadable: dict[str, ScriptedResponse] = {
        "200 with HTML (captive portal)": build_response(200, HTML),
        "200 without a body": build_response(200),
        "204": b"HTTP/1.1 204 X\r\n\r\n",
        "202 without a body": build_response(202),
        "200 {}": build_response(200, json_={}),
        "200 []": build_response(200, json_=[]),
        '200 "ok"': build_response(200, json_="ok"),
        "200 null": build_response(200, json_=None),
        "200 true": build_response(200, json_=True),
        "200 {data: null}": build_data(None),
        "200 {data: {}}": build_data({}),
        "200 {data: []}": build_data([]),
        '200 {data: "accepted"}': build_data("accepted"),
        "200, an id only": build_data({"id": "x", "name": "y"}),
        "200, of another run": build_data(other_run),
        "200 with an error": build_response(200, json_={"error": {"message": "no"}}),
        "200, truncated JSON": build_response(200, b'{"data": {"status"'),
        "200, text": build_response(200, b"OK"),
        "200, not UTF-8": build_response(200, b"\xff\xfe\xfa"),
        "200, damaged gzip": build_response(200, b"\x00\x01", Content_Encoding="gzip"),
        "200, JSON nested too deeply": build_response(200, b"[" * 90_000),
        "301 to another address": build_response(301, Location="http://127.0.0.1:9/"),
        "302 to a portal": build_response(302, HTML, Location="http://127.0.0.1:9/"),
        "304": b"HTTP/1.1 304 X\r\n\r\n",
        "307 to another address": build_response(307, Location="http://127.0.0.1:9/"),
        "500": build_error(500),
        "500 with HTML": build_response(500, HTML),
        "501": build_error(501),
        "502 with HTML": build_response(502, HTML),
        "503": build_error(503),
        "503 without a body": build_response(503),
        "503, Retry-After: 5": build_error(503, Retry_After="5"),
        "504": build_error(504),
        "507": build_error(507),
        "520 with HTML": build_response(520, HTML),
        "529": build_error(529),
        "reset": "reset",
        "closed without a response": "close",
        "reset within the body": "body-reset",
        "closed within the body": "body-close",
        "not HTTP": b"\x15\x03\x01\x00\x02\x02\x28",
        "invalid chunk": b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    }
    kinds = [ResponseKind(f"{name}, once", response) for name, response in unreadable.items()]
    kinds += [
        ResponseKind("accepted", None),
        ResponseKind("accepted after 5 s", None, is_delivered=True, delay=5, wait=5),
        ResponseKind(
            "accepted, compressed",
            build_response(200, success, Content_Encoding="gzip"),
            is_delivered=True,
        ),
        ResponseKind(
            "201 accepted",
            build_response(201, json_={"data": {"status": "aborting"}}),
            is_delivered=True,
        ),
        ResponseKind("no response, once", "no-response", wait=12),
        ResponseKind("one byte at a time, once", "drip", wait=12),
    ]
    delivered_names = (
        "reset", "closed within the body", "503", "504", "502 with HTML",
        "200 with HTML (captive portal)", "200 without a body", "200 with an error",
        "302 to a portal",
    )  # fmt: skip
    kinds += [
        ResponseKind(f"{name}, although delivered", unreadable[name], is_delivered=True)
        for name in delivered_names
    ]
    kinds.append(
        ResponseKind("no response, although delivered", "no-response", is_delivered=True, wait=12)
    )
    resent_names = ("503", "reset", "200 with HTML (captive portal)")
    kinds += [ResponseKind(f"{name}, twice", unreadable[name], times=2) for name in resent_names]
    kinds += [
        ResponseKind(f"{name}, four times", unreadable[name], times=4) for name in resent_names
    ]
    kinds += [
        ResponseKind(f"{name}, always", unreadable[name], times=ALWAYS, outcome="unknown")
        for name in resent_names
    ]
    kinds.append(
        ResponseKind("no response, always", "no-response", times=ALWAYS, wait=12, outcome="unknown")
    )
    kinds += [
        ResponseKind(
            f"{status}, Northflank's refusal", build_error(status), times=ALWAYS, outcome="refused"
        )
        for status in (400, 401, 403, 404, 405, 409, 410, 413, 422, 451)
    ]
    kinds += [
        ResponseKind("409, run already aborting", build_error(409), is_delivered=True),
        ResponseKind("404, run already aborting", build_error(404), is_delivered=True),
    ]
    return kinds


@dataclass
class Attempt:
    """One abort and its outcome; `…_after` are seconds since the request."""

    kind: ResponseKind
    place: tuple[str, str, str]
    run_id: str
    requested_at: float = 0.0
    send_count: int = 0
    informed_after: float = 0.0
    notice_text: str = ""
    aborted_after: float | None = None
    settled_after: float | None = None
    state: str = ""
    failures: list[str] = field(default_factory=list)


class Proxy:
    """Forwards all requests to the sandbox, except the aborts of the runs in `attempts`."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.attempts: dict[str, Attempt] = {}  # by run id
        self.loop = asyncio.new_event_loop()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._serve, sock=self.listener))
        self.loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                await self._handle_request(head, head + body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _handle_request(
        self, head: bytes, request: bytes, writer: asyncio.StreamWriter
    ) -> None:
        match = re.match(rb"POST \S+/runs/([^/ ]+)/abort ", head)
        attempt = self.attempts.get(match[1].decode()) if match else None
        if attempt is None:
            writer.write(await self._forward(request))
            await writer.drain()
            return
        attempt.send_count += 1
        kind = attempt.kind
        scripted = kind.response if attempt.send_count <= kind.times else None
        upstream_response = b""
        if scripted is None or kind.is_delivered:
            upstream_response = await self._forward(request)
            if attempt.aborted_after is None:
                attempt.aborted_after = time.monotonic() - attempt.requested_at
        await asyncio.sleep(kind.delay if attempt.send_count <= kind.times else 0)
        await _send_response(upstream_response if scripted is None else scripted, writer)

    async def _forward(self, request: bytes) -> bytes:
        """Send a request to the sandbox, and return its response unchanged."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        writer.write(
            re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", request, count=1)
        )
        response = await reader.readuntil(b"\r\n\r\n")
        if length := re.search(rb"(?i)\r\ncontent-length: (\d+)", response):
            response += await reader.readexactly(int(length[1]))
        writer.close()
        return response


async def _send_response(response: ScriptedResponse, writer: asyncio.StreamWriter) -> None:
    if isinstance(response, bytes):
        writer.write(response)
        await writer.drain()
        if not response.startswith(b"HTTP/"):
            writer.close()
        return
    if response in {"no-response", "drip"}:
        writer.write(
            b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n" if response == "drip" else b""
        )
        while not writer.is_closing():
            writer.write(b" " if response == "drip" else b"")
            await asyncio.sleep(0.1)
            if writer.transport.is_closing():
                return
    if response in {"body-reset", "body-close"}:
        writer.write(b'HTTP/1.1 200 X\r\nContent-Length: 500\r\n\r\n{"data": ')
        await writer.drain()
        await asyncio.sleep(0.05)
    if response in {"reset", "body-reset"}:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def start_run(upstream: Upstream, place: tuple[str, str, str]) -> str:
    project, pipeline, stage = place
    path = f"/v1/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs"
    upstream.connect()
    run, _ = upstream.post(path)
    return str(run["id"])


def query(bench: Bench, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with sqlite3.connect(bench.database, timeout=30) as database:
        return database.execute(sql, parameters).fetchall()


SELECT_ABORT = """
SELECT a.state, a.settled_at, r.abort_severity, a.outcome, r.in_flight FROM dashboard_abort a
JOIN dashboard_run r ON r.id = a.run_id WHERE r.run_id = ? ORDER BY a.id DESC LIMIT 1
"""


def abort_run(bench: Bench, client: Browser, attempt: Attempt) -> None:
    """Abort a run, wait for the outcome, and record both in `attempt`."""
    project, pipeline, stage = attempt.place
    stage_path = f"/projects/{project}/pipelines/{pipeline}/release-flows/{stage}"
    path = f"{stage_path}/runs/{attempt.run_id}/abort/"
    attempt.requested_at = time.monotonic()
    response = client.request(path, {"reason": "Bench"}, {"HX-Request": "true"})
    attempt.informed_after = time.monotonic() - attempt.requested_at
    notice = re.search(r'class="notice".*?<p>(.*?)</p>', response.text, re.DOTALL)
    notice_text = re.sub(r"<[^>]*>", "", notice[1]) if notice else f"{response.status}"
    attempt.notice_text = " ".join(html.unescape(notice_text).split())
    deadline = attempt.requested_at + TIMEOUT
    while time.monotonic() < deadline:
        rows = query(bench, SELECT_ABORT, attempt.run_id)
        if rows:
            state, settled_at, severity, outcome, in_flight = rows[0]
            attempt.state = outcome or state
            if settled_at or (state == "unknown" and severity >= CRITICAL):
                attempt.settled_after = time.monotonic() - attempt.requested_at
                if state == "unknown" and in_flight and severity < CRITICAL:
                    attempt.failures.append("unknown, but not critical")
                break
        time.sleep(0.25)
    _check_outcome(attempt)


def _check_outcome(attempt: Attempt) -> None:
    kind, notice_text = attempt.kind, attempt.notice_text
    if attempt.informed_after > 5 + kind.wait:
        attempt.failures.append("informed late")
    if "accepted" in notice_text and attempt.aborted_after is None:
        attempt.failures.append("reported as accepted, but not delivered")
    if "accepted" in notice_text and (attempt.aborted_after or 0) > attempt.informed_after:
        attempt.failures.append("reported as accepted before it was delivered")
    if attempt.state != kind.outcome:
        attempt.failures.append(f"outcome {attempt.state}, not {kind.outcome}")
    if attempt.send_count > 5:
        attempt.failures.append("sent too often")


def measure(quick: bool, words: list[str]) -> list[Attempt]:
    kinds = [
        kind
        for kind in list_kinds()
        if all(word in kind.name for word in words) and not (quick and kind.outcome == "unknown")
    ]
    attempts: list[Attempt] = []
    with scratch() as bench:
        upstream = start_upstream(bench, "--choice", "abort-seconds=0.5")
        proxy = Proxy(upstream.port)
        proxied_upstream = Upstream(
            upstream.server, proxy.port, http.client.HTTPConnection("127.0.0.1", proxy.port)
        )
        _, client = start_dashboard(bench, proxied_upstream)
        for offset in range(0, len(kinds), CONCURRENCY):
            group = [
                Attempt(kind, (place := PLACES[number % len(PLACES)]), start_run(upstream, place))
                for number, kind in enumerate(kinds[offset : offset + CONCURRENCY])
            ]
            proxy.attempts |= {attempt.run_id: attempt for attempt in group}
            wait_for(partial(_are_mirrored, bench, group), "the runs are mirrored", 0.2)
            with ThreadPoolExecutor(CONCURRENCY) as executor:
                list(
                    executor.map(
                        lambda attempt: abort_run(bench, client.new_connection(), attempt), group
                    )
                )
            attempts += group
            print(f"{len(attempts)} of {len(kinds)}", file=sys.stderr, flush=True)
    return attempts


def _are_mirrored(bench: Bench, group: list[Attempt]) -> bool:
    mirrored_ids = {
        run_id for (run_id,) in query(bench, "SELECT run_id FROM dashboard_run WHERE in_flight")
    }
    return {attempt.run_id for attempt in group} <= mirrored_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    attempts = measure(options.quick, options.words)
    print("| Answer | Sends | User informed after | Run aborted after | Outcome | First message |")
    print("| --- | --- | --- | --- | --- | --- |")
    for attempt in attempts:
        failures = f" **{'; '.join(attempt.failures)}**" if attempt.failures else ""
        outcome = attempt.state + (
            f" after {_format_seconds(attempt.settled_after)}"
            if attempt.aborted_after is None
            else ""
        )
        cells = (
            attempt.kind.name, str(attempt.send_count), _format_seconds(attempt.informed_after),
            _format_seconds(attempt.aborted_after), outcome + failures, attempt.notice_text,
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    failed_count = sum(bool(attempt.failures) for attempt in attempts)
    slowest = max(attempt.informed_after - attempt.kind.wait for attempt in attempts)
    summary = f"{len(attempts)} kinds; {failed_count} failed; slowest to be informed"
    print(f"\n{summary}: {slowest:.1f} s.")
    sys.exit(bool(failed_count))


def _format_seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f} s"


if __name__ == "__main__":
    main()
