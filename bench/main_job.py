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
from functools import partial

from processes import (
    Bench,
    Browser,
    Response,
    Server,
    Upstream,
    scratch,
    start_dashboard,
    start_upstream,
    wait_for,
)
from tables import Table, format_quantiles, quantile

# A busy stage with more than a page of a hundred runs.
BUSY_STAGE = "/projects/shop/pipelines/storefront/release-flows/development/"
# Stages that allow any number of concurrent runs.
PLACES = [
    ("payments", "billing-api", "development"),
    ("shop", "search", "development"),
    ("payments", "ledger", "staging"),
    ("identity", "auth-gateway", "development"),
]
PAGES = ["/", "/board/", BUSY_STAGE, "/projects/shop/pipelines/storefront/"]
HTMX_HEADERS = {"HX-Request": "true"}
COUNT_ACCEPTED = "SELECT count(*) FROM dashboard_abort WHERE state IN ('accepted', 'concluded')"
COUNT_ABORTS = "SELECT count(*) FROM dashboard_abort"
COUNT_UNANSWERED = f"{COUNT_ABORTS} WHERE state NOT IN ('accepted', 'concluded', 'too_late')"


# --- Start --------------------------------------------------------------------------------------


def measure_start(table: Table, quick: bool) -> None:
    """Measure from the start of the process to its first page, and to runs on Now."""
    times = 1 if quick else 5
    figures_by_database: dict[str, list[tuple[float, float, float]]] = {
        "fresh": [],
        "existing": [],
    }
    targets = {"fresh": 1.0, "existing": 0.6}
    for _ in range(times):
        with scratch() as bench:
            for figures in figures_by_database.values():
                server = bench.start("serve", "--port", "0")
                client = Browser(server.url)
                wait_for(partial(_has_sign_in_page, client), "a page")
                page = time.perf_counter() - server.started
                cpu = server.cpu_ms() / 1000
                client.sign_in("viewer")
                wait_for(partial(_has_runs, client), "runs on Now")
                figures.append((page, cpu, time.perf_counter() - server.started))
                bench.stop(server)
    for database, figures in figures_by_database.items():
        page, cpu, runs = (statistics.median(column) for column in zip(*figures, strict=True))
        target = targets[database]
        table.add(
            f"start to first page, {database} database (median of {times})",
            f"{page:.2f} s, CPU {cpu:.2f} s",
            target=f"<= {target:.1f} s",
            met=page <= target,
        )
        table.add(
            f"start to runs on Now, {database} database, signing in included", f"{runs:.2f} s"
        )


def _has_sign_in_page(client: Browser) -> bool:
    return client.request("/accounts/login/").status == 200


def _has_runs(client: Browser) -> bool:
    return "data-run=" in client.request("/").text


# --- Memory -------------------------------------------------------------------------------------


def measure_memory(table: Table, quick: bool) -> None:
    """Measure the memory of one process with web server, sync and sandbox after ten minutes."""
    views, seconds = (100, 0) if quick else (200, 600)
    with scratch() as bench:
        server = bench.start("serve", "--port", "0", "--rate-limit", "1000000")
        client = Browser(server.url)
        client.sign_in("viewer")
        _wait_until_mirrored(bench, client)
        client = client.new_connection()  # the server closes idle connections
        for number in range(views):
            assert client.request(PAGES[number % len(PAGES)]).status == 200
        time.sleep(max(server.started + seconds - time.perf_counter(), 0))
        rss, pss = server.memory_mb()
        age = round(time.perf_counter() - server.started)
        run_count = _query_count(bench, "SELECT count(*) FROM dashboard_run")
        table.add(
            f"memory, all in one, mirror of {run_count:,} runs, {views} views, after {age} s",
            f"PSS {pss:.0f}, RSS {rss:.0f} MB",
            target="PSS <= 85 MB",
            met=pss <= 85,
        )


def _wait_until_mirrored(bench: Bench, client: Browser) -> None:
    """Wait until every catalog list and every stage was read once."""
    unread_stages = (
        "SELECT count(*) FROM dashboard_stage WHERE has_flow IS NOT FALSE AND synced_at IS NULL"
    )
    unread_lists = "SELECT count(*) FROM dashboard_catalogsync WHERE synced_at IS NULL"
    wait_for(partial(_has_runs, client), "runs on Now", 0.1)
    wait_for(
        lambda: _query_count(bench, unread_lists) == _query_count(bench, unread_stages) == 0,
        "a full mirror",
        0.2,
    )


def _query_count(bench: Bench, sql: str) -> int:
    with sqlite3.connect(bench.database, timeout=5) as database:
        (value,) = database.execute(sql).fetchone()
    database.close()
    return int(value)


# --- A page -------------------------------------------------------------------------------------


