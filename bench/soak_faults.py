"""Faults of bench/soak.py, which come and go: of the sandbox, and of the database.

Started as a program, it is the sandbox: each line of standard input replaces its faults.
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

from running import PATIENCE, ROOT, Bench, Server, Upstream

DATABASE = "database"  # locked by another process, or all connections ended
# In turn, one a minute. None of them removes anything from the mirror.
FAULTS = (
    "latency:3", "503", DATABASE, "abort-lost:15", "500%0.5", "too-fast:5", "502-html@/runs",
    "bad-token", "reset%0.5", "abort-timeout:15", "truncated%0.5", "huge:20@/runs",
    "not-json@/runs", "missing-fields", "data:null@/runs",
)  # fmt: skip
BEGINS, ENDS = 10, 40  # seconds of each minute: by the next one, everything has recovered
LOCKED_SECONDS = 12.0
HISTORY_HOURS = "12"  # all of it is mirrored before the first measurement that counts
RATE_LIMIT = "20000"  # requests an hour: twenty times Northflank's
SECRET = "only-for-the-bench"


# --- The sandbox: this file again, in a process of its own ----------------------------------------


def serve(arguments: list[str]) -> None:
    """Serve a sandbox with these options; print its address."""
    import argparse
    import threading

    import uvicorn
    import uvloop

    sys.path.insert(0, str(ROOT))
    from dashboard import sandbox

    parser = argparse.ArgumentParser()
    sandbox.add_arguments(parser)
    app = sandbox.create_app(sandbox.build_options(parser.parse_args(arguments)))

    def read_faults() -> None:
        for line in sys.stdin:
            app.state.sandbox.faults = [sandbox.parse_fault(text) for text in json.loads(line)]
            for receiver in app.state.sandbox.webhooks.receivers:
                receiver.failure_count = 0  # somebody has enabled the webhook again

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        sending = asyncio.create_task(app.state.sandbox.webhooks.run())
        await uvicorn.Server(config).serve(sockets=[listener])
        sending.cancel()

    threading.Thread(target=read_faults, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(run())


def start_upstream(bench: Bench, webhook: str) -> Upstream:
    """Start the sandbox; it sends its events to the address `webhook`."""
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
    return Upstream(server, port, http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE))


# --- Their turns ----------------------------------------------------------------------------------


class Faults:
    """The faults in turn; `explain` says which one explains an error."""

    def __init__(self, upstream: Upstream, database: str) -> None:
        """`database`: the path of a SQLite file, or the address of a PostgreSQL database."""
        self.upstream, self.database = upstream, database
        self.outages: list[tuple[float, float]] = []  # of the database, by time.time
        self.count = 0

    async def run(self, started_at: float) -> None:
        """Let one fault a minute come and go; `started_at` is of time.monotonic."""
        while True:
            fault = FAULTS[self.count % len(FAULTS)]
            begins_at = started_at + 60 * self.count + BEGINS
            await asyncio.sleep(max(begins_at - time.monotonic(), 0))
            self.count += 1
            if fault == DATABASE:
                began_at = time.time()
                await asyncio.to_thread(self._break_database)
                self.outages.append((began_at, time.time()))
            else:
                self._set(fault)
                await asyncio.sleep(ENDS - BEGINS)
                self._set()

    def explains(self, at: float) -> bool:
        """Return whether the database was broken at a time, or up to 20 s before."""
        now = time.time()
        current = [(now - LOCKED_SECONDS, now)] if self._is_broken else []
        return any(first <= at <= last + 20 for first, last in [*self.outages, *current])

    _is_broken = False

    def _set(self, *faults: str) -> None:
        stdin = self.upstream.server.process.stdin
        assert stdin
        stdin.write(json.dumps(faults).encode() + b"\n")
        stdin.flush()

    def _break_database(self) -> None:
        self._is_broken = True
        until = time.monotonic() + LOCKED_SECONDS
        if self.database.startswith("postgres"):
            import psycopg

            with psycopg.connect(self.database, autocommit=True) as link:
                while time.monotonic() < until:
                    link.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                    time.sleep(1)
        else:
            with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as link:
                link.execute("BEGIN IMMEDIATE")
                time.sleep(LOCKED_SECONDS)
                link.rollback()
        self._is_broken = False


if __name__ == "__main__":
    serve(sys.argv[1:])
