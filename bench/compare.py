"""Compare two versions of the dashboard, which answer the same requests in turns.

    uv run bench/compare.py CHECKOUT [--quick] [--postgres postgres://user@host:port/database]
    uv run bench/compare.py CHECKOUT --only stage
    uv run bench/compare.py --postgres postgres://…   # this checkout, on SQLite and on that server

Each version is a process with a database of its own, filled as bench/people.py does, which handles
one request at a time with Django's handler. Before each request it writes a change, or none. Other
load on the machine slows down both alike, so the ratios hold on a busy one. CPU is the time of the
handling thread, with SQLite's but without that of a PostgreSQL server; for an abort, that of the
whole process (bench/compare_aborts.py). ms is the duration. Prints the medians; a ratio below 1
means that this checkout is the faster one.
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

import processes
from compare_aborts import AbortMeasurement
from people import PAGES, VIEWERS, fill_database
from tables import quantile

WARMUP_REQUESTS = 5  # they fill caches
STAGE, NOW, ABORTS, BOARD, RUN, STATUS = PAGES
ABORT = "abort"  # instead of a change: abort a run of the page's stage, and request no page
# By label: the page, and the method of `people.Changes` that is called before each request.
MEASUREMENTS = {
    "Stage, 100 rows, after a change": (STAGE, "change_shown_run"),
    "Stage, no row cached": (STAGE, "change_all_rows"),
    "Stage, unchanged": (STAGE, ""),
    "Now, 50 in flight, after a change": (NOW, "change_shown_run"),
    "Now, unchanged": (NOW, ""),
    "Board, 24 stages, unchanged": (BOARD, ""),
    "Board, 24 stages, after a change": (BOARD, "change_shown_run"),
    "Run, unchanged": (RUN, ""),
    "Run, after a change": (RUN, "change_shown_run"),
    "Status, after a change": (STATUS, "change_shown_run"),
    "Abort log, 100 aborts, after a change": (ABORTS, "change_aborted_run"),
    "An abort, to its response": (STAGE, ABORT),
}


class Version:
    """A process that handles requests with the code of one checkout."""

    def __init__(self, checkout: Path, server: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(checkout), "--answer", "--postgres", server],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, page: str, change: str) -> tuple[float, float]:
        """Return the milliseconds of CPU, and the duration in ms, of a request after a change."""
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


def handle_requests(checkout: Path, server: str) -> None:
    """Handle the requests on stdin; print a line for each: milliseconds of CPU, duration in ms."""
    with processes.local_django(server, checkout):
        changes = fill_database()
        from django.db import connection

        from dashboard.asgi import application

        cookies = [sign_in(f"viewer-{number}") for number in range(VIEWERS)]
        abort_measurement = AbortMeasurement(application, changes.stage_keys[0])
        for number, line in enumerate(sys.stdin):
            path, change = json.loads(line)
            cookie = cookies[number % VIEWERS]
            scope = build_scope(path, cookie)
            if change == ABORT:
                token = cookie.partition(b"csrftoken=")[2].partition(b";")[0].decode()
                print(json.dumps(abort_measurement.measure(scope, token)), flush=True)
                continue
            if change:
                getattr(changes, change)()
            started = time.thread_time(), time.perf_counter()
            status = handle_request(application, scope)
            durations = time.thread_time() - started[0], time.perf_counter() - started[1]
            assert status == 200, f"{path}: {status}"
            print(json.dumps([seconds * 1000 for seconds in durations]), flush=True)
        connection.close()


def handle_request(application: Any, scope: dict[str, Any]) -> int:
    """Handle a request on this thread, and return the status of its response."""
    # The application itself would use a thread of its own, whose CPU time is not this one's.
    response = application._handle(scope, io.BytesIO())
    status: int = response.status_code
    return status


def sign_in(username: str) -> bytes:
    """Return the cookies of a new session of a user, as a request header."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(User.objects.get(username=username))
    assert client.get("/").status_code == 200  # sets the CSRF cookie
    return "; ".join(f"{key}={cookie.value}" for key, cookie in client.cookies.items()).encode()


def build_scope(path: str, cookies: bytes) -> dict[str, Any]:
    headers = {b"host": b"127.0.0.1", b"cookie": cookies, b"accept-encoding": b"gzip, br"}
    return {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "root_path": "",
        "headers": list(headers.items()), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "scheme": "http", "http_version": "1.1",
    }  # fmt: skip


def compare(base: Version, current: Version, times: int, label_part: str) -> None:
    """Print the medians of both versions, and the ratios of `current` to `base`."""
    print(f"{'':40} {'CPU, ms':>17} {'ratio':>7} {'ms':>17} {'ratio':>7}")
    for label, (page, change) in MEASUREMENTS.items():
        if label_part not in label.lower():
            continue
        figures: dict[Version, list[tuple[float, float]]] = {base: [], current: []}
        for number in range(times + WARMUP_REQUESTS):
            # Neither is always the second.
            for version in (base, current) if number % 2 else (current, base):
                cpu_and_duration = version.measure(page, change)
                if number >= WARMUP_REQUESTS:
                    figures[version].append(cpu_and_duration)
        line = f"{label:40}"
        for column in range(2):
            base_median, current_median = (
                quantile(0.5, [row[column] for row in figures[version]])
                for version in (base, current)
            )
            ratio = current_median / base_median
            line += f" {base_median:8.2f} {current_median:8.2f} {ratio:7.2f}"
        print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, help="the version to compare with")
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--postgres", default="", help="a server, as postgres://…/database")
    parser.add_argument("--only", default="", help="only the rows whose label contains this text")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        handle_requests(options.checkout, options.postgres)
        return 0
    if options.checkout is None and not options.postgres:
        parser.error("name a checkout, or a server to compare SQLite with")
    base = (
        Version(options.checkout.resolve(), options.postgres)
        if options.checkout
        else Version(processes.ROOT, "")
    )
    current = Version(processes.ROOT, options.postgres)
    try:
        compare(base, current, 20 if options.quick else 100, options.only.lower())
    finally:
        base.stop()
        current.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
