"""Pages for eight people of one group: unchanged, after a change elsewhere, after a change on them.

    uv run bench/people.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch database with 10,000 runs in 24 stages, 50 of them in flight, and 100 aborts, and
starts a server without sync. Eight release managers, each with a session and a connection of their
own, request a page in turn, one at a time and then all at once. Changes are written by this process
as the sync writes them. CPU is that of the server's process. Prints a table, and exits with 1 if a
target is missed.
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
from running import ROOT, Browser, Server, database, parse_options, scratch
from tables import Table, p

PEOPLE, RUNS = 8, 10_000
STAGE = "/projects/bench/pipelines/p0/release-flows/development/"
PAGES = {
    "Stage, 100 rows": STAGE,
    "Now, 50 in flight": "/",
    "Abort log, 100 aborts": "/aborts/",
    "Board, 24 stages": "/board/",
    "Run": f"{STAGE}runs/in-flight-0/",
    "Status": "/status/",
}
CACHED = ("Stage, 100 rows", "Now, 50 in flight", "Abort log, 100 aborts")
# Milliseconds of CPU after a change on the page, with the rows of other runs cached.
CHANGED = {
    "Stage, 100 rows": 4,
    "Now, 50 in flight": 5,
    "Board, 24 stages": 6,
    "Run": 4,
    "Status": 4,
}
HEALTH = "/healthz"


class Person:
    """A user with a session and a kept-alive connection; costs as little CPU as possible."""

    def __init__(self, url: str, name: str) -> None:
        browser = Browser(url)
        browser.sign_in(name)
        self.name, self.address = name, urlsplit(url)
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
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._receive_some()
        return body

    def ask(self, path: str) -> float:
        """Return the milliseconds that a page takes."""
        started = time.perf_counter()
        self.send(path)
        self.receive()
        return (time.perf_counter() - started) * 1000

    def _receive_some(self) -> bytes:
        data = self.socket.recv(1 << 18)
        assert data, "the server closed the connection"
        return data


def in_turn(people: list[Person], path: str, times: int) -> list[float]:
    return [people[number % len(people)].ask(path) for number in range(times)]


def at_once(people: list[Person], path: str, seconds: float) -> float:
    """Return the requests a second of all people together, each asking again once answered."""
    with selectors.DefaultSelector() as selector:
        for person in people:
            selector.register(person.socket, selectors.EVENT_READ, person)
            person.send(path)
        count, until = 0, time.perf_counter() + seconds
        started = time.perf_counter()
        while time.perf_counter() < until:
            for key, _events in selector.select():
                key.data.receive()
                count += 1
                key.data.send(path)
        took = time.perf_counter() - started
        for person in people:
            person.receive()
    return count / took


@dataclass
class Changes:
    """Changes of runs, as the sync writes them."""

    stage_keys: list[int]
    number: int = 0

    def elsewhere(self) -> None:
        self._change(1, 0)

    def on_the_pages(self) -> None:
        self._change(0, 0)

    def all_rows(self) -> None:
        from dashboard.models import Run

        runs = Run.objects.filter(stage=self.stage_keys[0]).newest_first()
        self._mark(runs.values_list("pk", flat=True)[:100])

    def an_abort(self) -> None:
        from dashboard.models import Abort

        self._mark(Abort.objects.order_by("-pk").values_list("run", flat=True)[:1])

    def _change(self, stage: int, run: int) -> None:
        from dashboard.models import Run

        runs = Run.objects.in_flight().filter(stage=self.stage_keys[stage]).order_by("pk")
        self.number += 1
        self._mark([runs[run].pk], step=f"Step {self.number}")

    def _mark(self, runs: Iterable[int], **fields: str) -> None:
        from django.db import transaction

        from dashboard.models.runs import mark_changed

        with transaction.atomic():
            mark_changed(runs, **fields)


def fill_database() -> Changes:
    """Create people, runs and aborts in the empty database of this process's settings."""
    import django

    django.setup()
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command
    from django.utils import timezone

    from dashboard.models import CatalogSync, Project

    call_command("migrate", verbosity=0)
    group = Group.objects.get(name="Release managers")
    for number in range(PEOPLE):
        user = User.objects.create_user(f"person-{number}", password=f"person-{number}")
        user.groups.add(group)
    stages = growth.create_stages()
    growth.create_first_runs(stages, user)
    growth.create_runs(1, RUNS, stages)
    for project in (None, Project.objects.get()):
        now = timezone.now()
        CatalogSync.objects.create(project=project, synced_at=now, next_sync_at=now)
    return Changes([stage.pk for stage in stages])


