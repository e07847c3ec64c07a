"""Pages for eight users of one group: unchanged, and after a change on them.

    uv run bench/people.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch database with 10,000 runs in 24 stages, 50 of them in flight, and 100 aborts, and
starts a server without sync. Eight release managers, each with a session and a connection of their
own, request a page in turn, and then concurrently. Changes are written by this process as the sync
writes them. CPU is that of the server's process. Prints a table, and exits with 1 if a target is
missed.
"""

import gzip
import os
import platform
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import growth
from processes import ROOT, Browser, Server, database, parse_options, scratch
from tables import Table, quantile

VIEWERS, RUNS = 8, 10_000
STAGE = "/projects/bench/pipelines/p0/release-flows/development/"
PAGES = {
    "Stage, 100 rows": STAGE,
    "Now, 50 in flight": "/",
    "Abort log, 100 aborts": "/aborts/",
    "Board, 24 stages": "/board/",
    "Run": f"{STAGE}runs/in-flight-0/",
    "Status": "/health/",
}
# Milliseconds of CPU after a change on the page, while the rows of other runs are cached.
CPU_TARGETS = {
    "Stage, 100 rows": 4,
    "Now, 50 in flight": 5,
    "Board, 24 stages": 6,
    "Run": 4,
    "Status": 4,
}
HEALTH_PATH = "/healthz"


