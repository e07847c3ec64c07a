"""Three workers share one PostgreSQL database; one is killed while it reads. Prints a table.

    uv run bench/workers.py

Needs a PostgreSQL server (TEST_POSTGRES_URL, default: the local one as postgres), where it creates
and drops a database. Exits with 1 if a stage of the killed worker was not read for 30 s, or if a
stage was read again while it was being read or within a second.
"""

import contextlib
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import POSTGRES, ROOT, Bench, database, scratch, serve_in_thread, wait_for

sys.path.insert(0, str(ROOT))
from dashboard import sandbox

WORKERS = 3
LATENCY = "latency:2@/release-flows/"  # a worker must hold leases when it is killed
OBSERVATION_SECONDS = 75  # after the kill; a stage with runs in flight is read every 20 s
MAX_WAIT = 30  # target: seconds until the killed worker's stages are read again
MIN_PAUSE = 1.0  # seconds; the schedule has at least ten between two reads of a stage
STAGE_PATH = re.compile(r"/projects/([^/]+)/pipelines/([^/]+)/release-flows/([^/]+)")


@dataclass
class StageRead:
    """A request for the first page of a stage's runs, as logged by the sandbox."""

    stage: str
    port: int  # of the worker's connection
    started_at: float  # of time.time
    ended_at: float | None = None


@dataclass
class RequestLog:
    """ASGI application around the sandbox that logs requests."""

    app: Any
    reads: list[StageRead] = field(default_factory=list)
    request_count: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.request_count += 1
        match = STAGE_PATH.search(scope["path"])
        first_page = re.search(rb"\bpage=1\b", scope["query_string"])
        if not match or not first_page:
            await self.app(scope, receive, send)
            return
        stage = "/".join(match.groups()).lower()
        read = StageRead(stage, scope["client"][1], time.time())
        self.reads.append(read)
        await self.app(scope, receive, send)
        read.ended_at = time.time()


@contextlib.contextmanager
def serve_upstream() -> Iterator[tuple[str, RequestLog]]:
    """Serve a sandbox from this process; yield its URL and its log."""
    options = sandbox.Options(rate_limit=1_000_000, faults=[sandbox.parse_fault(LATENCY)])
    log = RequestLog(sandbox.Sandbox(options))
    with serve_in_thread(log) as url:
        yield url, log


@contextlib.contextmanager
def run_workers(bench: Bench, **settings: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the workers until the block ends."""
    with bench.log.open("ab") as log:
        workers = [
            subprocess.Popen(
                [sys.executable, "manage.py", "sync"],
                cwd=ROOT, env=bench.environment(settings), stdout=log, stderr=log,
            )
            for _ in range(WORKERS)
        ]  # fmt: skip
    try:
        yield workers
    finally:
        for process in workers:
            process.kill()
            process.wait()


def list_ports(pid: int) -> set[int]:
    """Return the local ports of a process's connections."""
    targets = map(_read_link, Path(f"/proc/{pid}/fd").iterdir())
    inodes = {match[1] for target in targets if (match := re.match(r"socket:\[(\d+)\]", target))}
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in table if row[9] in inodes}


def _read_link(file: Path) -> str:
    with contextlib.suppress(OSError):
        return str(file.readlink())
    return ""


def find_repeated_reads(reads: list[StageRead], lost_reads: list[StageRead]) -> list[str]:
    """Return descriptions of the reads that began before the last one of their stage had ended.

    Or within MIN_PAUSE of its end. `lost_reads`, those of the killed worker, have to be repeated.
    """
    repeated = []
    last_reads: dict[str, StageRead] = {}
    for read in reads:
        last_read = last_reads.get(read.stage)
        if last_read is not None and last_read not in lost_reads:
            pause = read.started_at - (last_read.ended_at or float("inf"))
            if pause < MIN_PAUSE:
                repeated.append(f"{read.stage}: {pause:.1f} s after the end of the last read")
        last_reads[read.stage] = read
    return repeated


def main() -> None:
    """Measure, print, and exit with 1 if a target is missed."""
    logging.disable()  # the sandbox's server logs every broken connection
    with scratch() as bench, database(POSTGRES) as url, serve_upstream() as (base_url, log):
        settings = {
            "DATABASE_URL": url,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": base_url,
        }
        bench.manage("migrate", "-v0", **settings)
        with run_workers(bench, **settings) as workers:
            killed_worker = workers[0]

            def find_unfinished_reads() -> list[StageRead]:
                worker_ports = list_ports(killed_worker.pid)
                return [
                    read
                    for read in log.reads
                    if read.ended_at is None and read.port in worker_ports
                ]

            # The first read of all stages uses all slots of the workers.
            lost_reads = wait_for(
                lambda: reads if len(reads := find_unfinished_reads()) >= 2 else [],
                "the worker reads two stages",
            )
            killed_at = time.time()
            killed_worker.send_signal(signal.SIGKILL)
            time.sleep(OBSERVATION_SECONDS)
        ports = {read.port for read in log.reads}
    waits = {
        lost_read.stage: min(
            (read.started_at - killed_at for read in log.reads
             if read.stage == lost_read.stage and read.started_at > killed_at),
            default=float("inf"),
        )
        for lost_read in lost_reads
    }  # fmt: skip
    repeated = find_repeated_reads(log.reads, lost_reads)
    print(f"Requests: {log.request_count}, reads of a stage: {len(log.reads)}")
    print(f"Connections that read: {len(ports)}, of {WORKERS} workers")
    for stage, seconds in waits.items():
        print(f"{stage}: held by the killed worker, read again after {seconds:.1f} s")
    print(
        f"Reads of a stage that was being read, or a second ago: {len(repeated)}",
        *repeated,
        sep="\n  ",
    )
    sys.exit(max(waits.values()) > MAX_WAIT or bool(repeated))


if __name__ == "__main__":
    main()
