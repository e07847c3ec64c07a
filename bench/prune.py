"""Latency of pages while old runs are pruned.

    uv run bench/prune.py [--quick | --to-the-end] [--runs 200000]
                          [--postgres postgres://…/database]

Fills a scratch database with the runs of bench/growth.py, most of them too old, and opens Now, a
stage's page and Aborts again and again: alone, then while `manage.py prune` deletes runs in another
process, and so on in turn, since other load on the machine changes meanwhile. A pass is interrupted
after each turn; the next one continues. Prints the latencies of both, their ratio, and how fast it
prunes. With `--to-the-end` the turns are spread over the whole way until nothing is left to prune:
between them it prunes without pauses and without a page. Then it creates a tenth of the
runs again, and prints whether they needed new space.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain

from growth import create_first_runs, create_runs, create_stages
from running import ROOT, database_version, local_django, wait_for
from tables import Table, p, spread

RETENTION_DAYS = 17  # about 5,000 runs, one every five minutes
ADDRESSES = ("/", "/projects/bench/pipelines/p0/release-flows/development/?all=1", "/aborts/")
MAX_RATIO = 1.2  # of the medians
TURNS, TURN_SECONDS = 10, 10.0
PAUSE = 0.02  # seconds between two pages, as of several people
RUNS_OF_LAST_TURN = 20_000  # that are left before it, with those that are kept


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
        try:
            wait_for(lambda: count_runs() < before, "the first batch", 0.1)
            yield
            assert prune.poll() is None, "nothing is left to prune: use more runs"
        finally:
            prune.send_signal(signal.SIGINT)


def prune_without_pauses(runs: int) -> None:
    """Delete about as many runs in this process."""
    from dashboard.db.threads import now
    from dashboard.sync import pruning as rules

    assert rules.claim(now(), is_requested=True), "another process prunes"
    with contextlib.closing(rules.prune(now())) as batches:
        for _ in range(runs // rules.BATCH_SIZE):
            next(batches)
    rules.release()


def space() -> tuple[float, float]:
    """Return the megabytes of the database, and those of them that are free, on SQLite."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database()) / 1e6, 0")
        else:
            cursor.execute(
                "SELECT page_count * page_size / 1e6, freelist_count * page_size / 1e6"
                " FROM pragma_page_count(), pragma_page_size(), pragma_freelist_count()"
            )
        size, free = cursor.fetchone()
    return float(size), float(free)


def prune_the_rest(table: Table, refill: Callable[[int], None], runs: int) -> None:
    """Let `manage.py prune` come to its end, and see whether new runs use the freed space."""
    from dashboard.models import Pruning

    before = space()
    subprocess.run([sys.executable, "manage.py", "prune"], cwd=ROOT, check=True)
    after = space()
    last = Pruning.objects.get(pk=1)
    table.add(
        "Runs left", f"{last.run_count:,}, in {after[0]:,.0f} MB, {after[1]:,.0f} of them free"
    )
    table.add("Growth of the database during the last pass", f"{after[0] - before[0]:.1f} MB")
    refill(runs)
    refill_space = space()
    table.add("Growth by new runs",
              f"{refill_space[0] - after[0]:.1f} MB, {refill_space[1]:,.0f} MB free",
              target="0 on SQLite", met=refill_space[0] == after[0] or not after[1])  # fmt: skip


def measure(runs: int, turns: int, *, is_to_the_end: bool) -> int:
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
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    deleted_count = 0
    for turn in range(turns):
        if is_to_the_end and turn:
            target_count = runs - (runs - RUNS_OF_LAST_TURN) * turn // (turns - 1)
            prune_without_pauses(Run.objects.count() - target_count)
        alone.append(open_pages(view))
        with pruning(Run.objects.count):
            before = Run.objects.count()
            beside.append(open_pages(view))
            deleted_count += before - Run.objects.count()
        print(f"  {before:,} runs: {spread(alone[-1])} and {spread(beside[-1])}", file=sys.stderr)
    table = Table()
    add_figures(table, list(chain(*alone)), list(chain(*beside)))
    pace = deleted_count / (turns * TURN_SECONDS)
    table.add("Pruned beside pages", f"{deleted_count:,} of {runs:,} runs, {pace:,.0f} a second",
              met=deleted_count > 0)  # fmt: skip
    if is_to_the_end:
        ratios = sorted(p(0.5, b) / p(0.5, a) for a, b in zip(alone, beside, strict=True))
        table.add("Ratios of the turns' medians", f"{ratios[0]:.2f} to {ratios[-1]:.2f}")
        prune_the_rest(
            table, lambda number: create_runs(runs + 1, runs + number, stages), runs // 10
        )
    print()
    table.show()
    print(f"\n{database_version()}", flush=True)
    return 1 if table.missed else 0


def add_figures(table: Table, alone: list[float], beside: list[float]) -> None:
    ratio = p(0.5, beside) / p(0.5, alone)
    late = p(0.95, beside) / p(0.95, alone)
    table.add("Pages, alone", f"{spread(alone)}, worst {max(alone):.0f} ms")
    table.add("Pages, while runs are pruned", f"{spread(beside)}, worst {max(beside):.0f} ms")
    table.add("Ratio of the medians", f"{ratio:.2f}", target=f"<= {MAX_RATIO}",
              met=ratio <= MAX_RATIO)  # fmt: skip
    table.add("... of the 95th percentiles", f"{late:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="20,000 runs, fewer turns")
    extent.add_argument("--to-the-end", action="store_true", help="until nothing is left to prune")
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--postgres", default="", help="a server, as postgres://…/database")
    chosen = parser.parse_args()
    # Shells start what runs in the background with this signal ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with local_django(chosen.postgres):
        os.environ |= dict.fromkeys(("RETENTION_DAYS", "STEPS_RETENTION_DAYS"), str(RETENTION_DAYS))
        runs, turns = (20_000, 3) if chosen.quick else (chosen.runs, TURNS)
        return measure(runs, turns, is_to_the_end=chosen.to_the_end)


if __name__ == "__main__":
    sys.exit(main())
