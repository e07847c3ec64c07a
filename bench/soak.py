"""Growth of a server's resources in half an hour of use with injected faults.

    uv run bench/soak.py [--minutes 30] [--viewers 200] [--postgres postgres://…/database]

Starts `manage.py serve` and a sandbox as two processes. From this one, users in sixteen sessions
open page after page with its stream, load pages, start and abort runs, sign in and out, and reset
connections (soak_people.py). Each minute has another fault (soak_faults.py). Once a minute all
users pause, and a line shows the server's resources. Prints their growth since a sixth of the
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
from processes import Bench, database, scratch
from soak_faults import Faults
from soak_people import Users
from soak_samples import PostgreSQL, Sample, SQLite
from tables import Table

MAX_MEMORY_GROWTH = 5.0  # MB
# The database may grow by this factor of its rows' growth, and by some more: tables grow by pages.
SLACK_FACTOR, SLACK_BYTES = 1.25, 1 << 18
# A warning reports a failure of Northflank or the database; an error is a defect.
DEFECT_LEVELS = {"error", "critical"}
SETTLE_SECONDS = 2.0  # of a pause, until the server has noticed closed connections


async def soak(table: Table, bench: Bench, minutes: int, viewers: int, postgres: str) -> None:
    """Use a dashboard for some minutes; print a line for each, and add the figures to the table."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    upstream = soak_faults.start_upstream(bench, f"http://127.0.0.1:{port}/hooks/northflank/")
    settings = {
        "NORTHFLANK_API_TOKEN": "sandbox",
        "NORTHFLANK_API_BASE_URL": f"http://127.0.0.1:{upstream.port}",
        "NORTHFLANK_WEBHOOK_SECRET": soak_faults.SECRET,
        "LOG_FORMAT": "json",
    } | ({"DATABASE_URL": postgres} if postgres else {})
    bench.manage("migrate", "-v0", **settings)
    bench.manage("shell", "--no-imports", "--command", soak_people.CREATE_ACCOUNTS, **settings)
    server = bench.start("serve", "--port", str(port), **settings)
    faults = Faults(upstream, postgres or str(bench.database))
    users = Users(server.url, upstream.server.url, viewers)
    storage = PostgreSQL(postgres) if postgres else SQLite(bench.database)
    started_at = time.monotonic()
    tasks = [asyncio.create_task(users.run()), asyncio.create_task(faults.run(started_at))]
    samples = []
    print(LINE_HEADER)
    for minute in range(1, minutes + 1):
        await _sleep_until(started_at + 60 * minute, tasks)
        async with users.pause():
            await asyncio.sleep(SETTLE_SECONDS)
            samples.append(soak_samples.take_sample(minute, server, upstream.server.url, storage))
        print(_format_line(samples[-1], users), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await users.close()
    add_growth(table, samples[max(minutes // 6, 1) - 1 :])
    counts_text = ", ".join(f"{count:,} {kind}" for kind, count in sorted(users.counts.items()))
    table.add("people", f"{viewers} viewers, {counts_text}")
    table.add("faults", str(faults.injected_count))
    add_errors(table, bench, users, faults)


async def _sleep_until(deadline: float, tasks: list[asyncio.Task[None]]) -> None:
    """Sleep until a time.monotonic; raise the error of a task that ends earlier."""
    done_tasks, _ = await asyncio.wait(
        tasks, timeout=max(deadline - time.monotonic(), 0), return_when=asyncio.FIRST_COMPLETED
    )
    for task in done_tasks:
        task.result()


def add_growth(table: Table, samples: list[Sample]) -> None:
    """Add the growth from the first to the last sample."""
    first, last = samples[0], samples[-1]
    growth = last.pss - first.pss
    table.add(
        "memory (PSS)", f"{first.pss:.1f} -> {last.pss:.1f} MB, {growth:+.1f}",
        target=f"at most {MAX_MEMORY_GROWTH:+.0f} MB", met=growth <= MAX_MEMORY_GROWTH,
    )  # fmt: skip
    growth = last.private - first.private
    table.add("... anonymous", f"{first.private:.1f} -> {last.private:.1f} MB, {growth:+.1f}")
    third = max(len(samples) // 3, 1)
    for resource_name in ("threads", "descriptors", "clients", "upstream", "database"):
        # Pools open and close connections; leaked ones stay, so the minimum of each third counts.
        before, after = (
            min(getattr(sample, resource_name) for sample in part)
            for part in (samples[:third], samples[-third:])
        )
        is_connection = resource_name not in {"threads", "descriptors"}
        label = f"connections: {resource_name}" if is_connection else resource_name
        table.add(label, f"{before} -> {after}", target="no more", met=after <= before)
    total_growth = last.size.total - first.size.total
    content_growth = last.size.content - first.size.content
    expected_growth = content_growth * first.size.total / first.size.content
    table.add(
        "database", f"{first.size.total / 1e6:.2f} -> {last.size.total / 1e6:.2f} MB,"
        f" {total_growth / 1000:+,.0f} KB; its rows explain {expected_growth / 1000:+,.0f} KB",
        target="what its rows explain",
        met=total_growth <= expected_growth * SLACK_FACTOR + SLACK_BYTES,
    )  # fmt: skip
    row_counts = Counter(last.size.rows)
    row_counts.subtract(first.size.rows)
    rows = (f"{name.removeprefix('dashboard_')} {n:+}" for name, n in row_counts.most_common() if n)
    table.add("... rows", ", ".join(rows))


def add_errors(table: Table, bench: Bench, users: Users, faults: Faults) -> None:
    """Add the failures and logged errors that no database outage explains, each kind once."""
    outage_failures = [
        failure
        for failure in users.failures
        if failure.status == 503 and faults.is_in_database_outage(failure.failed_at)
    ]
    defects = [failure.description for failure in users.failures if failure not in outage_failures]
    defects += _find_logged_defects(bench, faults)
    table.add("503 during database outages", str(len(outage_failures)))
    for defect, count in Counter(defects).most_common(20):
        table.add(f"... {count} x", defect)
    table.add("errors that no fault explains", str(len(defects)), target="0", met=not defects)


def _find_logged_defects(bench: Bench, faults: Faults) -> list[str]:
    """Return the errors in the server's log that no database outage explains."""
    defects = []
    for line in bench.log.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # not of the logger: a traceback, or a warning of Python
            defects.append(line)
            continue
        logged_at = datetime.fromisoformat(entry["timestamp"]).timestamp()
        if entry["level"] in DEFECT_LEVELS and not faults.is_in_database_outage(logged_at):
            defects.append(f"{entry['event']} {entry.get('exception', '')[-300:]}")
    return defects


LINE_HEADER = (
    "minute   PSS MB  private  threads  descriptors  clients  upstream  database  size KB"
    "    runs   pages  streams  aborts  failures"
)


def _format_line(sample: Sample, users: Users) -> str:
    return (
        f"{sample.minute:6}{sample.pss:9.1f}{sample.private:9.1f}{sample.threads:9}"
        f"{sample.descriptors:13}{sample.clients:9}{sample.upstream:10}{sample.database:10}"
        f"{sample.size.total / 1000:9,.0f}{sample.size.rows['dashboard_run']:8,}"
        f"{users.counts['pages']:8,}{users.counts['streams']:9,}{users.counts['aborts']:8,}"
        f"{len(users.failures):10}"
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
