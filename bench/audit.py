"""Speed of a large abort log: its first and last page, and its exports.

    uv run bench/audit.py [--quick]

Fills a scratch database with 100,000 aborts, starts a real process on it, prints one table, and
exits with 1 if a target is missed.
"""

import argparse
import gzip
import http.client
import platform
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator

from processes import Bench, Browser, Server, scratch, start_dashboard, start_upstream
from tables import Table, format_quantiles, quantile

CREATE_ABORTS = """
from datetime import timedelta
from django.db import transaction
from django.utils import timezone
from dashboard.models import Abort, AbortEvent, Pipeline, Project, Run, Stage
now = timezone.now()
project = Project.objects.create(slug="bench", name="Bench", synced_at=now)
runs = []
for name in ("one", "two", "three"):
    pipeline = Pipeline.objects.create(project=project, slug=name, synced_at=now)
    for stage_name in ("Staging", "Production"):
        stage = Stage.objects.create(
            pipeline=pipeline, name=stage_name, next_sync_at=now, has_flow=False
        )
        runs += Run.objects.bulk_create(
            Run(stage=stage, run_id=f"{{name}}-{{stage_name}}-{{n}}", name=f"Release {{n}}",
                status="aborted", concluded=True, in_flight=False, created_at=now,
                first_synced_at=now, synced_at=now, status_since=now, concluded_at=now, version=0)
            for n in range(1000)
        )
with transaction.atomic():
    for start in range(0, {count}, 5000):
        aborts = Abort.objects.bulk_create(
            Abort(run=runs[n % len(runs)], username=f"person-{{n % 40}}", reason="Stuck at migrate",
                  client_address="192.0.2.7", state="concluded", outcome="aborted",
                  requested_at=now - timedelta(minutes={count} - n), claimed_at=now, sent_at=now,
                  answered_at=now, answer_status=200, settled_at=now)
            for n in range(start, min(start + 5000, {count}))
        )
        AbortEvent.objects.bulk_create(
            AbortEvent(abort=abort, event_type=event_type, occurred_at=now, detail=detail)
            for abort in aborts
            for event_type, detail in (("requested", ""), ("sent", ""), ("accepted", "aborting"),
                                       ("concluded", "aborted"))
        )
"""


def measure_pages(table: Table, client: Browser, times: int, keys: range) -> None:
    """Measure the first and the last page, one request after another, and filters.

    `keys` are those of all aborts.
    """
    table.add(
        f"page, newest 100 aborts ({times} requests), unchanged",
        format_quantiles(_measure_requests(client, "/aborts/", times)),
    )
    # Not answered from memory, as that of the oldest.
    newest_ms = _measure_requests(client, f"/aborts/?before={keys[-1] + 1}", times)
    oldest_ms = _measure_requests(client, f"/aborts/?before={keys[0] + 100}", times)
    table.add("page, newest 100 aborts by their key", format_quantiles(newest_ms))
    ratio = quantile(0.5, oldest_ms) / quantile(0.5, newest_ms)
    table.add(
        "page, oldest 100 aborts", f"{format_quantiles(oldest_ms)}, p50 x {ratio:.2f}",
        target="p50 < x 1.5", met=ratio < 1.5,
    )  # fmt: skip
    match = re.search(r'"HX-PTag": "([^"]+)"', client.request("/aborts/").text)
    assert match is not None
    headers = {"HX-Request": "true", "HX-PTag": match[1]}
    responses = [client.request("/aborts/", headers=headers) for _ in range(times)]
    assert {response.status for response in responses} == {304}
    table.add(
        "page, refresh, unchanged (304)", format_quantiles([response.ms for response in responses])
    )
    for name, query in (
        ("a username without aborts", "username=nobody"),
        ("a text without a match", "text=nowhere"),
    ):
        figures = _measure_requests(client, f"/aborts/?{query}", max(times // 10, 3))
        table.add(f"page, {name} (reads every abort)", format_quantiles(figures))


def _measure_requests(client: Browser, path: str, times: int) -> list[float]:
    """Return the milliseconds of each request, after one that fills caches."""
    client.request(path)
    return [client.request(path).ms for _ in range(times)]


def measure_export(
    table: Table, server: Server, client: Browser, extension: str, count: int
) -> None:
    """Measure a whole export, the server's memory and another page meanwhile."""
    rss_before, _ = server.memory_mb()
    max_rss, size, rows = rss_before, 0, 0
    page_times: list[float] = []
    is_complete = threading.Event()

    def request_status_pages() -> None:
        second_client = client.new_connection()
        while not is_complete.is_set():
            page_times.append(second_client.request("/status/").ms)
            is_complete.wait(0.1)

    thread = threading.Thread(target=request_status_pages)
    thread.start()
    started_at = time.perf_counter()
    last_part = b""
    for part in _download(client, f"/aborts/export.{extension}"):
        max_rss = max(max_rss, server.memory_mb()[0])
        size += len(part)
        rows += part.count(b'"duration_seconds":' if extension == "json" else b"\r\n")
        last_part = part or last_part
    duration = time.perf_counter() - started_at
    is_complete.set()
    thread.join()
    assert rows == count + (extension == "csv"), f"{rows} rows of {count}"
    assert last_part.endswith(b"]\n" if extension == "json" else b"\r\n")
    table.add(
        f"{extension.upper()} of {count:,} aborts, {size / 1e6:.0f} MB",
        f"{duration:.1f} s, {count / duration:,.0f} aborts a second",
    )
    growth = max_rss - rss_before
    table.add(
        "additional memory", f"{growth:.0f} MB (RSS {max_rss:.0f})",
        target="< 20 MB", met=growth < 20,
    )  # fmt: skip
    table.add(f"another page meanwhile ({len(page_times)} requests)", format_quantiles(page_times))


def _download(client: Browser, path: str) -> Iterator[bytes]:
    """Yield a response's body, decompressed, in parts of about a megabyte."""
    connection = http.client.HTTPConnection(client.host, timeout=600)
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    connection.request("GET", path, headers={"Cookie": cookies, "Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.status == 200, response.status
    body = gzip.GzipFile(fileobj=response)
    # Whole lines, so that no counted text is split.
    while lines := body.readlines(1_000_000):
        yield b"".join(lines)
    connection.close()


def _start_with_aborts(bench: Bench, count: int) -> tuple[Server, Browser]:
    server, client = start_dashboard(bench, start_upstream(bench), NORTHFLANK_PROJECTS="nothing")
    script = CREATE_ABORTS.format(count=count)
    started_at = time.monotonic()
    bench.manage("shell", "--no-imports", "--command", script, NORTHFLANK_API_TOKEN="sandbox")
    print(f"  {count:,} aborts created in {time.monotonic() - started_at:.0f} s", file=sys.stderr)
    return server, client.new_connection()  # the server closes idle connections


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10,000 aborts, fewer requests")
    options = parser.parse_args()
    count, times = (10_000, 20) if options.quick else (100_000, 60)
    table = Table()
    with scratch() as bench:
        server, client = _start_with_aborts(bench, count)
        with sqlite3.connect(bench.database, timeout=5) as database:
            first, last = database.execute(
                "SELECT min(id), max(id) FROM dashboard_abort"
            ).fetchone()
        database.close()
        measure_pages(table, client, times, range(first, last + 1))
        for extension in ("csv", "json"):
            measure_export(table, server, client, extension, count)
    print()
    table.show()
    print(f"\nPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
