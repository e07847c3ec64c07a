"""What one process does while nobody looks: statements, CPU time and context switches.

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
from types import CodeType
from typing import Any

from running import ROOT, Bench, Server, database, scratch, start_upstream, wait_for
from tables import Table

SETTLING = 20.0  # seconds after the first reads: release flows and older runs are read then
SMALLEST_SHOWN = 0.05  # statements a second

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

    def count(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        counts[_origin()] += 1
        return execute(sql, params, many, context)

    def install(connection: Any, **_: Any) -> None:
        if count not in connection.execute_wrappers:
            connection.execute_wrappers.append(count)

    def write(*_: Any) -> None:
        scratch_file = Path(os.environ["COUNTS"]).with_suffix(".new")
        scratch_file.write_text(json.dumps(counts))
        scratch_file.rename(os.environ["COUNTS"])

    connection_created.connect(install)
    signal.signal(signal.SIGUSR1, write)
    call_command("serve", "--port", "0")


def _origin() -> str:
    """Return the innermost function of the product that is being executed."""
    frame = sys._getframe(2)
    while frame is not None:
        if name := _product_function(frame.f_code):
            return name
        frame = frame.f_back
    return "Django"


@functools.cache
def _product_function(code: CodeType) -> str:
    """Return the name of a function of the product; empty for others, and for its models."""
    path, product = Path(code.co_filename), ROOT / "dashboard"
    # The functions of models, and those that send what is composed once, have many callers.
    shared = {product / "models", product / "db" / "prepared.py"}
    if product not in path.parents or shared & {path, *path.parents}:
        return ""
    return f"{path.relative_to(product).with_suffix('')}.{code.co_qualname}"


# --- The measurement ------------------------------------------------------------------------------


def start(bench: Bench, postgres: str, counts: Path) -> Server:
    """Start the server under test and its sandbox."""
    upstream = start_upstream(bench, "--rate-limit", "1000")
    settings = {
        "NORTHFLANK_API_TOKEN": "sandbox",
        "NORTHFLANK_API_BASE_URL": f"http://127.0.0.1:{upstream.port}",
        "COUNTS": str(counts),
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


def statements(server: Server, counts: Path) -> Counter[str]:
    """Return the statements sent so far, by origin."""
    counts.unlink(missing_ok=True)
    server.process.send_signal(signal.SIGUSR1)
    wait_for(counts.exists, "the counts")
    return Counter(json.loads(counts.read_text()))


def context_switches(server: Server) -> int:
    """Return the context switches of all its threads so far."""
    total = 0
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.rpartition("\t")[2])
    return total


def measure(table: Table, bench: Bench, postgres: str, seconds: float) -> None:
    """Measure a server that nobody uses."""
    counts = bench.folder / "counts.json"
    server = start(bench, postgres, counts)
    time.sleep(SETTLING)
    before, cpu, switches = statements(server, counts), server.cpu_ms(), context_switches(server)
    time.sleep(seconds)
    sent = statements(server, counts) - before
    share = (server.cpu_ms() - cpu) / seconds / 10
    switches_per_second = (context_switches(server) - switches) / seconds
    for origin, count in sent.most_common():
        if count / seconds >= SMALLEST_SHOWN:
            table.add(f"… {origin}", f"{count / seconds:.2f}")
    rate = sent.total() / seconds
    table.add("statements a second", f"{rate:.1f}", target="<= 15", met=rate <= 15)
    table.add("share of a core", f"{share:.2f} %", target="<= 2 %", met=share <= 2)
    table.add("context switches a second", f"{switches_per_second:.0f}")


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
