"""Speed of the dashboard's main job: start, show a stage's runs, abort one.

    uv run bench/main_job.py [--quick] [start memory page abort slow ...]

Starts real processes on scratch databases, prints a table, and exits with 1 if a target is missed.
"""

import argparse
import contextlib
import html
import os
import platform
import re
import socket
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from running import (
    Bench,
    Browser,
    Server,
    Upstream,
    scratch,
    start_dashboard,
    start_upstream,
    wait_for,
)
from tables import Table, p, spread

# A busy stage with more than a page of a hundred runs.
BUSY = "/projects/shop/pipelines/storefront/release-flows/development/"
# Stages that allow any number of concurrent runs.
SIDE_BY_SIDE = [
    ("payments", "billing-api", "development"),
    ("shop", "search", "development"),
    ("payments", "ledger", "staging"),
    ("identity", "auth-gateway", "development"),
]
PAGES = ["/", "/board/", BUSY, "/projects/shop/pipelines/storefront/"]
HTMX = {"HX-Request": "true"}
TAKEN = "SELECT count(*) FROM dashboard_abort WHERE state IN ('accepted', 'concluded')"
RECORDED = "SELECT count(*) FROM dashboard_abort"
UNANSWERED = f"{RECORDED} WHERE state NOT IN ('accepted', 'concluded', 'too_late')"


# --- Start --------------------------------------------------------------------------------------


def start(table: Table, quick: bool) -> None:
    """Measure from the start of the process to its first page, and to runs on Now."""
    times = 1 if quick else 5
    found: dict[str, list[tuple[float, float, float]]] = {"fresh": [], "existing": []}
    targets = {"fresh": 1.0, "existing": 0.6}
    for _ in range(times):
        with scratch() as bench:
            for figures in found.values():
                server = bench.start("serve", "--port", "0")
                client = Browser(server.url)
                wait_for(lambda who=client: who.ask("/accounts/login/").status == 200, "a page")
                page = time.perf_counter() - server.started
                cpu = server.cpu_ms() / 1000
                client.sign_in("viewer")
                wait_for(lambda who=client: "data-run=" in who.ask("/").text, "runs on Now")
                figures.append((page, cpu, time.perf_counter() - server.started))
                bench.stop(server)
    for database, figures in found.items():
        page, cpu, runs = (statistics.median(column) for column in zip(*figures, strict=True))
        what = f"start to first page, {database} database (median of {times})"
        target = targets[database]
        table.add(
            what,
            f"{page:.2f} s, CPU {cpu:.2f} s",
            target=f"<= {target:.1f} s",
            met=page <= target,
        )
        table.add(
            f"start to runs on Now, {database} database, signing in included", f"{runs:.2f} s"
        )


# --- Memory -------------------------------------------------------------------------------------


def memory(table: Table, quick: bool) -> None:
    """Measure the memory of one process with web server, sync and sandbox after ten minutes."""
    views, seconds = (100, 0) if quick else (200, 600)
    with scratch() as bench:
        server = bench.start("serve", "--port", "0", "--rate-limit", "1000000")
        client = Browser(server.url)
        client.sign_in("viewer")
        _filled(bench, client)
        client = client.twin()  # the server closes a connection that was idle for some seconds
        for number in range(views):
            assert client.ask(PAGES[number % len(PAGES)]).status == 200
        time.sleep(max(server.started + seconds - time.perf_counter(), 0))
        rss, pss = server.memory_mb()
        age = round(time.perf_counter() - server.started)
        table.add(
            f"memory, all in one, mirror of {_runs(bench):,} runs, {views} views, after {age} s",
            f"PSS {pss:.0f}, RSS {rss:.0f} MB",
            target="PSS <= 85 MB",
            met=pss <= 85,
        )


def _filled(bench: Bench, client: Browser) -> None:
    """Wait until every stage was read once."""
    unread = (
        "SELECT count(*) FROM dashboard_stage WHERE has_flow IS NOT FALSE AND synced_at IS NULL"
    )
    unswept = "SELECT count(*) FROM dashboard_catalogsync WHERE synced_at IS NULL"
    wait_for(lambda: "data-run=" in client.ask("/").text, "runs on Now", 0.1)
    wait_for(lambda: _ask(bench, unswept) == _ask(bench, unread) == 0, "a full mirror", 0.2)


def _runs(bench: Bench) -> int:
    return _ask(bench, "SELECT count(*) FROM dashboard_run")


def _ask(bench: Bench, question: str) -> int:
    with sqlite3.connect(bench.database, timeout=5) as database:
        (value,) = database.execute(question).fetchone()
    database.close()
    return int(value)


# --- A page -------------------------------------------------------------------------------------


