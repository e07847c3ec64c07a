"""Two versions of the dashboard, which answer the same requests in turns.

    uv run bench/turns.py CHECKOUT [--quick] [--postgres postgres://user@host:port/database]
    uv run bench/turns.py CHECKOUT --only stage
    uv run bench/turns.py --postgres postgres://…   # this checkout, on SQLite and on that server

Each version is a process with a database of its own, filled as bench/people.py does, which answers
one request at a time with Django's handler. Before each request it writes a change, or none. Other
load on the machine slows down both alike, so the ratios hold on a busy one. CPU is the time of the
answering thread, with SQLite's but without that of a PostgreSQL server; for an abort, that of the
whole process (bench/abort_turns.py). ms is the time that passes. Prints the medians; a ratio below
1 means that this checkout is the faster one.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import running
from abort_turns import Aborts
from people import PAGES, PEOPLE, fill_database
from tables import p

STAGE, NOW, ABORTS, BOARD, RUN, STATUS = PAGES
AN_ABORT = "an abort"  # of a run of the stage's page, instead of a page
# What is measured: the page, and the change before each request.
MEASURED = {
    "Stage, 100 rows, after a change": (STAGE, "on_the_pages"),
    "Stage, no row cached": (STAGE, "all_rows"),
    "Stage, unchanged": (STAGE, ""),
    "Now, 50 in flight, after a change": (NOW, "on_the_pages"),
    "Now, unchanged": (NOW, ""),
    "Board, 24 stages, after a change": (BOARD, "on_the_pages"),
    "Run, after a change": (RUN, "on_the_pages"),
    "Status, after a change": (STATUS, "on_the_pages"),
    "Abort log, 100 aborts, after a change": (ABORTS, "an_abort"),
    "An abort, to its answer": (STAGE, AN_ABORT),
}


class Version:
    """A process that answers requests with the code of one checkout."""

    def __init__(self, checkout: Path, server: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(checkout), "--answer", "--postgres", server],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, page: str, change: str) -> tuple[float, float]:
        """Return the milliseconds of CPU and of time that a page takes after a change."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([PAGES[page], change]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "a version has ended"
        cpu, ms = json.loads(line)
        return cpu, ms

    def stop(self) -> None:
        self.process.communicate()


def answer(checkout: Path, server: str) -> None:
    """Answer the requests on stdin, each with a line: milliseconds of CPU and of time."""
    with running.local_django(server, checkout):
        changes = fill_database()
        from django.db import connection

        from dashboard.asgi import application

        cookies = [sign_in(application, f"person-{number}") for number in range(PEOPLE)]
        aborts = Aborts(application, changes.stage_keys[0])
        for number, line in enumerate(sys.stdin):
            path, change = json.loads(line)
            cookie = cookies[number % PEOPLE]
            scope = scope_of(path, cookie)
            if change == AN_ABORT:
                token = cookie.partition(b"csrftoken=")[2].partition(b";")[0].decode()
                print(json.dumps(aborts.press(scope, token)), flush=True)
                continue
            if change:
                getattr(changes, change)()
            started = time.thread_time(), time.perf_counter()
            status = respond(application, scope)
            took = time.thread_time() - started[0], time.perf_counter() - started[1]
            assert status == 200, f"{path}: {status}"
            print(json.dumps([seconds * 1000 for seconds in took]), flush=True)
        connection.close()


def respond(application: Any, scope: dict[str, Any]) -> int:
    """Return the status of a response, on this thread; the application would use its own."""
    response = application._handle(scope, io.BytesIO())
    status: int = response.status_code
    return status


def sign_in(application: Any, name: str) -> bytes:
    """Return the cookies of a user's session."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(User.objects.get(username=name))
    assert client.get("/").status_code == 200  # sets the cookie of forms
    return "; ".join(f"{key}={cookie.value}" for key, cookie in client.cookies.items()).encode()


def scope_of(path: str, cookies: bytes) -> dict[str, Any]:
    headers = {b"host": b"127.0.0.1", b"cookie": cookies, b"accept-encoding": b"gzip, br"}
    return {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "root_path": "",
        "headers": list(headers.items()), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "scheme": "http", "http_version": "1.1",
    }  # fmt: skip


def compare(other: Version, this: Version, times: int, only: str) -> None:
    print(f"{'':40} {'CPU, ms':>17} {'ratio':>7} {'ms':>17} {'ratio':>7}")
    for what, (page, change) in MEASURED.items():
        if only not in what.lower():
            continue
        took: dict[Version, list[tuple[float, float]]] = {other: [], this: []}
        for number in range(times + 5):
            # Neither is always the second.
            for version in (other, this) if number % 2 else (this, other):
                figures = version.ask(page, change)
                if number >= 5:  # the first ones fill caches
                    took[version].append(figures)
        line = f"{what:40}"
        for kind in range(2):
            before, after = (
                p(0.5, [one[kind] for one in took[version]]) for version in (other, this)
            )
            line += f" {before:8.2f} {after:8.2f} {after / before:7.2f}"
        print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, help="the version to compare with")
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--postgres", default="", help="a server, as postgres://…/database")
    parser.add_argument("--only", default="", help="a word: only the pages that it names")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.answer:
        answer(chosen.checkout, chosen.postgres)
        return 0
    if chosen.checkout is None and not chosen.postgres:
        parser.error("name a checkout, or a server to compare SQLite with")
    other = (
        Version(chosen.checkout.resolve(), chosen.postgres)
        if chosen.checkout
        else Version(running.ROOT, "")
    )
    this = Version(running.ROOT, chosen.postgres)
    try:
        compare(other, this, 20 if chosen.quick else 100, chosen.only.lower())
    finally:
        other.stop()
        this.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
