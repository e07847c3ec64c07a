"""Faults that bench/soak.py injects one after another into the sandbox and the database.

Run as a script, it serves the sandbox: each line of standard input replaces its faults.
"""

import asyncio
import contextlib
import http.client
import json
import socket
import sqlite3
import subprocess
import sys
import time

from processes import ROOT, TIMEOUT, Bench, Server, Upstream

# SQLite: locked by another process. PostgreSQL: all connections terminated.
DATABASE_OUTAGE = "database-outage"
# One a minute, in this order. None of them removes anything from the mirror.
FAULTS = (
    "latency:3", "503", DATABASE_OUTAGE, "abort-lost:15", "500%0.5", "too-fast:5", "502-html@/runs",
    "bad-token", "reset%0.5", "abort-timeout:15", "truncated%0.5", "huge:20@/runs",
    "not-json@/runs", "missing-fields", "data:null@/runs",
)  # fmt: skip
# Seconds of each minute: what fails has recovered before the next sample.
FAULT_START, FAULT_END = 10, 40
OUTAGE_SECONDS, RECOVERY_SECONDS = 12.0, 20.0  # of the database; errors may follow an outage
HISTORY_HOURS = "12"  # all of it is mirrored before the first sample that is compared
RATE_LIMIT = "20000"  # requests an hour: twenty times Northflank's
SECRET = "only-for-the-bench"


# --- The sandbox: this file again, in a process of its own ----------------------------------------


def serve(arguments: list[str]) -> None:
    """Serve a sandbox with these options; print its port."""
    import argparse
    import threading

    import uvicorn
    import uvloop

    sys.path.insert(0, str(ROOT))
    from dashboard import sandbox

    parser = argparse.ArgumentParser()
    sandbox.add_arguments(parser)
    app = sandbox.Sandbox(sandbox.build_options(vars(parser.parse_args(arguments))))

    def read_faults() -> None:
        for line in sys.stdin:
            app.faults = [sandbox.parse_fault(text) for text in json.loads(line)]
            for receiver in app.webhooks.receivers:
                receiver.failure_count = 0  # as if the webhook had been enabled again

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        webhook_task = asyncio.create_task(app.webhooks.run())
        await uvicorn.Server(config).serve(sockets=[listener])
        webhook_task.cancel()

    threading.Thread(target=read_faults, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(run())


def start_upstream(bench: Bench, webhook: str) -> Upstream:
    """Start the sandbox, which sends its webhook events to the URL `webhook`."""
    options = ["--rate-limit", RATE_LIMIT, "--history-hours", HISTORY_HOURS]
    options += ["--webhook", webhook, "--webhook-secret", SECRET]
    with bench.log.with_suffix(".sandbox").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout
    port = int(process.stdout.readline())
    server = Server(process, f"http://127.0.0.1:{port}", time.perf_counter())
    bench.running.append(server)
    return Upstream(server, port, http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT))


# --- Injection ------------------------------------------------------------------------------------


class Faults:
    """Injects the faults one after another; knows when the database was unavailable."""

    def __init__(self, upstream: Upstream, database: str) -> None:
        """`database`: the path of a SQLite file, or the URL of a PostgreSQL database."""
        self.upstream, self.database = upstream, database
        self.database_outages: list[tuple[float, float]] = []  # start and end, of time.time
        self.injected_count = 0
        self._has_outage = False

    async def run(self, started_at: float) -> None:
        """Inject one fault a minute; `started_at` is of time.monotonic."""
        while True:
            fault = FAULTS[self.injected_count % len(FAULTS)]
            starts_at = started_at + 60 * self.injected_count + FAULT_START
            await asyncio.sleep(max(starts_at - time.monotonic(), 0))
            self.injected_count += 1
            if fault == DATABASE_OUTAGE:
                outage_start = time.time()
                await asyncio.to_thread(self._interrupt_database)
                self.database_outages.append((outage_start, time.time()))
            else:
                self._set_faults(fault)
                await asyncio.sleep(FAULT_END - FAULT_START)
                self._set_faults()

    def is_in_database_outage(self, timestamp: float) -> bool:
        """Return whether the database was unavailable at a time.time, or until 20 s before."""
        now = time.time()
        current_outage = [(now - OUTAGE_SECONDS, now)] if self._has_outage else []
        return any(
            start <= timestamp <= end + RECOVERY_SECONDS
            for start, end in [*self.database_outages, *current_outage]
        )

    def _set_faults(self, *faults: str) -> None:
        stdin = self.upstream.server.process.stdin
        assert stdin
        stdin.write(json.dumps(faults).encode() + b"\n")
        stdin.flush()

    def _interrupt_database(self) -> None:
        self._has_outage = True
        deadline = time.monotonic() + OUTAGE_SECONDS
        if self.database.startswith("postgres"):
            import psycopg

            with psycopg.connect(self.database, autocommit=True) as connection:
                while time.monotonic() < deadline:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                    time.sleep(1)
        else:
            with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(OUTAGE_SECONDS)
                connection.rollback()
        self._has_outage = False


if __name__ == "__main__":
    serve(sys.argv[1:])