def measure_page(table: Table, quick: bool) -> None:
    """Measure a stage's page with a hundred rows, one request after another."""
    times = 60 if quick else 300
    with scratch() as bench:
        server, client = start_dashboard(bench, start_upstream(bench))
        _wait_until_mirrored(bench, client)
        wait_for(lambda: client.request(BUSY_STAGE).text.count("data-run=") == 100, "100 rows", 0.1)

        figures, cpu = _measure_requests(server, times, lambda: client.request("/healthz"))
        table.add("for comparison: /healthz", _with_cpu(figures, cpu))
        figures, cpu = _measure_requests(
            server,
            times // 10,
            lambda: client.request(BUSY_STAGE),
            prepare=lambda: _change_all_versions(bench),
        )
        table.add("stage page, 100 rows, no row cached", _with_cpu(figures, cpu))
        client.request(BUSY_STAGE)
        figures, cpu = _measure_requests(server, times, lambda: client.request(BUSY_STAGE))
        table.add(
            f"stage page, 100 rows, cached ({times} requests)",
            _with_cpu(figures, cpu),
            target="p50 < 5 ms",
            met=quantile(0.5, figures) < 5,
        )
        figures, cpu = _measure_requests(
            server, times, lambda: client.request(BUSY_STAGE, headers=HTMX_HEADERS)
        )
        table.add("stage page, refresh, changed (200)", _with_cpu(figures, cpu))
        tag = ""

        def refresh() -> Response:
            nonlocal tag
            response = client.request(BUSY_STAGE, headers={**HTMX_HEADERS, "HX-PTag": tag})
            tag = response.headers["HX-PTag"]
            return response

        figures, cpu = _measure_requests(server, times, refresh, status=304)
        table.add("stage page, refresh, unchanged (304)", _with_cpu(figures, cpu))


def _change_all_versions(bench: Bench) -> None:
    """Give each run a new version, so that no cached row is valid."""
    with sqlite3.connect(bench.database, timeout=5) as database:
        database.execute("UPDATE dashboard_run SET version = version + 1000000")
    database.close()


def _measure_requests(
    server: Server,
    times: int,
    request: Callable[[], Response],
    status: int = 200,
    prepare: Callable[[], None] = lambda: None,
) -> tuple[list[float], float]:
    """Return the milliseconds of responses with `status`, and the mean CPU ms of all requests."""
    figures: list[float] = []
    cpu, request_count = 0.0, 0
    while len(figures) < times:
        prepare()
        cpu_before = server.cpu_ms()
        response = request()
        cpu += server.cpu_ms() - cpu_before
        request_count += 1
        if response.status == status:
            figures.append(response.ms)
    return figures, cpu / request_count


def _with_cpu(figures: list[float], cpu: float) -> str:
    return f"{format_quantiles(figures)}, CPU {cpu:.1f} ms"


# --- Aborts -------------------------------------------------------------------------------------


@dataclass
class Target:
    """A run to abort; the paths of its abort at the dashboard and at Northflank."""

    run_id: str
    place: tuple[str, str, str]

    @property
    def dashboard_path(self) -> str:
        project, pipeline, stage = self.place
        runs = f"/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/runs"
        return f"{runs}/{self.run_id}/abort/"

    @property
    def northflank_path(self) -> str:
        return f"/v1{self.dashboard_path}".rstrip("/")


def _start_runs(upstream: Upstream, count: int) -> list[Target]:
    targets = []
    for number in range(count):
        project, pipeline, stage = PLACES[number % len(PLACES)]
        flow = f"/v1/projects/{project}/pipelines/{pipeline}/release-flows/{stage}"
        data, _ = upstream.post(f"{flow}/runs")
        targets.append(Target(str(data["id"]), (project, pipeline, stage)))
    return targets


def _wait_until_listed(client: Browser, targets: list[Target]) -> None:
    ids = {target.run_id for target in targets}

    def are_listed() -> bool:
        return ids <= set(re.findall(r'data-run="([^"]+)"', client.request("/").text))

    wait_for(are_listed, "the new runs on Now", 0.1)


def _abort_run(client: Browser, target: Target) -> float:
    response = client.request(target.dashboard_path, {"reason": "bench"}, HTMX_HEADERS)
    assert response.status == 200, f"{target.dashboard_path}: {response.status}"
    return response.ms


@contextlib.contextmanager
def _open_stream_of_now(client: Browser) -> Iterator[None]:
    """Read the stream of Now meanwhile, as an open page does."""
    match = re.search(r'"(/live/\?[^"]+)"', client.request("/").text)
    assert match, "Now has no stream"
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    host, _, port = client.host.partition(":")
    with socket.create_connection((host, int(port))) as stream:
        head = f"GET {html.unescape(match[1])} HTTP/1.1\r\nHost: {client.host}\r\nCookie: {cookies}"
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


