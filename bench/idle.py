"""Statements, CPU time and context switches of a process without open pages.

    uv run bench/idle.py [--quick] [--postgres URL]

Starts `manage.py serve` on a scratch database, and a sandbox with Northflank's rate limit in a
process of its own, waits until every stage was read, and measures for a minute. Prints the
statements a second by the function that sent them; exits with 1 if a target is missed.
"""

import argparse
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from processes import ROOT, Bench, Server, database, scratch, start_upstream, wait_for
from tables import Table

SETTLE_SECONDS = 20.0  # the first reads, then those of release flows and older runs
MIN_RATE = 0.05  # statements a second; what is less frequent is not printed

# --- The server under test: this file again, in a process of its own -----------------------------


def serve() -> None:
    """Run `manage.py serve`; write the statements so far, by origin, to a file on SIGUSR1."""
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
    sys.path.insert(0, str(ROOT))
    django.setup()
    from django.core.management import call_command
    from django.db.backends.signals import connection_created

    counts: Counter[str] = Counter()

    def count_statement(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        counts[_find_origin()] += 1
        return execute(sql, params, many, context)

    def install_counter(connection: Any, **_: Any) -> None:
        if count_statement not in connection.execute_wrappers:
            connection.execute_wrappers.append(count_statement)

    def write_counts(*_: Any) -> None:
        # A rename is atomic: the measurement never reads half of a file.
        new_file = Path(os.environ["COUNTS"]).with_suffix(".new")
        new_file.write_text(json.dumps(counts))
        new_file.rename(os.environ["COUNTS"])

    connection_created.connect(install_counter)
    signal.signal(signal.SIGUSR1, write_counts)
    call_command("serve", "--port", "0")


def _find_origin() -> str:
    """Return the innermost function of the product that is being executed."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if name := _name_product_function(frame.f_code):
            return name
        frame = frame.f_back
    return "Django"


@functools.cache
def _name_product_function(code: CodeType) -> str:
    """Return the name of a function of the product; empty for others, and for shared ones."""
    path, product = Path(code.co_filename), ROOT / "dashboard"
    # Functions of models and of prepared queries have many callers.
    shared = {product / "models", product / "db" / "prepared.py"}
    if product not in path.parents or shared & {path, *path.parents}:
        return ""
    return f"{path.relative_to(product).with_suffix('')}.{code.co_qualname}"


# --- The measurement ------------------------------------------------------------------------------


def start_server(bench: Bench, postgres: str, counts_file: Path) -> Server:
    """Start the server under test and its sandbox."""
    upstream = start_upstream(bench, "--rate-limit", "1000")
    settings = {
        "NORTHFLANK_API_TOKEN": "sandbox",
        "NORTHFLANK_API_BASE_URL": f"http://127.0.0.1:{upstream.port}",
        "COUNTS": str(counts_file),
    }
    if postgres:
        settings["DATABASE_URL"] = postgres
        bench.manage("migrate", "-v0", **settings)
    with bench.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            cwd=ROOT,
            env=bench.environment(settings),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout
    url = process.stdout.readline().decode().rpartition(" ")[2].strip()
    server = Server(process, url, time.perf_counter())
    bench.running.append(server)
    return server


def read_statement_counts(server: Server, counts_file: Path) -> Counter[str]:
    """Return the number of statements so far, by origin."""
    counts_file.unlink(missing_ok=True)
    server.process.send_signal(signal.SIGUSR1)
    wait_for(counts_file.exists, "the server writes its statement counts")
    return Counter(json.loads(counts_file.read_text()))


def read_context_switches(server: Server) -> int:
    """Return the context switches of all its threads so far."""
    total = 0
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.rpartition("\t")[2])
    return total


def measure(table: Table, bench: Bench, postgres: str, seconds: float) -> None:
    """Measure a server without users, for some seconds."""
    counts_file = bench.folder / "counts.json"
    server = start_server(bench, postgres, counts_file)
    time.sleep(SETTLE_SECONDS)
    statements_before = read_statement_counts(server, counts_file)
    cpu_before, switches_before = server.cpu_ms(), read_context_switches(server)
    time.sleep(seconds)
    statements = read_statement_counts(server, counts_file) - statements_before
    share = (server.cpu_ms() - cpu_before) / seconds / 10
    switch_rate = (read_context_switches(server) - switches_before) / seconds
    for origin, count in statements.most_common():
        if count / seconds >= MIN_RATE:
            table.add(f"… {origin}", f"{count / seconds:.2f}")
    rate = statements.total() / seconds
    table.add("statements a second", f"{rate:.1f}", target="<= 15", met=rate <= 15)
    table.add("share of a core", f"{share:.2f} %", target="<= 2 %", met=share <= 2)
    table.add("context switches a second", f"{switch_rate:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="measure for twenty seconds")
    parser.add_argument("--postgres", default="", help="postgres://user@host:port/database")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    table = Table()
    with scratch() as bench, database(options.postgres) as url:
        measure(table, bench, url, 20 if options.quick else 60)
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