def page(table: Table, quick: bool) -> None:
    """Measure a stage's page with a hundred rows, one request after another."""
    times = 60 if quick else 300
    with scratch() as bench:
        server, client = start_dashboard(bench, start_upstream(bench))
        _filled(bench, client)
        wait_for(lambda: client.ask(BUSY).text.count("data-run=") == 100, "100 rows", 0.1)

        floor, cpu = _requests(server, times, lambda: client.ask("/healthz"), {200})
        table.add("for comparison: /healthz", _with_cpu(floor, cpu))
        figures, cpu = _requests(server, times // 10, lambda: client.ask(BUSY), {200}, _age(bench))
        table.add("stage page, 100 rows, no row cached", _with_cpu(figures, cpu))
        client.ask(BUSY)
        figures, cpu = _requests(server, times, lambda: client.ask(BUSY), {200})
        table.add(
            f"stage page, 100 rows, cached ({times} requests)",
            _with_cpu(figures, cpu),
            target="p50 < 5 ms",
            met=p(0.5, figures) < 5,
        )
        figures, cpu = _requests(server, times, lambda: client.ask(BUSY, headers=HTMX), {200})
        table.add("its refresh, changed (200)", _with_cpu(figures, cpu))
        tag = ""

        def refresh() -> tuple[int, float]:
            nonlocal tag
            answer = client.ask(BUSY, headers={**HTMX, "HX-PTag": tag})
            tag = answer.headers["HX-PTag"]
            return answer.status, answer.ms

        figures, cpu = _requests(server, times, refresh, {304})
        table.add("its refresh, unchanged (304)", _with_cpu(figures, cpu))


def _age(bench: Bench) -> Callable[[], None]:
    """Return a function that gives each run a new version, so that no cached row is valid."""

    def age() -> None:
        with sqlite3.connect(bench.database, timeout=5) as database:
            database.execute("UPDATE dashboard_run SET version = version + 1000000")
        database.close()

    return age


def _requests(
    server: Server,
    times: int,
    ask: Callable[[], object],
    counted: set[int],
    before: Callable[[], None] = lambda: None,
) -> tuple[list[float], float]:
    """Return the milliseconds of successful answers, and the process's CPU time for each."""
    figures: list[float] = []
    cpu = asked = 0.0
    while len(figures) < times:
        before()
        cpu_before = server.cpu_ms()
        answer = ask()
        status, ms = answer if isinstance(answer, tuple) else (answer.status, answer.ms)
        cpu += server.cpu_ms() - cpu_before
        asked += 1
        if status in counted:
            figures.append(ms)
    return figures, cpu / asked


def _with_cpu(figures: list[float], cpu: float) -> str:
    return f"{spread(figures)}, CPU {cpu:.1f} ms"


# --- Aborts -------------------------------------------------------------------------------------


@dataclass
class Target:
    """A run to abort: its address here and at Northflank."""

    run_id: str
    stage: tuple[str, str, str]

    @property
    def here(self) -> str:
        project, pipeline, stage = self.stage
        runs = f"/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs"
        return f"{runs}/{self.run_id}/abort/"

    @property
    def there(self) -> str:
        return f"/v1{self.here}".rstrip("/")


def _start_runs(upstream: Upstream, count: int) -> list[Target]:
    targets = []
    for number in range(count):
        project, pipeline, stage = SIDE_BY_SIDE[number % len(SIDE_BY_SIDE)]
        flow = f"/v1/projects/{project}/pipelines/{pipeline}/release-flows/{stage}"
        data, _ = upstream.post(f"{flow}/runs")
        targets.append(Target(str(data["id"]), (project, pipeline, stage)))
    return targets


def _mirrored(client: Browser, targets: list[Target]) -> None:
    ids = {target.run_id for target in targets}

    def seen() -> bool:
        return ids <= set(re.findall(r'data-run="([^"]+)"', client.ask("/").text))

    wait_for(seen, "the new runs on Now", 0.1)


def _abort(client: Browser, target: Target) -> float:
    answer = client.ask(target.here, {"reason": "bench"}, HTMX)
    assert answer.status == 200, f"{target.here}: {answer.status}"
    return answer.ms


@contextlib.contextmanager
def _open_now(client: Browser) -> Iterator[None]:
    """Read the stream of Now, as the page of somebody who aborts does."""
    found = re.search(r'"(/live/\?[^"]+)"', client.ask("/").text)
    assert found, "Now has no stream"
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    host, _, port = client.host.partition(":")
    with socket.create_connection((host, int(port))) as stream:
        head = f"GET {html.unescape(found[1])} HTTP/1.1\r\nHost: {client.host}\r\nCookie: {cookies}"
        stream.sendall(f"{head}\r\n\r\n".encode())
        assert b" 200 " in stream.recv(1000).partition(b"\r\n")[0]
        thread = threading.Thread(target=_read_to_end, args=[stream])
        thread.start()
        try:
            yield
        finally:
            stream.shutdown(socket.SHUT_RDWR)
            thread.join()


def _read_to_end(stream: socket.socket) -> None:
    while stream.recv(1 << 18):
        pass


def abort(table: Table, quick: bool) -> None:
    """Measure what the dashboard adds to Northflank's answer, alternating with direct aborts.

    First while no page is open, then with Now open.
    """
    times, latency = (10, 0.1) if quick else (40, 0.2)
    with scratch() as bench:
        upstream = start_upstream(
            bench, "--fault", f"latency:{latency}@/abort", "--choice", "abort-seconds=0.5"
        )
        server, client = start_dashboard(bench, upstream)
        _filled(bench, client)
        for what, is_open in (("abort", False), ("abort with Now open", True)):
            upstream.connect()
            targets = _start_runs(upstream, 2 * times)
            _mirrored(client, targets)
            upstream.connect()
            before = _ask(bench, RECORDED)
            with _open_now(client) if is_open else contextlib.nullcontext():
                straight, through, cpu = _abort_in_turns(upstream, server, client, targets)
            wait_for(lambda: not _ask(bench, UNANSWERED), "an answer to each abort", 0.1)
            # Three of a thousand runs end by themselves within 40 s.
            sent = _ask(bench, RECORDED) - before
            assert sent >= times - 3, f"{sent} of {times} aborts were sent"
            direct = statistics.median(straight)
            table.add(f"{what}, directly at Northflank ({times} runs)", spread(straight))
            table.add(f"{what}, through the dashboard ({times} runs)", _with_cpu(through, cpu))
            for share, target in ((0.5, 8), (0.95, 15)):
                added = p(share, through) - direct
                table.add(
                    f"{what}, added by the dashboard, p{share * 100:.0f}",
                    f"{added:.1f} ms",
                    target=f"< {target} ms",
                    met=added < target,
                )


def _abort_in_turns(
    upstream: Upstream, server: Server, client: Browser, targets: list[Target]
) -> tuple[list[float], list[float], float]:
    """Return milliseconds of direct aborts and of ours, and the process's CPU time for each."""
    straight, through = [], []
    cpu = 0.0
    for here, there in zip(targets[::2], targets[1::2], strict=True):
        confirmation = client.ask(here.here, headers=HTMX)
        if 'name="reason"' not in confirmation.text:
            continue  # the run has ended
        cpu_before = server.cpu_ms()
        through.append(_abort(client, here))
        cpu += server.cpu_ms() - cpu_before
        straight.append(upstream.post(there.there)[1])
    return straight, through, cpu / len(through)


# --- A slow Northflank --------------------------------------------------------------------------


def slow(table: Table, quick: bool) -> None:
    """Measure other pages while Northflank is slow to answer aborts."""
    latency = 3 if quick else 10
    with scratch() as bench:
        upstream = start_upstream(bench, "--fault", f"latency:{latency}@/abort")
        targets = _start_runs(upstream, 21)
        _, client = start_dashboard(bench, upstream)
        _filled(bench, client)
        _mirrored(client, targets)
        window = latency - 1.0
        for chosen in (targets[:1], targets[1:]):
            before = _look_around(client, window)
            taken = _ask(bench, TAKEN)
            pressed = [_Pressed(client.twin(), target) for target in chosen]
            for press in pressed:
                press.start()
            during = _look_around(client, window)
            waiting = sum(press.is_alive() for press in pressed)
            for press in pressed:
                press.join()
            ratio = p(0.95, during) / p(0.95, before)
            aborts = f"{len(chosen)} waiting abort{'s' if len(chosen) > 1 else ''}"
            table.add(f"other pages before ({len(before)} requests)", spread(before))
            table.add(
                f"other pages while {aborts} wait {latency} s ({len(during)} requests)",
                f"{spread(during)}, p95 x {ratio:.2f}",
                target="p95 < x 2",
                met=ratio < 2,
            )
            accepted = _ask(bench, TAKEN) - taken
            table.add(
                f"of these {aborts}: still waiting at the end, then accepted",
                f"{waiting}, {accepted}",
                target=f"{len(chosen)}, {len(chosen)}",
                met=waiting == accepted == len(chosen),
            )


class _Pressed(threading.Thread):
    """A user who has requested an abort and waits for the answer."""

    def __init__(self, client: Browser, target: Target) -> None:
        super().__init__()
        self.person, self.target = client, target

    def run(self) -> None:
        _abort(self.person, self.target)


def _look_around(client: Browser, seconds: float) -> list[float]:
    figures: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = client.ask(PAGES[len(figures) % len(PAGES)])
        assert answer.status == 200
        figures.append(answer.ms)
        time.sleep(0.01)  # a user is not a load test
    return figures


# ------------------------------------------------------------------------------------------------

PARTS = {part.__name__: part for part in (start, memory, page, abort, slow)}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="fewer repetitions")
    arguments.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    chosen = arguments.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        arguments.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    table, started_at = Table(), time.monotonic()
    load = os.getloadavg()[0]
    for name in chosen.parts or PARTS:
        PARTS[name](table, chosen.quick)
    print()
    table.show()
    took = timedelta(seconds=round(time.monotonic() - started_at))
    print(
        f"\n{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; "
        f"load {load:.1f} before; took {took}"
    )
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
