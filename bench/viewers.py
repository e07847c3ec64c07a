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

from running import ROOT, Bench, Browser, Server, database, scratch, start_dashboard, start_upstream
from tables import Table, p, spread

STAMP = re.compile(rb"stamp-(\d+)")
PAGE = "/projects/shop/pipelines/storefront/release-flows/development/"
STREAMS_A_SESSION, STREAMS_AN_ACCOUNT = 50, 500  # web/live/hub.py
ACCOUNTS = 10  # of the viewers
MAKE_VIEWERS = f"""
from django.contrib.auth.models import User
for number in range({ACCOUNTS}):
    User.objects.create_user(f"viewer-{{number}}", password=f"viewer-{{number}}")
"""
RUNS = 100


# --- The server under test: this file again, in a process of its own -----------------------------


def serve() -> None:
    """Serve pages; change a run, stamped with the time, for each line of standard input."""
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
    keys = _seed()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]} {keys[0]}", flush=True)
    connection.close()
    threading.Thread(target=_change_on_request, args=[keys], daemon=True).start()
    run(Process(web_socket=listener, runs_sync=False))


def _seed() -> list[int]:
    from django.contrib.auth.models import User
    from django.db import transaction
    from django.utils import timezone

    from dashboard.models import ChangeCounter, Pipeline, Project, Run, Stage

    now = timezone.now()
    User.objects.create_user("ada", password="ada")
    exec(MAKE_VIEWERS)
    project = Project.objects.create(slug="shop", name="Shop", synced_at=now)
    pipeline = Pipeline.objects.create(project=project, slug="storefront", synced_at=now)
    stage = Stage.objects.create(
        pipeline=pipeline, name="Development", has_flow=True, next_sync_at=now, synced_at=now
    )
    with transaction.atomic():
        first = ChangeCounter.reserve(RUNS)
        runs = Run.objects.bulk_create(
            Run(
                stage=stage, run_id=f"run-{n}", name=f"Release {n}", status="running",
                concluded=False, in_flight=True, created_at=now, started_at=now,
                status_since=now, first_synced_at=now, synced_at=now, version=first + n,
            )
            for n in range(RUNS)
        )  # fmt: skip
    return [stage.pk, *(run.pk for run in runs)]


def _change_on_request(keys: list[int]) -> None:
    from django.db import transaction

    from dashboard.models.runs import mark_changed

    for number, _ in enumerate(sys.stdin):
        with transaction.atomic():
            # Before the commit, so that the measurement includes the write.
            mark_changed([keys[1 + number % RUNS]], step=f"stamp-{time.monotonic_ns()}")


# --- The viewers ----------------------------------------------------------------------------------


class Viewer(asyncio.Protocol):
    """One open stream; records when each change arrives."""

    def __init__(self, request: bytes, open_: set["Viewer"], ages: list[float]) -> None:
        self.request, self.open, self.ages = request, open_, ages
        self.begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.open.add(self)
        cast("asyncio.Transport", transport).write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.begun:
            assert data.startswith(b"HTTP/1.1 200"), data[:200]
            self.begun = True
        if match := STAMP.search(data):
            self.ages.append((now - int(match[1])) / 1e6)

    def connection_lost(self, _: Exception | None) -> None:
        self.open.discard(self)


