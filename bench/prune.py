"""Latency of pages while old runs are pruned.

    uv run bench/prune.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch database with the runs of bench/growth.py, 50,000 of them too old, opens Now, a
stage's page and Aborts again and again, first alone, then while `manage.py prune` deletes the old
runs in another process. Prints the latencies of both, their ratio, and how fast it prunes.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from growth import create_first_runs, create_runs, create_stages
from running import ROOT, database_version, local_django, parse_options
from tables import Table, p, spread

KEPT = 5_000
ADDRESSES = ("/", "/projects/bench/pipelines/p0/release-flows/development/?all=1", "/aborts/")
MAX_RATIO = 1.5  # of the medians
PAUSE = 0.02  # seconds between two pages, as of several people


def open_pages(view: Callable[[str], object], is_over: Callable[[], bool]) -> list[float]:
    """Open the pages in turn until `is_over`; return the milliseconds of each view."""
    took = []
    while not is_over():
        for address in ADDRESSES:
            started_at = time.perf_counter()
            view(address)
            took.append((time.perf_counter() - started_at) * 1000)
            time.sleep(PAUSE)
    return took


def measure(old_runs: int) -> int:
    """Measure on the database of this process's settings."""
    import django
    from django.core.cache import cache
    from django.core.management import call_command

    django.setup()
    from django.contrib.auth.models import User
    from django.db.models import F
    from django.test import Client

    from dashboard.models import Run

    call_command("migrate", verbosity=0)
    by = User.objects.create_superuser("bench")
    stages = create_stages()
    create_first_runs(stages, by)
    create_runs(1, KEPT + old_runs, stages)
    ages = {"created_at": F("created_at") - timedelta(days=500)}
    ages["concluded_at"] = ages["started_at"] = ages["created_at"]
    old = Run.objects.order_by("created_at").values("pk")[:old_runs]
    Run.objects.filter(pk__in=list(old.values_list("pk", flat=True))).update(**ages)
    before = Run.objects.count()
    client = Client(SERVER_NAME="localhost")
    client.force_login(by)

    def view(address: str) -> None:
        cache.clear()
        assert client.get(address).status_code == 200, address

    for address in ADDRESSES:
        view(address)
    ends_at = time.monotonic() + 10
    alone = open_pages(view, lambda: time.monotonic() > ends_at)
    started_at = time.monotonic()
    command = [sys.executable, "manage.py", "prune"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as prune:
        beside = open_pages(view, lambda: prune.poll() is not None)
    seconds = time.monotonic() - started_at
    deleted = before - Run.objects.count()
    ratio = p(0.5, beside) / p(0.5, alone)
    table = Table()
    table.add("Pages, alone", spread(alone))
    table.add("Pages, while runs are pruned", f"{spread(beside)}, worst {max(beside):.0f} ms")
    table.add("Ratio of the medians", f"{ratio:.2f}", target=f"<= {MAX_RATIO}",
              met=ratio <= MAX_RATIO)  # fmt: skip
    table.add("Pruned", f"{deleted:,} runs, {deleted / seconds:,.0f} a second", met=deleted > 0)
    print()
    table.show()
    print(f"\n{database_version()}", flush=True)
    return 1 if table.missed else 0


def main() -> int:
    chosen = parse_options(__doc__, "5,000 old runs")
    with local_django(chosen.postgres):
        return measure(5_000 if chosen.quick else 50_000)


if __name__ == "__main__":
    sys.exit(main())
