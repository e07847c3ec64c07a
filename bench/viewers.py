"""Cost of a thousand open pages, and time until they show a change.

    uv run bench/viewers.py [--quick] [--viewers 1000] [--postgres URL] [pages upstream]

One server process with this many event streams, on SQLite or, with the address of a server where a
database can be created, on PostgreSQL. Prints a table; exits with 1 if a target is missed.
"""

import argparse
import asyncio
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from typing import cast

from processes import (
    ROOT,
    Bench,
    Browser,
    Server,
    database,
    scratch,
    start_dashboard,
    start_upstream,
)
from tables import Table, format_quantiles, quantile

CHANGE_TIME = re.compile(rb"stamp-(\d+)")  # in the step of a changed run, in ns of time.monotonic
PAGE = "/projects/shop/pipelines/storefront/release-flows/development/"
STREAMS_PER_ACCOUNT = 50  # the limit of web/live/hub.py
ACCOUNTS = 100
CREATE_ACCOUNTS = f"""
from django.contrib.auth.models import User
for number in range({ACCOUNTS}):
    User.objects.create_user(f"viewer-{{number}}", password=f"viewer-{{number}}")
"""
RUNS = 100


# --- The server under test: this file again, in a process of its own -----------------------------


def serve() -> None:
    """Serve pages; for each line of standard input, change a run to contain the time."""
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
    sys.path.insert(0, str(ROOT))
    django.setup()
    import socket
    import threading

    from django.core.management import call_command
    from django.db import connection

    from dashboard.management.commands.serve import run
    from dashboard.server.process import Process

    call_command("migrate", verbosity=0)
    stage_key, run_keys = _seed_database()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]} {stage_key}", flush=True)
    connection.close()
    threading.Thread(target=_change_runs_on_request, args=[run_keys], daemon=True).start()
    run(Process(web_socket=listener, runs_sync=False))


def _seed_database() -> tuple[int, list[int]]:
    """Create a stage with its runs; return their primary keys."""
    from django.contrib.auth.models import User
    from django.db import transaction
    from django.utils import timezone

    from dashboard.models import ChangeCounter, Pipeline, Project, Run, Stage

    now = timezone.now()
    User.objects.create_user("ada", password="ada")
    exec(CREATE_ACCOUNTS)
    project = Project.objects.create(slug="shop", name="Shop", synced_at=now)
    pipeline = Pipeline.objects.create(project=project, slug="storefront", synced_at=now)
    stage = Stage.objects.create(
        pipeline=pipeline, name="Development", has_flow=True, next_sync_at=now, synced_at=now
    )
    with transaction.atomic():
        first_version = ChangeCounter.take(RUNS)
        runs = Run.objects.bulk_create(
            Run(
                stage=stage, run_id=f"run-{n}", name=f"Release {n}", status="running",
                concluded=False, in_flight=True, created_at=now, started_at=now,
                status_since=now, first_synced_at=now, synced_at=now, version=first_version + n,
            )
            for n in range(RUNS)
        )  # fmt: skip
    return stage.pk, [run.pk for run in runs]


def _change_runs_on_request(run_keys: list[int]) -> None:
    from django.db import transaction

    from dashboard.models.runs import mark_changed

    for number, _ in enumerate(sys.stdin):
        with transaction.atomic():
            # Before the commit, so that the measurement includes the write.
            mark_changed([run_keys[number % RUNS]], step=f"stamp-{time.monotonic_ns()}")


# --- The viewers ----------------------------------------------------------------------------------


class Viewer(asyncio.Protocol):
    """One open stream, a member of `viewers`; adds each change's milliseconds to `latencies`."""

    def __init__(self, request: bytes, viewers: set["Viewer"], latencies: list[float]) -> None:
        self.request, self.viewers, self.latencies = request, viewers, latencies
        self.has_response = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.viewers.add(self)
        cast("asyncio.Transport", transport).write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.has_response:
            assert data.startswith(b"HTTP/1.1 200"), data[:200]
            self.has_response = True
        if match := CHANGE_TIME.search(data):
            self.latencies.append((now - int(match[1])) / 1e6)

    def connection_lost(self, _: Exception | None) -> None:
        self.viewers.discard(self)