class Crowd:
    """All viewers of this process."""

    def __init__(self, url: str, key: str, viewers: int) -> None:
        self.key = key
        assert viewers <= ACCOUNTS * STREAMS_AN_ACCOUNT, "more viewers than a process serves"
        count = math.ceil(viewers / STREAMS_A_SESSION)
        self.browsers = [Browser(url) for _ in range(count)]  # each with a session of its own
        for number, browser in enumerate(self.browsers):
            browser.sign_in(f"viewer-{number % ACCOUNTS}")
        self.open: set[Viewer] = set()
        self.ages: list[float] = []

    def _request(self, browser: Browser, since: int) -> bytes:
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        return (
            f"GET /live/?page=stage&key={self.key}&since={since} HTTP/1.1\r\n"
            f"Host: {browser.host}\r\nCookie: {cookies}\r\n"
            "Accept: text/event-stream\r\nHX-Request: true\r\n\r\n"
        ).encode()

    async def grow(self, size: int, since: int) -> None:
        """Open streams until there are `size`."""
        loop = asyncio.get_running_loop()
        while len(self.open) < size:
            browser = self.browsers[len(self.open) // STREAMS_A_SESSION]
            request, (host, _, port) = self._request(browser, since), browser.host.rpartition(":")
            free = STREAMS_A_SESSION - len(self.open) % STREAMS_A_SESSION
            await asyncio.gather(
                *(
                    loop.create_connection(
                        partial(Viewer, request, self.open, self.ages), host, int(port)
                    )
                    for _ in range(min(25, free, size - len(self.open)))
                )
            )
            await asyncio.sleep(0.02)
        until = time.monotonic() + 60
        while not all(viewer.begun for viewer in self.open):
            assert time.monotonic() < until, "not every stream began"
            await asyncio.sleep(0.05)
        self.ages.clear()


def start(bench: Bench, postgres: str) -> tuple[Server, Browser, str]:
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
    url, key = process.stdout.readline().decode().split()
    server = Server(process, url, time.perf_counter())
    bench.running.append(server)
    browser = Browser(url)
    browser.sign_in("ada")
    return server, browser, key


async def watch(
    table: Table, server: Server, crowd: Crowd, viewers: int, since: int, quick: bool
) -> None:
    """Let a crowd open a page, and measure the idle server."""
    already = len(crowd.open)
    before = server.memory_mb()[0]
    cpu = server.cpu_ms()
    await crowd.grow(viewers, since)
    new_viewers = max(viewers - already, 1)
    opening = (server.cpu_ms() - cpu) / new_viewers
    kilobytes = (server.memory_mb()[0] - before) * 1024 / new_viewers
    table.add("memory for each viewer", f"{kilobytes:.1f} KB", target="< 40 KB", met=kilobytes < 40)
    table.add("CPU to open a stream", f"{opening:.1f} ms")
    await asyncio.sleep(6)
    seconds = 15 if quick else 60
    cpu = server.cpu_ms()
    await asyncio.sleep(seconds)
    rest = (server.cpu_ms() - cpu) / seconds / 10
    table.add(f"idle, share of a core ({seconds} s)", f"{rest:.2f} %", target="< 2 %", met=rest < 2)


async def change(table: Table, server: Server, crowd: Crowd, viewers: int, quick: bool) -> None:
    """Change runs, and record when each viewer gets the change."""
    stdin = server.process.stdin
    assert stdin
    changes = 20 if quick else 60
    cpu = server.cpu_ms()
    for _ in range(changes):
        stdin.write(b"\n")
        stdin.flush()
        await asyncio.sleep(0.5)
    await asyncio.sleep(1)
    spent = (server.cpu_ms() - cpu) / changes
    got, expected = len(crowd.ages), changes * viewers
    late = p(0.95, crowd.ages)
    table.add(
        f"from commit to the viewer ({changes} changes)",
        f"{spread(crowd.ages)}, max {max(crowd.ages):.0f} ms",
        target="p95 < 100 ms",
        met=late < 100,
    )
    table.add("arrived", f"{got} of {expected}", target="all", met=got == expected)
    table.add("CPU for each change, all viewers", f"{spent:.0f} ms")


async def end(table: Table, bench: Bench, server: Server, crowd: Crowd) -> None:
    """Stop the server with all streams open."""
    start_time = time.perf_counter()
    server.process.send_signal(signal.SIGINT)
    await asyncio.to_thread(server.process.wait, 30)
    took = time.perf_counter() - start_time
    await asyncio.sleep(0.2)
    code, open_count = server.process.returncode, len(crowd.open)
    table.add(
        "shutdown with all streams open",
        f"{took:.2f} s, exit {code}, {open_count} left",
        target="clean",
        met=code == 0 and not open_count,
    )
    bench.running.remove(server)


async def measure(table: Table, bench: Bench, *, viewers: int, quick: bool, postgres: str) -> None:
    """Let a crowd watch one page: memory, idle CPU, changes, and shutdown."""
    server, browser, key = start(bench, postgres)
    match = re.search(r"since=(\d+)", browser.ask(PAGE).text)
    assert match is not None
    crowd, since = Crowd(server.url, key, viewers), int(match[1])
    await crowd.grow(1, since)
    for _ in range(5):  # until each of the server's threads has its connection
        requests = (asyncio.to_thread(browser.twin().ask, PAGE) for _ in range(8))
        await asyncio.gather(*requests)
    await crowd.grow(min(100, viewers), since)
    connections = {len(crowd.open): _connections(postgres)}
    await watch(table, server, crowd, viewers, since, quick)
    connections[viewers] = _connections(postgres)
    await change(table, server, crowd, viewers, quick)
    if postgres:
        is_constant = len(set(connections.values())) == 1
        counts_text = ", ".join(f"{count} with {size}" for size, count in connections.items())
        table.add("PostgreSQL connections", counts_text, target="the same", met=is_constant)
    await end(table, bench, server, crowd)


async def upstream(table: Table, bench: Bench, *, viewers: int, quick: bool) -> None:
    """Count the requests to Northflank with 1, 100 and all viewers."""
    sandbox = start_upstream(bench, "--rate-limit", "1000")
    server, browser = start_dashboard(bench, sandbox)
    settings = {"NORTHFLANK_API_TOKEN": "sandbox"}
    bench.manage("shell", "--no-imports", "--command", MAKE_VIEWERS, **settings)
    for _ in range(100):
        page = browser.ask(PAGE)
        match = re.search(r"key=(\d+)&amp;since=(\d+)", page.text)
        if page.status == 200 and match:
            break
        await asyncio.sleep(0.2)
    assert match is not None
    crowd = Crowd(server.url, match[1], viewers)
    await asyncio.sleep(30)  # everything was read once by then
    seconds = 40 if quick else 120
    counts = []
    for size in (1, 100, viewers):
        await crowd.grow(size, int(match[2]))
        await asyncio.sleep(6)  # views are recorded, and a new plan is made
        before = _requests(sandbox.port)
        await asyncio.sleep(seconds)
        counts.append(_requests(sandbox.port) - before - 1)
    counts_text = ", ".join(
        f"{n} with {size}" for n, size in zip(counts, (1, 100, viewers), strict=True)
    )
    near = max(counts) - min(counts) <= max(4, 0.15 * max(counts))
    table.add(
        f"upstream requests in {seconds} s", counts_text, target="the same within 15 %", met=near
    )


def _requests(port: int) -> int:
    import http.client

    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    link.request("GET", "/v1/projects", headers={"Authorization": "Bearer sandbox"})
    answer = link.getresponse()
    answer.read()
    link.close()
    return int(answer.headers["x-ratelimit-limit"]) - int(answer.headers["x-ratelimit-remaining"])


def _connections(postgres: str) -> int:
    if not postgres:
        return 0
    import psycopg

    with psycopg.connect(postgres) as link:
        row = link.execute(
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
            uvloop.run(measure(table, bench, postgres=url, **arguments))
    if "upstream" in options.parts and not options.postgres:
        with scratch() as bench:
            uvloop.run(upstream(table, bench, **arguments))
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
