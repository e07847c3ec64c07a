"""Latency of pages while old runs are pruned.

    uv run bench/prune.py [--quick] [--runs 200000] [--postgres postgres://…/database]

Fills a scratch database with the runs of bench/growth.py, most of them too old, and opens Now, a
stage's page and Aborts again and again: alone, then while `manage.py prune` deletes runs in another
process, and so on in turn, since other load on the machine changes meanwhile. A pass is interrupted
after each turn; the next one continues. Prints the latencies of both, their ratio, and how fast it
prunes.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from growth import create_first_runs, create_runs, create_stages
from running import ROOT, database_version, local_django, wait_for
from tables import Table, p, spread

RETENTION_DAYS = 17  # about 5,000 runs, one every five minutes
ADDRESSES = ("/", "/projects/bench/pipelines/p0/release-flows/development/?all=1", "/aborts/")
MAX_RATIO = 1.2  # of the medians
TURNS, TURN_SECONDS = 10, 10.0
PAUSE = 0.02  # seconds between two pages, as of several people


def open_pages(view: Callable[[str], object]) -> list[float]:
    """Open the pages again and again during one turn; return the milliseconds of each view."""
    took = []
    ends_at = time.monotonic() + TURN_SECONDS
    while time.monotonic() < ends_at:
        for address in ADDRESSES:
            started_at = time.perf_counter()
            view(address)
            took.append((time.perf_counter() - started_at) * 1000)
            time.sleep(PAUSE)
    return took


@contextlib.contextmanager
def pruning(count_runs: Callable[[], int]) -> Iterator[None]:
    """Let another process delete runs, from the first batch on; at the end, interrupt it."""
    before = count_runs()
    command = [sys.executable, "manage.py", "prune"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, **quiet) as prune:  # type: ignore[call-overload]
        wait_for(lambda: count_runs() < before, "the first batch", 0.1)
        yield
        assert prune.poll() is None, "nothing is left to prune: use more runs"
        prune.send_signal(signal.SIGINT)


def measure(runs: int, turns: int) -> int:
    """Measure on the database of this process's settings."""
    import django
    from django.core.cache import cache
    from django.core.management import call_command

    django.setup()
    from django.contrib.auth.models import User
    from django.test import Client

    from dashboard.models import Run

    call_command("migrate", verbosity=0)
    by = User.objects.create_superuser("bench")
    stages = create_stages()
    create_first_runs(stages, by)
    create_runs(1, runs, stages)
    client = Client(SERVER_NAME="localhost")
    client.force_login(by)

    def view(address: str) -> None:
        cache.clear()
        assert client.get(address).status_code == 200, address

    for address in ADDRESSES:
        view(address)
    alone, beside, deleted = [], [], 0
    for _ in range(turns):
        alone += open_pages(view)
        with pruning(Run.objects.count):
            before = Run.objects.count()
            beside += open_pages(view)
            deleted += before - Run.objects.count()
    ratio = p(0.5, beside) / p(0.5, alone)
    late = p(0.95, beside) / p(0.95, alone)
    table = Table()
    table.add("Pages, alone", f"{spread(alone)}, worst {max(alone):.0f} ms")
    table.add("Pages, while runs are pruned", f"{spread(beside)}, worst {max(beside):.0f} ms")
    table.add("Ratio of the medians", f"{ratio:.2f}", target=f"<= {MAX_RATIO}",
              met=ratio <= MAX_RATIO)  # fmt: skip
    table.add("... of the 95th percentiles", f"{late:.2f}")
    pace = deleted / (turns * TURN_SECONDS)
    table.add("Pruned", f"{deleted:,} of {runs:,} runs, {pace:,.0f} a second", met=deleted > 0)
    print()
    table.show()
    print(f"\n{database_version()}", flush=True)
    return 1 if table.missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20,000 runs, fewer turns")
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--postgres", default="", help="a server, as postgres://…/database")
    chosen = parser.parse_args()
    with local_django(chosen.postgres):
        os.environ |= dict.fromkeys(("RETENTION_DAYS", "STEPS_RETENTION_DAYS"), str(RETENTION_DAYS))
        return measure(*((20_000, 3) if chosen.quick else (chosen.runs, TURNS)))


if __name__ == "__main__":
    sys.exit(main())