class ViewerGroup:
    """All viewers of a stage's page: their sessions, open streams and latencies."""

    def __init__(self, url: str, stage_key: str, max_viewers: int) -> None:
        self.stage_key = stage_key
        assert max_viewers <= ACCOUNTS * STREAMS_PER_ACCOUNT, "more viewers than a process serves"
        count = math.ceil(max_viewers / STREAMS_PER_ACCOUNT)
        self.browsers = [Browser(url) for _ in range(count)]  # each with a session of its own
        for number, browser in enumerate(self.browsers):
            browser.sign_in(f"viewer-{number % ACCOUNTS}")
        self.viewers: set[Viewer] = set()
        self.latencies: list[float] = []

    def _build_request(self, browser: Browser, since: str) -> bytes:
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        return (
            f"GET /live/?page=stage&key={self.stage_key}&since={since} HTTP/1.1\r\n"
            f"Host: {browser.host}\r\nCookie: {cookies}\r\n"
            "Accept: text/event-stream\r\nHX-Request: true\r\n\r\n"
        ).encode()

    async def open_streams(self, size: int, since: str) -> None:
        """Open streams since this version until there are `size`; discard earlier latencies."""
        loop = asyncio.get_running_loop()
        while len(self.viewers) < size:
            browser = self.browsers[len(self.viewers) // STREAMS_PER_ACCOUNT]
            request = self._build_request(browser, since)
            host, _, port = browser.host.rpartition(":")
            session_capacity = STREAMS_PER_ACCOUNT - len(self.viewers) % STREAMS_PER_ACCOUNT
            await asyncio.gather(
                *(
                    loop.create_connection(
                        partial(Viewer, request, self.viewers, self.latencies), host, int(port)
                    )
                    for _ in range(min(25, session_capacity, size - len(self.viewers)))
                )
            )
            await asyncio.sleep(0.02)
        deadline = time.monotonic() + 60
        while not all(viewer.has_response for viewer in self.viewers):
            assert time.monotonic() < deadline, "a stream has no response"
            await asyncio.sleep(0.05)
        self.latencies.clear()


def start_server(bench: Bench, postgres: str) -> tuple[Server, Browser, str]:
    """Start the server under test; return it, a signed-in browser, and its stage's key."""
    settings = {"NORTHFLANK_API_TOKEN": "unused", "SECRET_KEY": "bench-" + "x" * 50}
    if postgres:
        settings["DATABASE_URL"] = postgres
    with bench.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            cwd=ROOT,
            env=bench.environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout
    url, stage_key = process.stdout.readline().decode().split()
    server = Server(process, url, time.perf_counter())
    bench.running.append(server)
    browser = Browser(url)
    browser.sign_in("ada")
    return server, browser, stage_key


async def measure_idle(
    table: Table, server: Server, group: ViewerGroup, viewers: int, since: str, quick: bool
) -> None:
    """Open the streams of `viewers`, and measure the idle server."""
    new_viewers = max(viewers - len(group.viewers), 1)
    memory_before = server.memory_mb()[0]
    cpu_before = server.cpu_ms()
    await group.open_streams(viewers, since)
    opening_ms = (server.cpu_ms() - cpu_before) / new_viewers
    kilobytes = (server.memory_mb()[0] - memory_before) * 1024 / new_viewers
    table.add("memory for each viewer", f"{kilobytes:.1f} KB", target="< 40 KB", met=kilobytes < 40)
    table.add("CPU to open a stream", f"{opening_ms:.1f} ms")
    await asyncio.sleep(6)
    seconds = 15 if quick else 60
    cpu_before = server.cpu_ms()
    await asyncio.sleep(seconds)
    share = (server.cpu_ms() - cpu_before) / seconds / 10
    table.add(
        f"idle, share of a core ({seconds} s)", f"{share:.2f} %", target="< 2 %", met=share < 2
    )


async def measure_changes(
    table: Table, server: Server, group: ViewerGroup, viewers: int, quick: bool
) -> None:
    """Change runs, and measure when each viewer gets the changes."""
    stdin = server.process.stdin
    assert stdin
    changes = 20 if quick else 60
    cpu_before = server.cpu_ms()
    for _ in range(changes):
        stdin.write(b"\n")
        stdin.flush()
        await asyncio.sleep(0.5)
    await asyncio.sleep(1)
    cpu_per_change = (server.cpu_ms() - cpu_before) / changes
    count, expected_count = len(group.latencies), changes * viewers
    table.add(
        f"from commit to the viewer ({changes} changes)",
        f"{format_quantiles(group.latencies)}, max {max(group.latencies):.0f} ms",
        target="p95 < 100 ms",
        met=quantile(0.95, group.latencies) < 100,
    )
    table.add(
        "messages that arrived",
        f"{count} of {expected_count}",
        target="all",
        met=count == expected_count,
    )
    table.add("CPU for each change, all viewers", f"{cpu_per_change:.0f} ms")


async def measure_shutdown(table: Table, bench: Bench, server: Server, group: ViewerGroup) -> None:
    """Stop the server with all streams open."""
    started_at = time.perf_counter()
    server.process.send_signal(signal.SIGINT)
    await asyncio.to_thread(server.process.wait, 30)
    duration = time.perf_counter() - started_at
    await asyncio.sleep(0.2)
    code, open_count = server.process.returncode, len(group.viewers)
    table.add(
        "shutdown with all streams open",
        f"{duration:.2f} s, exit {code}, {open_count} streams open",
        target="clean",
        met=code == 0 and not open_count,
    )
    bench.running.remove(server)


async def measure_page(
    table: Table, bench: Bench, *, viewers: int, quick: bool, postgres: str
) -> None:
    """Measure one page with many viewers: memory, idle CPU, changes, and shutdown."""
    server, browser, stage_key = start_server(bench, postgres)
    match = re.search(r"since=([\w.-]+)", browser.request(PAGE).text)
    assert match is not None
    group, since = ViewerGroup(server.url, stage_key, viewers), match[1]
    await group.open_streams(1, since)
    for _ in range(5):  # until each of the server's threads has its connection
        requests = (asyncio.to_thread(browser.new_connection().request, PAGE) for _ in range(8))
        await asyncio.gather(*requests)
    await group.open_streams(min(100, viewers), since)
    connections = {len(group.viewers): count_connections(postgres)}
    await measure_idle(table, server, group, viewers, since, quick)
    connections[viewers] = count_connections(postgres)
    await measure_changes(table, server, group, viewers, quick)
    if postgres:
        is_constant = len(set(connections.values())) == 1
        counts_text = ", ".join(f"{count} with {size}" for size, count in connections.items())
        table.add("PostgreSQL connections", counts_text, target="the same", met=is_constant)
    await measure_shutdown(table, bench, server, group)


async def measure_upstream_requests(
    table: Table, bench: Bench, *, viewers: int, quick: bool
) -> None:
    """Count the requests to Northflank with 1, 100 and all viewers."""
    sandbox = start_upstream(bench, "--rate-limit", "1000")
    server, browser = start_dashboard(bench, sandbox)
    settings = {"NORTHFLANK_API_TOKEN": "sandbox"}
    bench.manage("shell", "--no-imports", "--command", CREATE_ACCOUNTS, **settings)
    browser = browser.new_connection()  # the server closes idle connections
    for _ in range(100):
        page = browser.request(PAGE)
        match = re.search(r"key=(\d+)&amp;since=([\w.-]+)", page.text)
        if page.status == 200 and match:
            break
        await asyncio.sleep(0.2)
    assert match is not None
    group = ViewerGroup(server.url, match[1], viewers)
    await asyncio.sleep(30)  # everything was read once by then
    seconds = 40 if quick else 120
    counts = []
    for size in (1, 100, viewers):
        await group.open_streams(size, match[2])
        await asyncio.sleep(6)  # views are recorded, and a new plan is made
        count_before = count_requests(sandbox.port)
        await asyncio.sleep(seconds)
        counts.append(count_requests(sandbox.port) - count_before - 1)
    counts_text = ", ".join(
        f"{count} with {size}" for count, size in zip(counts, (1, 100, viewers), strict=True)
    )
    is_constant = max(counts) - min(counts) <= max(4, 0.15 * max(counts))
    table.add(
        f"upstream requests in {seconds} s",
        counts_text,
        target="the same within 15 %",
        met=is_constant,
    )


def count_requests(port: int) -> int:
    """Return the requests that the sandbox's rate limit has counted, including this one."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/v1/projects", headers={"Authorization": "Bearer sandbox"})
    response = connection.getresponse()
    response.read()
    connection.close()
    headers = response.headers
    return int(headers["x-ratelimit-limit"]) - int(headers["x-ratelimit-remaining"])


def count_connections(postgres: str) -> int:
    """Return the connections of others to a PostgreSQL database; 0 without one."""
    if not postgres:
        return 0
    import psycopg

    with psycopg.connect(postgres) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="fewer changes, shorter waits")
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--postgres", default="", help="postgres://user@host:port/database")
    parser.add_argument("parts", nargs="*", default=["pages", "upstream"], help="which parts")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    if options.serve:
        serve()
        return
    import uvloop

    table = Table()
    arguments = {"viewers": options.viewers, "quick": options.quick}
    if "pages" in options.parts:
        with scratch() as bench, database(options.postgres) as url:
            uvloop.run(measure_page(table, bench, postgres=url, **arguments))
    if "upstream" in options.parts and not options.postgres:
        with scratch() as bench:
            uvloop.run(measure_upstream_requests(table, bench, **arguments))
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
