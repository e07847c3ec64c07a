"""Latency of pages while old runs are pruned.

    uv run bench/prune.py [--quick | --to-the-end] [--runs 200000]
                          [--postgres postgres://…/database]

Fills a scratch database with the runs of bench/growth.py, most of them too old, and opens Now, a
stage's page and the abort log repeatedly, in turns without pruning and while `manage.py prune`
deletes runs in another process, since other load on the machine changes meanwhile. A pass is
interrupted after each turn; the next one continues. Prints the latencies of both, their ratio, and
the deleted runs a second. With `--to-the-end` the turns are spread until nothing is left to prune:
between them it prunes without pauses and without opening pages. Then it creates a tenth of the runs
again, and prints whether they needed new space.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from growth import create_first_runs, create_runs, create_stages
from processes import ROOT, database_version, local_django, wait_for
from tables import Table, format_quantiles, quantile

RETENTION_DAYS = 17  # about 5,000 runs, one every five minutes
ADDRESSES = ("/", "/projects/bench/pipelines/p0/release-flows/development/?all=1", "/aborts/")
MAX_RATIO = 1.2  # of the medians
TURNS, TURN_SECONDS = 10, 10.0
PAUSE = 0.02  # seconds between two pages, as of several users
LAST_TURN_RUNS = 20_000  # in the database before the last turn, with those that are never deleted


def measure_pages(open_page: Callable[[str], object]) -> list[float]:
    """Open the pages repeatedly during one turn; return the milliseconds of each."""
    latencies = []
    deadline = time.monotonic() + TURN_SECONDS
    while time.monotonic() < deadline:
        for address in ADDRESSES:
            started_at = time.perf_counter()
            open_page(address)
            latencies.append((time.perf_counter() - started_at) * 1000)
            time.sleep(PAUSE)
    return latencies


@contextlib.contextmanager
def prune_in_background(count_runs: Callable[[], int]) -> Iterator[None]:
    """Prune in another process, which has deleted a batch when the block begins."""
    count_before = count_runs()
    with subprocess.Popen(
        [sys.executable, "manage.py", "prune"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(lambda: count_runs() < count_before, "the first batch is deleted", 0.1)
            yield
            assert process.poll() is None, "nothing is left to prune: use more runs"
        finally:
            process.send_signal(signal.SIGINT)


def prune_without_pauses(runs: int) -> None:
    """Delete about as many runs in this process."""
    from dashboard.db.threads import now
    from dashboard.sync import pruning

    batches = pruning.prune(now())
    for _ in range(runs // pruning.BATCH_SIZE):
        next(batches)


def read_database_size() -> tuple[float, float]:
    """Return the megabytes of the database, and how many of them are free (SQLite only, else 0)."""
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


def prune_to_the_end(table: Table, create_new_runs: Callable[[], None]) -> None:
    """Run `manage.py prune` to its end, and measure whether new runs use the freed space."""
    from dashboard.models import Pruning

    size_before, _ = read_database_size()
    subprocess.run([sys.executable, "manage.py", "prune"], cwd=ROOT, check=True)
    size, free = read_database_size()
    run_count = Pruning.objects.get(pk=1).run_count
    table.add("Runs left", f"{run_count:,}, in {size:,.0f} MB, {free:,.0f} of them free")
    table.add("Growth of the database during the last pass", f"{size - size_before:.1f} MB")
    create_new_runs()
    new_size, new_free = read_database_size()
    table.add("Growth by new runs", f"{new_size - size:.1f} MB, {new_free:,.0f} MB free",
              target="0 on SQLite", met=new_size == size or not free)  # fmt: skip


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
    user = User.objects.create_superuser("bench")
    stages = create_stages()
    create_first_runs(stages, user)
    create_runs(1, runs, stages)
    client = Client(SERVER_NAME="localhost")
    client.force_login(user)

    def open_page(address: str) -> None:
        cache.clear()
        assert client.get(address).status_code == 200, address

    for address in ADDRESSES:
        open_page(address)
    # Milliseconds by turn.
    without_pruning: list[list[float]] = []
    with_pruning: list[list[float]] = []
    deleted_count = 0
    for turn in range(turns):
        if is_to_the_end and turn:
            target_count = runs - (runs - LAST_TURN_RUNS) * turn // (turns - 1)
            prune_without_pauses(Run.objects.count() - target_count)
        without_pruning.append(measure_pages(open_page))
        with prune_in_background(Run.objects.count):
            count_before = Run.objects.count()
            with_pruning.append(measure_pages(open_page))
            deleted_count += count_before - Run.objects.count()
        print(
            f"  {count_before:,} runs: {format_quantiles(without_pruning[-1])},"
            f" with pruning {format_quantiles(with_pruning[-1])}",
            file=sys.stderr,
        )
    table = Table()
    add_latencies(table, list(chain(*without_pruning)), list(chain(*with_pruning)))
    rate = deleted_count / (turns * TURN_SECONDS)
    table.add("Runs pruned while pages are opened",
              f"{deleted_count:,} of {runs:,} runs, {rate:,.0f} a second",
              met=deleted_count > 0)  # fmt: skip
    if is_to_the_end:
        ratios = sorted(
            quantile(0.5, during) / quantile(0.5, before)
            for before, during in zip(without_pruning, with_pruning, strict=True)
        )
        table.add("Ratios of the turns' medians", f"{ratios[0]:.2f} to {ratios[-1]:.2f}")
        prune_to_the_end(table, partial(create_runs, runs + 1, runs + runs // 10, stages))
    print()
    table.show()
    print(f"\n{database_version()}", flush=True)
    return 1 if table.missed else 0


def add_latencies(table: Table, without_pruning: list[float], with_pruning: list[float]) -> None:
    for label, latencies in (
        ("Pages, without pruning", without_pruning),
        ("Pages, while runs are pruned", with_pruning),
    ):
        table.add(label, f"{format_quantiles(latencies)}, max {max(latencies):.0f} ms")
    ratio = quantile(0.5, with_pruning) / quantile(0.5, without_pruning)
    p95_ratio = quantile(0.95, with_pruning) / quantile(0.95, without_pruning)
    table.add("Ratio of the medians", f"{ratio:.2f}", target=f"<= {MAX_RATIO}",
              met=ratio <= MAX_RATIO)  # fmt: skip
    table.add("... of the 95th percentiles", f"{p95_ratio:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="20,000 runs, fewer turns")
    extent.add_argument("--to-the-end", action="store_true", help="until nothing is left to prune")
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--postgres", default="", help="a server, as postgres://…/database")
    options = parser.parse_args()
    # Shells start background processes with this signal ignored, which child processes inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with local_django(options.postgres):
        os.environ |= dict.fromkeys(("RETENTION_DAYS", "STEPS_RETENTION_DAYS"), str(RETENTION_DAYS))
        runs, turns = (20_000, 3) if options.quick else (options.runs, TURNS)
        return measure(runs, turns, is_to_the_end=options.to_the_end)


if __name__ == "__main__":
    sys.exit(main())