def measure_aborts(table: Table, quick: bool) -> None:
    """Measure what the dashboard adds to Northflank's response, alternating with direct aborts.

    First while no page is open, then with Now open.
    """
    times, latency = (10, 0.1) if quick else (40, 0.2)
    with scratch() as bench:
        upstream = start_upstream(
            bench, "--fault", f"latency:{latency}@/abort", "--choice", "abort-seconds=0.5"
        )
        server, client = start_dashboard(bench, upstream)
        _wait_until_mirrored(bench, client)
        for name, is_now_open in (("abort", False), ("abort with Now open", True)):
            upstream.connect()
            targets = _start_runs(upstream, 2 * times)
            _wait_until_listed(client, targets)
            upstream.connect()
            count_before = _query_count(bench, COUNT_ABORTS)
            with _open_stream_of_now(client) if is_now_open else contextlib.nullcontext():
                direct_ms, dashboard_ms, cpu = _abort_alternately(upstream, server, client, targets)
            wait_for(
                lambda: not _query_count(bench, COUNT_UNANSWERED), "a response to each abort", 0.1
            )
            # Three of a thousand runs end by themselves within 40 s.
            sent = _query_count(bench, COUNT_ABORTS) - count_before
            assert sent >= times - 3, f"{sent} of {times} aborts were sent"
            direct_median = statistics.median(direct_ms)
            table.add(f"{name}, directly at Northflank ({times} runs)", format_quantiles(direct_ms))
            table.add(f"{name}, through the dashboard ({times} runs)", _with_cpu(dashboard_ms, cpu))
            for share, target in ((0.5, 8), (0.95, 15)):
                added = quantile(share, dashboard_ms) - direct_median
                table.add(
                    f"{name}, added by the dashboard, p{share * 100:.0f}",
                    f"{added:.1f} ms",
                    target=f"< {target} ms",
                    met=added < target,
                )


def _abort_alternately(
    upstream: Upstream, server: Server, client: Browser, targets: list[Target]
) -> tuple[list[float], list[float], float]:
    """Return the ms of direct aborts, of the dashboard's, and the mean CPU ms of the latter."""
    direct_ms, dashboard_ms = [], []
    cpu = 0.0
    for dashboard_target, direct_target in zip(targets[::2], targets[1::2], strict=True):
        confirmation = client.request(dashboard_target.dashboard_path, headers=HTMX_HEADERS)
        if 'name="reason"' not in confirmation.text:
            continue  # the run has ended
        cpu_before = server.cpu_ms()
        dashboard_ms.append(_abort_run(client, dashboard_target))
        cpu += server.cpu_ms() - cpu_before
        direct_ms.append(upstream.post(direct_target.northflank_path)[1])
    return direct_ms, dashboard_ms, cpu / len(dashboard_ms)


# --- A slow Northflank --------------------------------------------------------------------------


def measure_slow_upstream(table: Table, quick: bool) -> None:
    """Measure other pages while Northflank is slow to respond to aborts."""
    latency = 3 if quick else 10
    with scratch() as bench:
        upstream = start_upstream(bench, "--fault", f"latency:{latency}@/abort")
        targets = _start_runs(upstream, 21)
        _, client = start_dashboard(bench, upstream)
        _wait_until_mirrored(bench, client)
        _wait_until_listed(client, targets)
        window = latency - 1.0
        for group in (targets[:1], targets[1:]):
            before = _request_pages(client, window)
            accepted_before = _query_count(bench, COUNT_ACCEPTED)
            threads = [_AbortThread(client.new_connection(), target) for target in group]
            for thread in threads:
                thread.start()
            during = _request_pages(client, window)
            waiting = sum(thread.is_alive() for thread in threads)
            for thread in threads:
                thread.join()
            ratio = quantile(0.95, during) / quantile(0.95, before)
            aborts = f"{len(group)} waiting abort{'s' if len(group) > 1 else ''}"
            table.add(f"other pages before ({len(before)} requests)", format_quantiles(before))
            table.add(
                f"other pages while {aborts} wait {latency} s ({len(during)} requests)",
                f"{format_quantiles(during)}, p95 x {ratio:.2f}",
                target="p95 < x 2",
                met=ratio < 2,
            )
            accepted = _query_count(bench, COUNT_ACCEPTED) - accepted_before
            table.add(
                f"of these {aborts}: still waiting at the end, then accepted",
                f"{waiting}, {accepted}",
                target=f"{len(group)}, {len(group)}",
                met=waiting == accepted == len(group),
            )


class _AbortThread(threading.Thread):
    """A user who has requested an abort and waits for the response."""

    def __init__(self, client: Browser, target: Target) -> None:
        super().__init__()
        self.client, self.target = client, target

    def run(self) -> None:
        _abort_run(self.client, self.target)


def _request_pages(client: Browser, seconds: float) -> list[float]:
    """Request pages in turn for some seconds; return the milliseconds of each."""
    figures: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        response = client.request(PAGES[len(figures) % len(PAGES)])
        assert response.status == 200
        figures.append(response.ms)
        time.sleep(0.01)  # a user is not a load test
    return figures


# ------------------------------------------------------------------------------------------------

PARTS = {
    "start": measure_start,
    "memory": measure_memory,
    "page": measure_page,
    "abort": measure_aborts,
    "slow": measure_slow_upstream,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    table, started_at = Table(), time.monotonic()
    load = os.getloadavg()[0]
    for name in options.parts or PARTS:
        PARTS[name](table, options.quick)
    print()
    table.show()
    duration = timedelta(seconds=round(time.monotonic() - started_at))
    print(
        f"\n{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; "
        f"load {load:.1f} before; took {duration}"
    )
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
