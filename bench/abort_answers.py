"""What happens to an abort for each kind of answer, and how soon the user is informed.

    uv run bench/abort_answers.py [--quick] [words of the kinds ...]

A real dashboard uses a sandbox through a proxy that answers the first abort of a run, or all of
them, in a certain way and passes on everything else. Prints a Markdown row for each kind, and exits
with 1 if a user was told something untrue, was not informed within 5 s of the answer, or a run that
could be aborted was not. About six minutes; `--quick` leaves out kinds that last two minutes.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from running import Bench, Browser, Upstream, scratch, start_dashboard, start_upstream, wait_for

# Stages that allow any number of concurrent runs.
PLACES = [
    ("payments", "billing-api", "development"),
    ("shop", "search", "development"),
    ("payments", "ledger", "staging"),
    ("identity", "auth-gateway", "development"),
]
AT_ONCE = 16  # runs; more would measure how many aborts a process can send concurrently
PATIENCE = 150.0  # seconds until an abort must have settled
HTML = b"<!doctype html><title>Sign in</title><p>Welcome to the station's network."
FOREVER = 10_000

type Reply = bytes | str  # raw bytes, or the name of a connection error


@dataclass
class Kind:
    """A way in which the first aborts of a run are answered."""

    name: str
    reply: Reply | None  # None: the sandbox's answer
    times: int = 1  # number of sends answered this way; later ones get the sandbox's answer
    arrives: bool = False  # whether the abort reaches the sandbox anyway
    delay: float = 0.0
    waits: float = 0.0  # seconds until any answer can arrive
    ends: str = "aborted"  # required outcome: aborted, refused, lost or not_sent


def reply(status: int, body: bytes = b"", *, json_: Any = ..., **headers: str) -> bytes:
    """Return an HTTP response as bytes."""
    kind = "text/html"
    if json_ is not ...:
        body, kind = json.dumps(json_).encode(), "application/json"
    fields = {"Content-Type": kind, "Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def error(status: int, **headers: str) -> bytes:
    return reply(status, json_={"error": {"message": "It broke", "id": "e-1"}}, **headers)


def data(value: Any) -> bytes:
    return reply(200, json_={"data": value})


def kinds() -> list[Kind]:
    """Return all kinds of answers."""
    other_run = {"id": "another", "status": "aborting", "concluded": False}
    success = gzip.compress(
        json.dumps({"data": {"status": "aborting", "concluded": False}}).encode()
    )
    unreadable: dict[str, Reply] = {
        "200 with a page (captive portal)": reply(200, HTML),
        "200 and nothing": reply(200),
        "204": b"HTTP/1.1 204 X\r\n\r\n",
        "202 and nothing": reply(202),
        "200 {}": reply(200, json_={}),
        "200 []": reply(200, json_=[]),
        '200 "ok"': reply(200, json_="ok"),
        "200 null": reply(200, json_=None),
        "200 true": reply(200, json_=True),
        "200 {data: null}": data(None),
        "200 {data: {}}": data({}),
        "200 {data: []}": data([]),
        '200 {data: "accepted"}': data("accepted"),
        "200, an id only": data({"id": "x", "name": "y"}),
        "200, of another run": data(other_run),
        "200, an error inside": reply(200, json_={"error": {"message": "no"}}),
        "200, JSON cut short": reply(200, b'{"data": {"status"'),
        "200, text": reply(200, b"OK"),
        "200, no UTF-8": reply(200, b"\xff\xfe\xfa"),
        "200, damaged gzip": reply(200, b"\x00\x01", Content_Encoding="gzip"),
        "200, nested too deep": reply(200, b"[" * 90_000),
        "301 elsewhere": reply(301, Location="http://127.0.0.1:9/"),
        "302 to a portal": reply(302, HTML, Location="http://127.0.0.1:9/"),
        "304": b"HTTP/1.1 304 X\r\n\r\n",
        "307 elsewhere": reply(307, Location="http://127.0.0.1:9/"),
        "500": error(500),
        "500 with a page": reply(500, HTML),
        "501": error(501),
        "502 with a page": reply(502, HTML),
        "503": error(503),
        "503 and nothing": reply(503),
        "503, Retry-After: 5": error(503, Retry_After="5"),
        "504": error(504),
        "507": error(507),
        "520 with a page": reply(520, HTML),
        "529": error(529),
        "reset": "reset",
        "closed without a word": "close",
        "reset after the head": "head-reset",
        "closed within the body": "cut",
        "no HTTP": b"\x15\x03\x01\x00\x02\x02\x28",
        "a broken chunk": b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    }
    result = [Kind(f"{name}, once", answer) for name, answer in unreadable.items()]
    result += [
        Kind("accepted", None),
        Kind("accepted after 5 s", None, arrives=True, delay=5, waits=5),
        Kind("accepted, packed", reply(200, success, Content_Encoding="gzip"), arrives=True),
        Kind("201 accepted", reply(201, json_={"data": {"status": "aborting"}}), arrives=True),
        Kind("silence, once", "silence", waits=12),
        Kind("byte by byte, once", "drip", waits=12),
    ]
    arriving_names = (
        "reset", "cut", "503", "504", "502 with a page", "200 with a page (captive portal)",
        "200 and nothing", "200, an error inside", "302 to a portal",
    )  # fmt: skip
    sources = unreadable | {"cut": "cut"}
    result += [
        Kind(f"{name}, though it arrived", sources[name], arrives=True) for name in arriving_names
    ]
    result.append(Kind("silence, though it arrived", "silence", arrives=True, waits=12))
    twice = ("503", "reset", "200 with a page (captive portal)")
    result += [Kind(f"{name}, twice", unreadable[name], times=2) for name in twice]
    result += [Kind(f"{name}, four times", unreadable[name], times=4) for name in twice]
    result += [
        Kind(f"{name}, always", unreadable[name], times=FOREVER, ends="lost") for name in twice
    ]
    result.append(Kind("silence, always", "silence", times=FOREVER, waits=12, ends="lost"))
    result += [
        Kind(f"{status}, Northflank's own", error(status), times=FOREVER, ends="refused")
        for status in (400, 401, 403, 404, 405, 409, 410, 413, 422, 451)
    ]
    result += [
        Kind("409, for it is aborting already", error(409), arrives=True),
        Kind("404, once it is aborting", error(404), arrives=True),
    ]
    return result


@dataclass
class Attempt:
    """One abort and its outcome; times are seconds since the request."""

    kind: Kind
    place: tuple[str, str, str]
    run_id: str
    requested_at: float = 0.0
    send_count: int = 0
    informed_after: float = 0.0
    notice_text: str = ""
    aborted_after: float | None = None
    settled_after: float | None = None
    state: str = ""
    wrong: list[str] = field(default_factory=list)


class Proxy:
    """Passes on all requests to the sandbox, except the aborts registered in `tried`."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.attempts: dict[str, Attempt] = {}
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
                await self._answer(head, head + body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes, request: bytes, writer: asyncio.StreamWriter) -> None:
        match = re.match(rb"POST \S+/runs/([^/ ]+)/abort ", head)
        attempt = self.attempts.get(match[1].decode()) if match else None
        if attempt is None:
            writer.write(await self._pass(request))
            await writer.drain()
            return
        attempt.send_count += 1
        kind = attempt.kind
        scripted_reply = kind.reply if attempt.send_count <= kind.times else None
        upstream_reply = b""
        if scripted_reply is None or kind.arrives:
            upstream_reply = await self._pass(request)
            if attempt.aborted_after is None:
                attempt.aborted_after = time.monotonic() - attempt.requested_at
        await asyncio.sleep(kind.delay if attempt.send_count <= kind.times else 0)
        await _play(upstream_reply if scripted_reply is None else scripted_reply, writer)

    async def _pass(self, request: bytes) -> bytes:
        """Send a request to the sandbox, and return its response unchanged."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        writer.write(
            re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", request, count=1)
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        if length := re.search(rb"(?i)\r\ncontent-length: (\d+)", answer):
            answer += await reader.readexactly(int(length[1]))
        writer.close()
        return answer


async def _play(scripted_reply: Reply, writer: asyncio.StreamWriter) -> None:
    if isinstance(scripted_reply, bytes):
        writer.write(scripted_reply)
        await writer.drain()
        if not scripted_reply.startswith(b"HTTP/"):
            writer.close()
        return
    if scripted_reply in {"silence", "drip"}:
        writer.write(
            b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n" if scripted_reply == "drip" else b""
        )
        while not writer.is_closing():
            writer.write(b" " if scripted_reply == "drip" else b"")
            await asyncio.sleep(0.1)
            if writer.transport.is_closing():
                return
    if scripted_reply in {"head-reset", "cut"}:
        writer.write(b'HTTP/1.1 200 X\r\nContent-Length: 500\r\n\r\n{"data": ')
        await writer.drain()
        await asyncio.sleep(0.05)
    if scripted_reply in {"reset", "head-reset"}:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def start(upstream: Upstream, place: tuple[str, str, str]) -> str:
    project, pipeline, stage = place
    path = f"/v1/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs"
    upstream.connect()
    run, _ = upstream.post(path)
    return str(run["id"])


def ask[T](bench: Bench, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with sqlite3.connect(bench.database, timeout=30) as database:
        return database.execute(sql, parameters).fetchall()


STATE = """
SELECT a.state, a.settled_at, r.abort_severity, a.outcome, r.in_flight FROM dashboard_abort a
JOIN dashboard_run r ON r.id = a.run_id WHERE r.run_id = ? ORDER BY a.id DESC LIMIT 1
"""


def abort(bench: Bench, client: Browser, attempt: Attempt) -> None:
    """Abort a run, and wait for the outcome."""
    project, pipeline, stage = attempt.place
    stage_path = f"/projects/{project}/pipelines/{pipeline}/release-flows/{stage}"
    path = f"{stage_path}/runs/{attempt.run_id}/abort/"
    attempt.requested_at = time.monotonic()
    answer = client.ask(path, {"reason": "Bench"}, {"HX-Request": "true"})
    attempt.informed_after = time.monotonic() - attempt.requested_at
    notice = re.search(r'class="notice".*?<p>(.*?)</p>', answer.text, re.DOTALL)
    notice_text = re.sub(r"<[^>]*>", "", notice[1]) if notice else f"{answer.status}"
    attempt.notice_text = " ".join(html.unescape(notice_text).split())
    until = attempt.requested_at + PATIENCE
    while time.monotonic() < until:
        rows = ask(bench, STATE, attempt.run_id)
        if rows:
            state, settled_at, level, outcome, in_flight = rows[0]
            attempt.state = outcome or state
            if settled_at or (state == "unknown" and level >= 2):
                attempt.settled_after = time.monotonic() - attempt.requested_at
                if state == "unknown" and in_flight and level < 2:
                    attempt.wrong.append("lost, and calm")
                break
        time.sleep(0.25)
    _judge(attempt)


def _judge(attempt: Attempt) -> None:
    kind, notice_text = attempt.kind, attempt.notice_text
    if attempt.informed_after > 5 + kind.waits:
        attempt.wrong.append("told late")
    if "accepted" in notice_text and attempt.aborted_after is None:
        attempt.wrong.append("told accepted, and it had not arrived")
    if "accepted" in notice_text and (attempt.aborted_after or 0) > attempt.informed_after:
        attempt.wrong.append("told accepted before it was")
    outcome = {"unknown": "lost"}.get(attempt.state, attempt.state)
    if outcome != kind.ends:
        attempt.wrong.append(f"came to {outcome}, not {kind.ends}")
    if attempt.send_count > 5:
        attempt.wrong.append("sent too often")


def run(quick: bool, words: list[str]) -> list[Attempt]:
    chosen_kinds = [
        kind
        for kind in kinds()
        if all(word in kind.name for word in words) and not (quick and kind.ends == "lost")
    ]
    attempts: list[Attempt] = []
    with scratch() as bench:
        upstream = start_upstream(bench, "--choice", "abort-seconds=0.5")
        proxy = Proxy(upstream.port)
        through = Upstream(
            upstream.server, proxy.port, http.client.HTTPConnection("127.0.0.1", proxy.port)
        )
        _, client = start_dashboard(bench, through)
        for first in range(0, len(chosen_kinds), AT_ONCE):
            group = [
                Attempt(kind, (place := PLACES[number % len(PLACES)]), start(upstream, place))
                for number, kind in enumerate(chosen_kinds[first : first + AT_ONCE])
            ]
            proxy.attempts |= {attempt.run_id: attempt for attempt in group}
            wait_for(lambda group=group: _is_mirrored(bench, group), "the runs are mirrored", 0.2)
            with ThreadPoolExecutor(AT_ONCE) as executor:
                list(executor.map(lambda attempt: abort(bench, client.twin(), attempt), group))
            attempts += group
            print(f"{len(attempts)} of {len(chosen_kinds)}", file=sys.stderr, flush=True)
    return attempts


def _is_mirrored(bench: Bench, group: list[Attempt]) -> bool:
    mirrored_ids = {
        run_id for (run_id,) in ask(bench, "SELECT run_id FROM dashboard_run WHERE in_flight")
    }
    return {attempt.run_id for attempt in group} <= mirrored_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    attempts = run(options.quick, options.words)
    print("| Answer | Sends | User informed after | Run aborted after | Outcome | First message |")
    print("| --- | --- | --- | --- | --- | --- |")
    seconds: Callable[[float | None], str] = lambda s: "–" if s is None else f"{s:.1f} s"  # noqa: E731
    for attempt in attempts:
        wrong = f" **{'; '.join(attempt.wrong)}**" if attempt.wrong else ""
        outcome_text = attempt.state + (
            f" after {seconds(attempt.settled_after)}" if attempt.aborted_after is None else ""
        )
        cells = (
            attempt.kind.name, str(attempt.send_count), seconds(attempt.informed_after),
            seconds(attempt.aborted_after), outcome_text + wrong, attempt.notice_text,
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    wrong_count = sum(bool(attempt.wrong) for attempt in attempts)
    slowest = max(attempt.informed_after - attempt.kind.waits for attempt in attempts)
    print(f"\n{len(attempts)} kinds; {wrong_count} wrong; slowest to be informed: {slowest:.1f} s.")
    sys.exit(bool(wrong_count))


if __name__ == "__main__":
    main()
