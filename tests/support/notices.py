"""Notices, and a real HTTP receiver of them, which answers as a test says."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dashboard.db import threads as db_threads
from dashboard.models import NoticeMessage

SECRET = "0123456789abcdef" * 4
AT = datetime(2026, 12, 1, 12, tzinfo=UTC)


def message(**fields: object) -> NoticeMessage:
    defaults = {
        "pk": 7, "channel": "siem", "title": "Run 12 is overdue", "body": "At step build",
        "url": "http://d/runs/12", "payload": {"event": "overdue", "title": "Rün"},
        "created_at": AT, "next_try_at": AT,
    }  # fmt: skip
    return NoticeMessage(**defaults | fields)


def store(channel: str = "siem", count: int = 1) -> list[NoticeMessage]:
    now = db_threads.now()
    return [
        NoticeMessage.objects.create(
            channel=channel, event="overdue", title=f"Run {number}", body="b", url="http://d/r",
            payload={"number": number}, created_at=now, next_try_at=now,
        )
        for number in range(count)
    ]  # fmt: skip


@dataclass
class Receiver:
    url: str = ""
    answers: list[str] = field(default_factory=list)
    """A status, "hang", "endless" or "redirect"; the last one stays. Empty: 200."""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append((self.path, headers, body))
            kinds = receiver.answers
            kind = (kinds.pop(0) if len(kinds) > 1 else kinds[0]) if kinds else "200"
            with suppress(OSError):
                self.answer(kind)

        def answer(self, kind: str) -> None:
            if kind == "hang":
                receiver.ended.wait(60)
                return
            self.send_response({"endless": 200, "redirect": 307}.get(kind) or int(kind))
            if kind == "redirect":
                self.send_header("Location", f"{receiver.url}/elsewhere")
            if kind != "endless":
                self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
            while kind == "endless" and not receiver.ended.is_set():
                self.wfile.write(b"x" * 1000)
                time.sleep(0.01)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
