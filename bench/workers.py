"""Three workers share one PostgreSQL database; one is killed while it reads. Prints a table.

    uv run bench/workers.py

Needs a PostgreSQL server (TEST_POSTGRES_URL, default: the local one as postgres), where it creates
and drops a database. Exits with 1 if a stage of the killed worker was not read for 30 s, or if a
stage was read before its scheduled time.
"""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from running import ROOT, Bench, scratch, serve_in_thread, wait_for

sys.path.insert(0, str(ROOT))
from dashboard import sandbox

POSTGRES = os.environ.get("TEST_POSTGRES_URL") or "postgres://postgres@127.0.0.1:5432/postgres"
WORKERS = 3
SLOW = "latency:2@/release-flows/"  # so that leases are held for a while
WATCH = 75  # seconds after the kill; a stage with runs in flight is read every 20 s
MOST = 30  # target: seconds until the killed worker's stages are read again
CLOCKS = 0.25  # seconds: a worker's clock offset, and the network
STAGE = re.compile(r"/projects/([^/]+)/pipelines/([^/]+)/release-flows/([^/]+)")


@dataclass
class Reading:
    """A request for the first page of a stage's runs, as logged by the sandbox."""

    stage: str
    port: int  # of the worker's connection
    began: float  # of time.time
    ended: float | None = None


@dataclass
class Log:
    """ASGI application around the sandbox that logs requests."""

    app: Any
    readings: list[Reading] = field(default_factory=list)
    requests: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        match = STAGE.search(scope["path"])
        first_page = re.search(rb"\bpage=1\b", scope["query_string"])
        if not match or not first_page:
            await self.app(scope, receive, send)
            return
        stage = "/".join(match.groups()).lower()
        reading = Reading(stage, scope["client"][1], time.time())
        self.readings.append(reading)
        await self.app(scope, receive, send)
        reading.ended = time.time()


@contextlib.contextmanager
def upstream() -> Iterator[tuple[str, Log]]:
    """Serve a sandbox from this process."""
    options = sandbox.Options(rate_limit=1_000_000, faults=[sandbox.parse_fault(SLOW)])
    log = Log(sandbox.create_app(options))
    with serve_in_thread(log) as url:
        yield url, log


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Create a PostgreSQL database, and drop it at the end."""
    name = f"dashboard_bench_{os.getpid()}"
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield re.sub(r"/[^/]*$", f"/{name}", POSTGRES)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def workers(bench: Bench, **settings: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the workers until the block ends."""
    with bench.log.open("ab") as log:
        running = [
            subprocess.Popen(
                [sys.executable, "manage.py", "sync"],
                cwd=ROOT, env=bench.environment(settings), stdout=log, stderr=log,
            )
            for _ in range(WORKERS)
        ]  # fmt: skip
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def ports(pid: int) -> set[int]:
    """The local ports of a process's connections."""
    files = Path(f"/proc/{pid}/fd").iterdir()
    sockets = {match[1] for file in files if (match := re.match(r"socket:\[(\d+)\]", _link(file)))}
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in table if row[9] in sockets}


def _link(file: Path) -> str:
    with contextlib.suppress(OSError):
        return str(file.readlink())
    return ""


PROMISES = """
SELECT lower(project.slug || '/' || pipeline.slug || '/' || stage.name),
  extract(epoch FROM stage.synced_at)::float, extract(epoch FROM stage.fresh_until)::float
FROM dashboard_stage stage
JOIN dashboard_pipeline pipeline ON pipeline.id = stage.pipeline_id
JOIN dashboard_project project ON project.id = pipeline.project_id
WHERE stage.fresh_until IS NOT NULL
"""


def watch(url: str, seconds: float, promises: dict[str, dict[float, float]]) -> None:
    """Record the scheduled time of each stage's next read, for some seconds."""
    until = time.time() + seconds
    with psycopg.connect(url, autocommit=True) as connection:
        while time.time() < until:
            for stage, synced, due_at in connection.execute(PROMISES):
                promises.setdefault(stage, {})[synced] = due_at
            time.sleep(0.2)


def early(readings: list[Reading], promises: dict[str, dict[float, float]]) -> list[str]:
    """Return the reads that came before the scheduled time."""
    violations = []
    before: dict[str, Reading] = {}
    for reading in readings:
        last = before.get(reading.stage)
        if last is not None:
            # A read is stamped with its start, shortly before its first request for runs.
            of_last = [
                due_at
                for synced, due_at in promises.get(reading.stage, {}).items()
                if last.began - 10 < synced <= last.began + CLOCKS
            ]
            if of_last and reading.began < max(of_last) - CLOCKS:
                violations.append(f"{reading.stage}: {max(of_last) - reading.began:.1f} s early")
        before[reading.stage] = reading
    return violations


def main() -> None:
    """Measure, print, and exit with 1 if a target is missed."""
    logging.disable()  # the sandbox's server logs every broken connection
    promises: dict[str, dict[float, float]] = {}
    with scratch() as bench, database() as url, upstream() as (base_url, log):
        settings = {
            "DATABASE_URL": url,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": base_url,
        }
        bench.manage("migrate", "-v0", **settings)
        with workers(bench, **settings) as running:
            victim = running[0]

            def open_readings() -> list[Reading]:
                victim_ports = ports(victim.pid)
                return [
                    candidate
                    for candidate in log.readings
                    if candidate.ended is None and candidate.port in victim_ports
                ]

            # While all slots are used: at the first read of all stages.
            lost_readings = wait_for(
                lambda: len(victim_ports := open_readings()) >= 2 and victim_ports,
                "the victim reads",
            )
            killed_at = time.time()
            victim.send_signal(signal.SIGKILL)
            watch(url, WATCH, promises)
        shares = Counter(candidate.port for candidate in log.readings)
    again = {
        reading.stage: min(
            (candidate.began - killed_at for candidate in log.readings
             if candidate.stage == reading.stage and candidate.began > killed_at),
            default=float("inf"),
        )
        for reading in lost_readings
    }  # fmt: skip
    too_early = early(log.readings, promises)
    print(f"Requests: {log.requests}, reads of a stage: {len(log.readings)}")
    print(f"Connections that read: {len(shares)}, of {WORKERS} workers")
    for stage, seconds in again.items():
        print(f"{stage}: held by the killed worker, read again after {seconds:.1f} s")
    print(f"Reads checked against their scheduled time: {sum(map(len, promises.values()))}")
    print(f"Read before the scheduled time: {len(too_early)}", *too_early, sep="\n  ")
    sys.exit(max(again.values()) > MOST or bool(too_early))


if __name__ == "__main__":
    main()