class Viewer:
    """A user with a session and a kept-alive connection; uses as little CPU as possible."""

    def __init__(self, url: str, username: str) -> None:
        browser = Browser(url)
        browser.sign_in(username)
        self.username, self.address = username, urlsplit(url)
        cookies = "; ".join(f"{key}={value}" for key, value in browser.cookies.items())
        self.headers = (
            f"Host: {self.address.netloc}\r\nCookie: {cookies}\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        self.connect()

    def connect(self) -> None:
        """Open a new connection: the server closes one that was idle for some seconds."""
        self.socket = socket.create_connection((self.address.hostname, self.address.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, path: str) -> None:
        self.socket.sendall(f"GET {path} HTTP/1.1\r\n{self.headers}".encode())

    def receive(self) -> bytes:
        """Return the body of the next response."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._receive_some()
        return body

    def measure(self, path: str) -> float:
        """Request a page; return its milliseconds."""
        started = time.perf_counter()
        self.send(path)
        self.receive()
        return (time.perf_counter() - started) * 1000

    def _receive_some(self) -> bytes:
        data = self.socket.recv(1 << 18)
        assert data, "the server closed the connection"
        return data


def request_in_turn(viewers: list[Viewer], path: str, times: int) -> list[float]:
    """Return the milliseconds of each request."""
    return [viewers[number % len(viewers)].measure(path) for number in range(times)]


def request_concurrently(viewers: list[Viewer], path: str, seconds: float) -> float:
    """Return the requests a second of all viewers, each of which has one request under way."""
    with selectors.DefaultSelector() as selector:
        for viewer in viewers:
            selector.register(viewer.socket, selectors.EVENT_READ, viewer)
            viewer.send(path)
        count, started = 0, time.perf_counter()
        while time.perf_counter() < started + seconds:
            for key, _events in selector.select():
                key.data.receive()
                count += 1
                key.data.send(path)
        duration = time.perf_counter() - started
        for viewer in viewers:
            viewer.receive()
    return count / duration


@dataclass
class Changes:
    """Changes of runs, as the sync writes them."""

    stage_keys: list[int]
    step_number: int = 0

    def change_shown_run(self) -> None:
        """Change the run of PAGES, which its stage's page and Now show too."""
        self._change_step(self.stage_keys[0])

    def change_all_rows(self) -> None:
        """Change the hundred runs of the stage's page."""
        from dashboard.models import Run

        runs = Run.objects.filter(stage=self.stage_keys[0]).newest_first()
        self._mark_changed(runs.values_list("pk", flat=True)[:100])

    def change_aborted_run(self) -> None:
        """Change the run of the newest abort."""
        from dashboard.models import Abort

        self._mark_changed(Abort.objects.order_by("-pk").values_list("run_id", flat=True)[:1])

    def _change_step(self, stage_key: int) -> None:
        from dashboard.models import Run

        runs = Run.objects.in_flight().filter(stage=stage_key).order_by("pk")
        self.step_number += 1
        self._mark_changed([runs[0].pk], step=f"Step {self.step_number}")

    def _mark_changed(self, run_keys: Iterable[int], **fields: str) -> None:
        from django.db import transaction

        from dashboard.models.runs import mark_changed

        with transaction.atomic():
            mark_changed(run_keys, **fields)


def fill_database() -> Changes:
    """Create users, runs and aborts in the empty database of this process's settings."""
    import django

    django.setup()
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command
    from django.utils import timezone

    from dashboard.models import CatalogSync, Project

    call_command("migrate", verbosity=0)
    group = Group.objects.get(name="Release managers")
    for number in range(VIEWERS):
        user = User.objects.create_user(f"viewer-{number}", password=f"viewer-{number}")
        user.groups.add(group)
    stages = growth.create_stages()
    growth.create_first_runs(stages, user)
    growth.create_runs(1, RUNS, stages)
    for project in (None, Project.objects.get()):
        now = timezone.now()
        CatalogSync.objects.create(project=project, synced_at=now, next_sync_at=now)
    return Changes([stage.pk for stage in stages])


@contextmanager
def serve_dashboard(server: str) -> Iterator[tuple[Server, list[Viewer], Changes]]:
    """Fill a database and serve it, on SQLite if `server` is empty."""
    sys.path.insert(0, str(ROOT))
    with scratch() as bench, database(server) as url:
        settings = {"NORTHFLANK_API_TOKEN": "sandbox", "LOG_LEVEL": "ERROR"}
        settings |= {"DATABASE_URL": url} if url else {}
        os.environ.update(bench.environment(settings))
        os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
        changes = fill_database()
        from django.db import connection

        process = bench.start("serve", "--no-sync", "--port", "0", **settings)
        try:
            viewers = [Viewer(process.url, f"viewer-{number}") for number in range(VIEWERS)]
            yield process, viewers, changes
        finally:
            bench.stop(process)
            connection.close()


def measure(table: Table, server: str, quick: bool) -> None:
    times, seconds = (40, 2.0) if quick else (400, 5.0)
    with serve_dashboard(server) as (process, viewers, changes):
        vendor = "PostgreSQL" if server else "SQLite"
        health_ms = quantile(0.5, request_in_turn(viewers, HEALTH_PATH, times))
        rate = request_concurrently(viewers, HEALTH_PATH, seconds)
        table.add(
            f"{vendor}: {HEALTH_PATH}, for comparison",
            f"p50 {health_ms:.2f} ms, {rate:,.0f}/s",
        )
        for name, path in PAGES.items():
            for viewer in viewers:  # only the first of them renders it
                viewer.connect()
                viewer.send(path)
                assert viewer.username in gzip.decompress(viewer.receive()).decode()
            times_ms = request_in_turn(viewers, path, times)
            rate = request_concurrently(viewers, path, seconds)
            p50 = quantile(0.5, times_ms)
            table.add(
                f"{vendor}: {name}, unchanged",
                f"p50 {p50:.2f}, p95 {quantile(0.95, times_ms):.2f} ms, {rate:,.0f}/s",
                target="<= 1 ms, >= 2,000/s", met=p50 <= 1 and rate >= 2_000,
            )  # fmt: skip
            if name in CPU_TARGETS:
                ms, cpu = measure_after_change(
                    changes.change_shown_run, process, viewers, path, times // 4
                )
                table.add(
                    f"{vendor}: {name}, after a change on it", f"p50 {ms:.1f} ms, CPU {cpu:.1f} ms",
                    target=f"CPU <= {CPU_TARGETS[name]} ms", met=cpu <= CPU_TARGETS[name],
                )  # fmt: skip
            if name == "Stage, 100 rows":
                ms, cpu = measure_after_change(
                    changes.change_all_rows, process, viewers, path, times // 8
                )
                table.add(
                    f"{vendor}: ... no row cached", f"p50 {ms:.1f} ms, CPU {cpu:.1f} ms",
                    target="CPU <= 10 ms", met=cpu <= 10,
                )  # fmt: skip


def measure_after_change(
    change: Callable[[], None], process: Server, viewers: list[Viewer], path: str, times: int
) -> tuple[float, float]:
    """Return the median milliseconds of a request after a change, and the server's mean CPU."""
    for viewer in viewers:
        viewer.connect()
    times_ms, cpu_before = [], process.cpu_ms()
    for number in range(times):
        change()
        times_ms.append(viewers[number % len(viewers)].measure(path))
    return quantile(0.5, times_ms), (process.cpu_ms() - cpu_before) / times


def main() -> int:
    options = parse_options(__doc__, "fewer requests")
    table = Table()
    measure(table, options.postgres, options.quick)
    table.show()
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} cores", flush=True)
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
