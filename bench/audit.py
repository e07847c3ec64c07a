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

from running import Bench, Browser, Server, scratch, start_dashboard, start_upstream
from tables import Table, p, spread

FILL = """
from datetime import timedelta
from django.db import transaction
from django.utils import timezone
from dashboard.models import Abort, AbortEvent, Pipeline, Project, Run, Stage
now = timezone.now()
project = Project.objects.create(slug="bench", name="Bench", synced_at=now)
runs = []
for name in ("one", "two", "three"):
    pipeline = Pipeline.objects.create(project=project, slug=name, synced_at=now)
    for at in ("Staging", "Production"):
        stage = Stage.objects.create(pipeline=pipeline, name=at, next_sync_at=now, has_flow=False)
        runs += Run.objects.bulk_create(
            Run(stage=stage, run_id=f"{{name}}-{{at}}-{{n}}", name=f"Release {{n}}",
                status="aborted", concluded=True, in_flight=False, created_at=now,
                first_synced_at=now, synced_at=now, status_since=now, concluded_at=now, version=0)
            for n in range(1000)
        )
with transaction.atomic():
    for start in range(0, {acts}, 5000):
        acts = Abort.objects.bulk_create(
            Abort(run=runs[n % len(runs)], username=f"person-{{n % 40}}", reason="Stuck at migrate",
                  client_address="192.0.2.7", state="concluded", outcome="aborted",
                  requested_at=now - timedelta(minutes={acts} - n), claimed_at=now, sent_at=now,
                  answered_at=now, answer_status=200, settled_at=now)
            for n in range(start, min(start + 5000, {acts}))
        )
        AbortEvent.objects.bulk_create(
            AbortEvent(abort=act, event_type=event_type, occurred_at=now, detail=detail)
            for act in acts
            for what, detail in (("requested", ""), ("sent", ""), ("accepted", "aborting"),
                                 ("concluded", "aborted"))
        )
"""


def pages(table: Table, client: Browser, times: int, deepest: int) -> None:
    """Measure the first and the last page, one request after another."""
    near = _timed(client, "/aborts/", times)
    deep = _timed(client, f"/aborts/?before={deepest}", times)
    table.add(f"page, newest 100 aborts ({times} requests)", spread(near))
    ratio = p(0.5, deep) / p(0.5, near)
    table.add(
        "page, oldest 100 aborts", f"{spread(deep)}, p50 x {ratio:.2f}", target="p50 < x 1.5",
        met=ratio < 1.5,
    )  # fmt: skip
    match = re.search(r'"HX-PTag": "([^"]+)"', client.ask("/aborts/").text)
    assert match is not None
    headers = {"HX-Request": "true", "HX-PTag": match[1]}
    answers = [client.ask("/aborts/", headers=headers) for _ in range(times)]
    assert {answer.status for answer in answers} == {304}
    table.add("its refresh, unchanged (304)", spread([answer.ms for answer in answers]))
    for name, query in (
        ("a name that nobody has", "username=nobody"),
        ("a run or reason that is nowhere", "text=nowhere"),
    ):
        few = max(times // 10, 3)
        table.add(
            f"page, {name} (reads every abort)", spread(_timed(client, f"/aborts/?{query}", few))
        )


def _timed(client: Browser, path: str, times: int) -> list[float]:
    client.ask(path)
    return [client.ask(path).ms for _ in range(times)]


def export(table: Table, server: Server, client: Browser, ending: str, acts: int) -> None:
    """Measure a whole export, the server's memory and other pages meanwhile."""
    before, _ = server.memory_mb()
    most, size, rows = before, 0, 0
    beside: list[float] = []
    is_over = threading.Event()

    def look_around() -> None:
        second_client = client.twin()
        while not is_over.is_set():
            beside.append(second_client.ask("/status/").ms)
            is_over.wait(0.1)

    looking = threading.Thread(target=look_around)
    looking.start()
    started_at = time.perf_counter()
    last = b""
    for part in _download(client, f"/aborts/export.{ending}"):
        most = max(most, server.memory_mb()[0])
        size += len(part)
        rows += part.count(b'"seconds":' if ending == "json" else b"\r\n")
        last = part or last
    took = time.perf_counter() - started_at
    is_over.set()
    looking.join()
    assert rows == acts + (ending == "csv"), f"{rows} rows of {acts}"
    assert last.endswith(b"]\n" if ending == "json" else b"\r\n")
    table.add(
        f"{ending.upper()} of {acts:,} aborts, {size / 1e6:.0f} MB",
        f"{took:.1f} s, {acts / took:,.0f} aborts a second",
    )
    table.add(
        "additional memory", f"{most - before:.0f} MB (RSS {most:.0f})",
        target="< 20 MB", met=most - before < 20,
    )  # fmt: skip
    table.add(f"another page meanwhile ({len(beside)} requests)", spread(beside))


def _download(client: Browser, path: str) -> Iterator[bytes]:
    connection = http.client.HTTPConnection(client.host, timeout=600)
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    connection.request("GET", path, headers={"Cookie": cookies, "Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.status == 200, response.status
    plain_file = gzip.GzipFile(fileobj=response)
    # Whole lines, so that no counted text is split.
    while lines := plain_file.readlines(1_000_000):
        yield b"".join(lines)
    connection.close()


def _start_with_aborts(bench: Bench, acts: int) -> tuple[Server, Browser]:
    server, client = start_dashboard(bench, start_upstream(bench), NORTHFLANK_PROJECTS="nothing")
    fill = FILL.format(acts=acts)
    started_at = time.monotonic()
    bench.manage("shell", "--no-imports", "--command", fill, NORTHFLANK_API_TOKEN="sandbox")
    print(f"  {acts:,} aborts created in {time.monotonic() - started_at:.0f} s", file=sys.stderr)
    return server, client.twin()  # the server closes idle connections


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="10,000 aborts, fewer requests")
    chosen = arguments.parse_args()
    acts, times = (10_000, 20) if chosen.quick else (100_000, 60)
    table = Table()
    with scratch() as bench:
        server, client = _start_with_aborts(bench, acts)
        with sqlite3.connect(bench.database, timeout=5) as database:
            (first,) = database.execute("SELECT min(id) FROM dashboard_abort").fetchone()
        database.close()
        pages(table, client, times, first + 100)
        for ending in ("csv", "json"):
            export(table, server, client, ending, acts)
    print()
    table.show()
    print(f"\nPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
