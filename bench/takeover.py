"""Three processes share a PostgreSQL database; the leader is killed, or stopped for a while.

    uv run bench/takeover.py [--quick]

Needs a PostgreSQL server (TEST_POSTGRES_URL, default: the local one as postgres), where it creates
and drops a database. In turn the leader is killed and replaced, or stopped and continued later, at
random moments; each time a run is aborted in another process. Exits with 1 if reading went on after
more than 20 s, a list was requested twice at once, or an abort was lost or sent twice.
"""

import contextlib
import logging
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
from processes import (
    MAKE_MANAGER,
    POSTGRES,
    ROOT,
    Bench,
    Browser,
    Server,
    database,
    parse_options,
    scratch,
    serve_in_thread,
    wait_for,
)
from tables import Table

sys.path.insert(0, str(ROOT))
from dashboard import sandbox

MAX_WAIT = 20.0  # target: seconds until reading goes on
STOPPED_FOR = 25.0  # seconds: longer than the lead lasts
LATENCY = "latency:0.2"
FLOWS = [
    f"/projects/payments/pipelines/{pipeline}/release-flows/{stage}"
    for pipeline in ("ledger", "billing-api")
    for stage in ("staging", "production")
]
RUNS_PATH = re.compile(r"/release-flows/[^/]+/runs$")
ABORT_PATH = re.compile(r"/runs/([^/]+)/abort$")


@dataclass
class RequestLog:
    """ASGI application around the sandbox that logs reads, concurrent ones, and aborts."""

    app: Any
    read_at: list[float] = field(default_factory=list)  # by time.monotonic
    aborts: Counter[str] = field(default_factory=Counter)  # by run
    doubled: list[str] = field(default_factory=list)  # lists requested while they were being read
    forgiven: set[int] = field(default_factory=set)  # ports of processes that were killed
    _open: dict[str, int] = field(default_factory=dict)  # ports

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, port = scope["path"], scope["client"][1]
        if match := ABORT_PATH.search(path):
            self.aborts[match[1]] += 1
        list_key = f"{path}?{scope['query_string'].decode()}" if RUNS_PATH.search(path) else ""
        if list_key:
            self.read_at.append(time.monotonic())
            if list_key in self._open and self._open[list_key] not in self.forgiven:
                self.doubled.append(list_key)
            self._open[list_key] = port
        try:
            await self.app(scope, receive, send)
        finally:
            if self._open.get(list_key) == port:
                del self._open[list_key]


class Site:
    """The three processes, and their database."""

    def __init__(self, bench: Bench, settings: dict[str, str], log: RequestLog) -> None:
        self.bench, self.settings, self.log = bench, settings, log
        self.link = psycopg.connect(settings["DATABASE_URL"], autocommit=True)
        self.servers = [self.start() for _ in range(3)]
        bench.manage("shell", "--no-imports", "--command", MAKE_MANAGER, **settings)
        self.browser = Browser(self.servers[0].url)
        self.browser.sign_in("ada")

    def start(self) -> Server:
        return self.bench.start("serve", "--port", "0", **self.settings)

    def leader(self) -> list[Server]:
        """Return the process that leads, if any does."""
        row = self.link.execute("SELECT holder FROM dashboard_lead").fetchone()
        pid = row[0].split(":")[1] if row and row[0] else ""
        return [server for server in self.servers if str(server.process.pid) == pid]

    def other(self, server: Server) -> Browser:
        """Return a browser, signed in, at another process."""
        browser = Browser(next(other for other in self.servers if other is not server).url)
        browser.cookies = dict(self.browser.cookies)
        return browser

    def start_run(self) -> tuple[str, str]:
        """Start a run at Northflank; return its id and the path of its abort, once it is mirrored.

        Each stage in turn, since a run may queue behind another.
        """
        flow = FLOWS[len(aborted) % len(FLOWS)]
        url = f"{self.settings['NORTHFLANK_API_BASE_URL']}/v1{flow}/runs"
        answer = httpx.post(url, json={}, headers={"Authorization": "Bearer sandbox"}, timeout=60)
        run = answer.raise_for_status().json()["data"]
        query = "SELECT 1 FROM dashboard_run WHERE run_id = %s"
        wait_for(lambda: self.link.execute(query, [run["id"]]).fetchone(), "the run is mirrored")
        return run["id"], f"{flow}/runs/{run['id']}/abort/"


def interrupt(site: Site, *, is_kill: bool) -> float:
    """Kill or stop the leader while another process aborts; return the seconds without a read."""
    run_id, path = site.start_run()
    [leader] = wait_for(site.leader, "a process leads")
    time.sleep(random.uniform(0, 3))
    began_at = time.monotonic()
    leader.process.send_signal(signal.SIGKILL if is_kill else signal.SIGSTOP)
    if is_kill:
        leader.process.wait()
        site.log.forgiven |= set(site.log._open.values())
    response = site.other(leader).request(path, {"reason": "Stuck"}, {"HX-Request": "true"})
    assert response.status == 200, f"abort of {run_id}: {response.status}"
    aborted.append(run_id)
    read_at = wait_for(
        lambda: next((at for at in site.log.read_at if at > began_at + 0.5), 0.0), "a read"
    )
    if is_kill:
        site.servers.remove(leader)
        site.bench.running.remove(leader)
        site.servers.append(site.start())
    else:
        time.sleep(max(STOPPED_FOR - (time.monotonic() - began_at), 0))
        leader.process.send_signal(signal.SIGCONT)
        time.sleep(3)
    return read_at - began_at


aborted: list[str] = []


@contextlib.contextmanager
def run_site(bench: Bench) -> Iterator[Site]:
    options = sandbox.Options(rate_limit=1_000_000, faults=[sandbox.parse_fault(LATENCY)])
    log = RequestLog(sandbox.Sandbox(options))
    with database(POSTGRES) as url, serve_in_thread(log) as base_url:
        settings = {
            "DATABASE_URL": url,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": base_url,
        }
        bench.manage("migrate", "-v0", **settings)
        site = Site(bench, settings, log)
        try:
            yield site
        finally:
            site.link.close()
            for server in list(bench.running):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server.process.pid, signal.SIGCONT)
                bench.stop(server)


def main() -> None:
    """Measure, print, and exit with 1 if a target is missed."""
    options = parse_options(__doc__ or "", quick="4 interruptions instead of 20")
    times = 4 if options.quick else 20
    logging.disable()  # the sandbox's server logs every broken connection
    with scratch() as bench, run_site(bench) as site:
        wait_for(lambda: len(site.log.read_at) > 20, "stages are read")
        waits = [interrupt(site, is_kill=number % 2 == 0) for number in range(times)]
        unsettled = "SELECT count(*) FROM dashboard_abort WHERE settled_at IS NULL"
        wait_for(lambda: site.link.execute(unsettled).fetchone() == (0,), "all aborts have ended")
    sent = [site.log.aborts[run_id] for run_id in aborted]
    table = Table()
    worst = max(waits)
    table.add(
        f"longest time without a read ({times} times)",
        f"{worst:.1f} s",
        target=f"<= {MAX_WAIT:.0f} s",
        met=worst <= MAX_WAIT,
    )
    doubled = site.log.doubled
    table.add("lists requested twice at once", str(len(doubled)), target="0", met=not doubled)
    table.add(
        f"aborts sent once, of {len(sent)}", str(sent.count(1)), target=str(len(sent)),
        met=sent.count(1) == len(sent),
    )  # fmt: skip
    table.show()
    print(*doubled[:5], sep="\n")
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
