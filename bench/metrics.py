"""A scrape of /metrics with 3,000 stages and a million runs, and what counting costs the sync.

    uv run bench/metrics.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch SQLite database, or a new one on a PostgreSQL server, with the stages of
bench/stages.py, and counters of successes and failures of each stage in four buckets. Renders both
formats in this process, and mirrors ends of runs with and without counting them. Prints one table,
and exits with 1 if a target is missed. CPU time of this process, which on SQLite includes the
database.
"""

import platform
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from unittest.mock import patch

from growth import create_runs
from processes import database_version, local_django, parse_options
from stages import create_current_runs, create_stages
from tables import Table, quantile

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
MAX_CPU_MS, MAX_STATEMENTS = 300, 10
MIRRORED_RUNS = 200


def create_counters() -> None:
    """Count runs of each stage, as the sync does."""
    from dashboard.models import Stage, counters
    from dashboard.models.counters import CounterName

    for pk in Stage.objects.values_list("pk", flat=True):
        counters.store(
            row
            for outcome in ("success", "failure")
            for seconds in (30, 200, 600, 1200)
            for row in counters.observe(
                CounterName.RUN_DURATION, seconds, "executing", outcome,
                stage=pk, run_id=f"run-{pk}",
            )
        )  # fmt: skip


def measure_ms(work: Callable[[], object], repetitions: int) -> float:
    """Return the median milliseconds of CPU time, without the first time."""
    durations = []
    for _ in range(repetitions + 1):
        started_at = time.process_time()
        work()
        durations.append((time.process_time() - started_at) * 1000)
    return quantile(0.5, durations[1:])


def mirror_ends(prefix: str) -> float:
    """Return the milliseconds of CPU time to mirror a run in flight and its end, each of a list."""
    from dashboard.db.threads import now
    from dashboard.models import Stage
    from dashboard.northflank import Run
    from dashboard.sync import mirror

    stage, at = Stage.objects.order_by("pk")[0], now()

    def run(number: int, *, concluded: bool) -> Run:
        return Run(
            id=f"{prefix}-{number}", name="Release", description=None,
            status="success" if concluded else "running", concluded=concluded,
            created_at=at, started_at=at, updated_at=at,
            concluded_at=at + timedelta(seconds=60) if concluded else None,
        )  # fmt: skip

    started_at = time.process_time()
    for number in range(MIRRORED_RUNS):
        for concluded in (False, True):
            read_at = at + timedelta(seconds=concluded)
            mirror.apply_runs(stage.pk, [run(number, concluded=concluded)], requested_at=read_at)
    return (time.process_time() - started_at) * 1000 / MIRRORED_RUNS / 2


def measure(stages: int, runs: int) -> int:
    """Measure on the database of this process's settings."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from dashboard.metrics import collector
    from dashboard.models import Run, Stage, counters

    create_stages(stages)
    create_current_runs()
    first = Run.objects.filter(concluded=True).order_by("pk")[0]
    Run.objects.filter(pk=first.pk).update(run_id="model")  # of which `create_runs` makes the rest
    create_runs(Run.objects.count(), runs, list(Stage.objects.order_by("pk")))
    create_counters()
    version = f"Python {platform.python_version()}, {database_version()}"
    print(f"{version}, {Stage.objects.count():,} stages, {Run.objects.count():,} runs")
    table = Table()
    for name, accept in {"Prometheus text": "", "OpenMetrics": OPENMETRICS}.items():
        body, _ = collector.render(accept, 0)
        ms = measure_ms(partial(collector.render, accept, 0), 5)
        lines = body.count(b"\n")
        figure = f"{ms:.0f} ms of CPU, {lines:,} lines, {len(body) / 1e6:.1f} MB"
        table.add(name, figure, target=f"≤ {MAX_CPU_MS} ms", met=ms <= MAX_CPU_MS)
    with CaptureQueriesContext(connection) as queries:
        collector.render("", 0)
    met = len(queries) <= MAX_STATEMENTS
    table.add("Statements", str(len(queries)), target=f"≤ {MAX_STATEMENTS}", met=met)

    counting, plain = [], []
    for turn in range(4):  # in turns: the speed of the machine changes
        counting.append(mirror_ends(f"counted-{turn}"))
        with patch.object(counters, "store"):
            plain.append(mirror_ends(f"plain-{turn}"))
    with_ms, without_ms = quantile(0.5, counting), quantile(0.5, plain)
    table.add("Mirroring a list with one change", f"{with_ms:.2f} ms, uncounted {without_ms:.2f}")
    table.show()
    return table.missed


def main() -> int:
    options = parse_options(__doc__, "with 300 stages and 10,000 runs")
    with local_django(options.postgres):
        return measure(*((300, 10_000) if options.quick else (3_000, 1_000_000)))


if __name__ == "__main__":
    sys.exit(bool(main()))
