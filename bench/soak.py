"""Half an hour of use, with faults that come and go: what grows?

    uv run bench/soak.py [--minutes 30] [--viewers 200] [--postgres postgres://…/database]

Starts `manage.py serve` and a sandbox as two processes. In this one, people in sixteen sessions
have pages open with their streams and leave them for others, load pages, start and abort runs, sign
in and out, and break off. Each minute another fault comes and goes (soak_faults.py). Once a minute
all of them pause, and a line shows what the server has. Prints what has grown since a sixth of the
time, and exits with 1 if a target is missed. Without `--postgres` it uses a SQLite file.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import sys
import time
from collections import Counter
from datetime import datetime

import soak_faults
import soak_people
import soak_samples
from running import Bench, database, scratch
from soak_faults import Faults
from soak_people import Crowd
from soak_samples import PostgreSQL, Sample, SQLite
from tables import Table

MAX_MEMORY_GROWTH = 5.0  # MB
# Rows of the same content may need this much more, and some pages, by which all tables grow.
MAX_SLACK, SLACK_BYTES = 1.25, 1 << 18
# A warning says what Northflank or the database answered; an error is a defect.
DEFECTS = {"error", "critical"}
SETTLING = 2.0  # seconds of a pause until the server has noticed what has ended


async def soak(table: Table, bench: Bench, minutes: int, viewers: int, postgres: str) -> None:
    """Use a dashboard for some minutes; print a line for each, and add the figures."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    upstream = soak_faults.start_upstream(bench, f"http://127.0.0.1:{port}/hooks/northflank/")
    settings = {
        "NORTHFLANK_API_TOKEN": "sandbox",
        "NORTHFLANK_API_BASE_URL": f"http://127.0.0.1:{upstream.port}",
        "NORTHFLANK_WEBHOOK_SECRET": soak_faults.SECRET,
        "LOG_FORMAT": "json",
    } | ({"DATABASE_URL": postgres} if postgres else {})
    bench.manage("migrate", "-v0", **settings)
    bench.manage("shell", "--no-imports", "--command", soak_people.MAKE_PEOPLE, **settings)
    server = bench.start("serve", "--port", str(port), **settings)
    faults = Faults(upstream, postgres or str(bench.database))
    crowd = Crowd(server.url, upstream.server.url, viewers)
    storage = PostgreSQL(postgres) if postgres else SQLite(bench.database)
    started_at = time.monotonic()
    tasks = [asyncio.create_task(crowd.run()), asyncio.create_task(faults.run(started_at))]
    samples = []
    print(HEAD)
    for minute in range(1, minutes + 1):
        await _sleep_until(started_at + 60 * minute, tasks)
        async with crowd.calm():
            await asyncio.sleep(SETTLING)
            samples.append(soak_samples.take(minute, server, upstream.server.url, storage))
        print(_line(samples[-1], crowd), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await crowd.close()
    add_growth(table, samples[max(minutes // 6, 1) - 1 :])
    did = ", ".join(f"{count:,} {action}" for action, count in sorted(crowd.count.items()))
    table.add("people", f"{viewers} viewers, {did}")
    table.add("faults", str(faults.count))
    add_errors(table, bench, crowd, faults)


async def _sleep_until(moment: float, tasks: list[asyncio.Task[None]]) -> None:
    """Sleep; raise the error of a task that has ended before."""
    done_tasks, _ = await asyncio.wait(
        tasks, timeout=max(moment - time.monotonic(), 0), return_when=asyncio.FIRST_COMPLETED
    )
    for task in done_tasks:
        task.result()


def add_growth(table: Table, samples: list[Sample]) -> None:
    """Add what has grown over these samples."""
    first, last = samples[0], samples[-1]
    grown = last.pss - first.pss
    table.add(
        "memory (PSS)", f"{first.pss:.1f} -> {last.pss:.1f} MB, {grown:+.1f}",
        target=f"at most {MAX_MEMORY_GROWTH:+.0f} MB", met=grown <= MAX_MEMORY_GROWTH,
    )  # fmt: skip
    grown = last.private - first.private
    table.add(
        "... that no file backs", f"{first.private:.1f} -> {last.private:.1f} MB, {grown:+.1f}"
    )
    third = max(len(samples) // 3, 1)
    for kind in ("threads", "descriptors", "clients", "upstream", "database"):
        # A pool opens and closes connections; what leaks stays, so the least of each third counts.
        before, after = (
            min(getattr(sample, kind) for sample in part)
            for part in (samples[:third], samples[-third:])
        )
        name = kind if kind in {"threads", "descriptors"} else f"connections: {kind}"
        table.add(name, f"{before} -> {after}", target="no more", met=after <= before)
    total = last.size.total - first.size.total
    content = last.size.content - first.size.content
    explained_bytes = content * first.size.total / first.size.content
    table.add(
        "database", f"{first.size.total / 1e6:.2f} -> {last.size.total / 1e6:.2f} MB,"
        f" {total / 1000:+,.0f} KB; its rows explain {explained_bytes / 1000:+,.0f} KB",
        target="what its rows explain", met=total <= explained_bytes * MAX_SLACK + SLACK_BYTES,
    )  # fmt: skip
    row_counts = Counter(last.size.rows)
    row_counts.subtract(first.size.rows)
    rows = (f"{name.removeprefix('dashboard_')} {n:+}" for name, n in row_counts.most_common() if n)
    table.add("... rows", ", ".join(rows))


def add_errors(table: Table, bench: Bench, crowd: Crowd, faults: Faults) -> None:
    """Add the failures and the errors in the log that no fault explains, each kind once."""
    explained_failures = [
        failure
        for failure in crowd.failures
        if failure.status == 503 and faults.explains(failure.at)
    ]
    defects = [failure.request for failure in crowd.failures if failure not in explained_failures]
    defects += _logged_defects(bench, faults)
    table.add("errors that a broken database explains", str(len(explained_failures)))
    for defect, count in Counter(defects).most_common(20):
        table.add(f"... {count} x", defect)
    table.add("errors that no fault explains", str(len(defects)), target="0", met=not defects)


def _logged_defects(bench: Bench, faults: Faults) -> list[str]:
    """Return the errors in the server's log that no broken database explains."""
    defects = []
    for line in bench.log.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # not by the logger: a traceback, or a warning of Python's
            defects.append(line)
            continue
        at = datetime.fromisoformat(entry["timestamp"]).timestamp()
        if entry["level"] in DEFECTS and not faults.explains(at):
            defects.append(f"{entry['event']} {entry.get('exception', '')[-300:]}")
    return defects


HEAD = (
    "minute   PSS MB  private  threads  descriptors  clients  upstream  database  size KB"
    "    runs   pages  streams  aborts  failures"
)


def _line(sample: Sample, crowd: Crowd) -> str:
    return (
        f"{sample.minute:6}{sample.pss:9.1f}{sample.private:9.1f}{sample.threads:9}"
        f"{sample.descriptors:13}{sample.clients:9}{sample.upstream:10}{sample.database:10}"
        f"{sample.size.total / 1000:9,.0f}{sample.size.rows['dashboard_run']:8,}"
        f"{crowd.count['pages']:8,}{crowd.count['streams']:9,}{crowd.count['aborts']:8,}"
        f"{len(crowd.failures):10}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument(
        "--postgres", default="", help="a PostgreSQL server, as postgres://…/database"
    )
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    table = Table()
    with scratch() as bench, database(options.postgres) as url:
        try:
            asyncio.run(soak(table, bench, options.minutes, options.viewers, url))
        except BaseException:
            with contextlib.suppress(OSError):
                print(bench.log.read_text()[-4000:], file=sys.stderr)
            raise
    print()
    table.show()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