@contextmanager
def dashboard(server: str) -> Iterator[tuple[Server, list[Person], Changes]]:
    """Fill a database and serve it."""
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
            people = [Person(process.url, f"person-{number}") for number in range(PEOPLE)]
            yield process, people, changes
        finally:
            bench.stop(process)
            connection.close()


def measure(table: Table, server: str, quick: bool) -> None:
    times, seconds = (40, 2.0) if quick else (400, 5.0)
    with dashboard(server) as (process, people, changes):
        where = "PostgreSQL" if server else "SQLite"
        health = p(0.5, in_turn(people, HEALTH, times))
        rate = at_once(people, HEALTH, seconds)
        table.add(f"{where}: {HEALTH}, for comparison", f"p50 {health:.2f} ms, {rate:,.0f}/s")
        for name, path in PAGES.items():
            for person in people:  # only the first of them renders it
                person.connect()
                person.send(path)
                assert person.name in gzip.decompress(person.receive()).decode()
            times_ms = in_turn(people, path, times)
            rate = at_once(people, path, seconds)
            met = p(0.5, times_ms) <= 1 and rate >= 2_000 if name in CACHED else None
            table.add(
                f"{where}: {name}, unchanged",
                f"p50 {p(0.5, times_ms):.2f}, p95 {p(0.95, times_ms):.2f} ms, {rate:,.0f}/s",
                target="<= 1 ms, >= 2,000/s" if name in CACHED else "", met=met,
            )  # fmt: skip
            if name == "Stage, 100 rows":
                elsewhere, _cpu = after(changes.elsewhere, process, people, path, times // 4)
                table.add(
                    f"{where}: ... after a change elsewhere", f"p50 {elsewhere:.2f} ms",
                    target="<= 1 ms", met=elsewhere <= 1,
                )  # fmt: skip
            if name in CHANGED:
                ms, cpu = after(changes.on_the_pages, process, people, path, times // 4)
                table.add(
                    f"{where}: {name}, after a change on it", f"p50 {ms:.1f} ms, CPU {cpu:.1f} ms",
                    target=f"CPU <= {CHANGED[name]} ms", met=cpu <= CHANGED[name],
                )  # fmt: skip
            if name == "Stage, 100 rows":
                ms, cpu = after(changes.all_rows, process, people, path, times // 8)
                table.add(
                    f"{where}: ... no row cached", f"p50 {ms:.1f} ms, CPU {cpu:.1f} ms",
                    target="CPU <= 10 ms", met=cpu <= 10,
                )  # fmt: skip


def after(
    change: Callable[[], None], process: Server, people: list[Person], path: str, times: int
) -> tuple[float, float]:
    """Return the median milliseconds of a request after a change, and the server's mean CPU."""
    for person in people:
        person.connect()
    took, before = [], process.cpu_ms()
    for number in range(times):
        change()
        took.append(people[number % len(people)].ask(path))
    return p(0.5, took), (process.cpu_ms() - before) / times


def main() -> int:
    chosen = parse_options(__doc__, "fewer requests")
    table = Table()
    measure(table, chosen.postgres, chosen.quick)
    table.show()
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} cores", flush=True)
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
