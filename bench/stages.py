"""Pages and rounds of the stream with 30, 300 and 3,000 stages.

    uv run bench/stages.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch SQLite database, or a new one on a PostgreSQL server, in steps: three stages a
pipeline, ten pipelines a project, thirty concluded runs a stage; 25 runs in flight and 5 recent
failures. After each step it opens pages from one process as a release manager, with rendered rows
and charts cached, and does what the stream does for a viewer after a change. Prints one table, and
exits with 1 if a target is missed. On SQLite it measures this process's CPU time, which includes
the database and which other load hardly changes; on PostgreSQL the duration.
"""

import platform
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from processes import database_version, local_django, parse_options
from tables import Table, quantile

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from dashboard.models import Run, Stage

PIPELINES_PER_PROJECT, RUNS_PER_STAGE = 10, 30
IN_FLIGHT_RUNS, FAILED_RUNS = 25, 5
# Milliseconds by number of stages; kilobytes of a page before compression.
BOARD_TARGETS = {300: 20, 3_000: 60}
STAGE_ROUND_TARGETS = {3_000: 5}
MAX_HTML_KB = 250


def create_stages(count: int) -> None:
    """Create stages with their runs until there are this many."""
    from django.db import connection
    from django.utils import timezone

    from dashboard.models import Pipeline, Project, Run, Stage
    from dashboard.models.catalog import StageName

    now = timezone.now()
    for number in range(Pipeline.objects.count(), count // 3):
        project, _ = Project.objects.get_or_create(
            slug=f"project-{number // PIPELINES_PER_PROJECT:03}", defaults={"synced_at": now}
        )
        pipeline = Pipeline.objects.create(
            project=project, slug=f"pipeline-{number:04}", name=f"Pipeline {number}", synced_at=now
        )
        stages = Stage.objects.bulk_create(
            Stage(
                pipeline=pipeline, name=name, has_flow=True,
                synced_at=now, next_sync_at=now, fresh_until=now + timedelta(days=1),
            )
            for name in StageName.values
        )  # fmt: skip
        Run.objects.bulk_create(
            _build_concluded_run(stage, position, now - timedelta(days=1, hours=position))
            for stage in stages
            for position in range(RUNS_PER_STAGE)
        )
    if connection.vendor == "postgresql":  # as autovacuum does
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def create_current_runs() -> None:
    """Create the runs in flight and the recent failures, in different pipelines."""
    from django.utils import timezone

    from dashboard.models import Run, Stage

    now = timezone.now()
    stages = Stage.objects.order_by("pk")
    common = {"created_at": now, "first_synced_at": now, "synced_at": now, "status_since": now,
              "started_at": now, "version": 1}  # fmt: skip
    for number in range(IN_FLIGHT_RUNS):
        Run.objects.create(
            **common, stage=stages[number], run_id=f"in-flight-{number}", name=f"Release {number}",
            status="running", concluded=False, in_flight=True,
        )  # fmt: skip
    for number in range(FAILED_RUNS):
        run = _build_concluded_run(stages[number * 3], RUNS_PER_STAGE + number, now)
        run.status = "failure"
        run.save()


def _build_concluded_run(stage: "Stage", number: int, concluded_at: datetime) -> "Run":
    from dashboard.models import Run

    return Run(
        stage=stage, run_id=f"run-{stage.pk}-{number}", name=f"Release {number}",
        status="success", concluded=True, in_flight=False, created_at=concluded_at,
        started_at=concluded_at, concluded_at=concluded_at, first_synced_at=concluded_at,
        synced_at=concluded_at, status_since=concluded_at, version=1,
    )  # fmt: skip


class Workload:
    """The measured operations, as this user."""

    def __init__(self, user: "User") -> None:
        from django.test import Client

        from dashboard.accounts import permissions
        from dashboard.models import Run

        self.permissions = permissions.for_user(user)
        self.client = Client(SERVER_NAME="localhost")
        self.client.force_login(user)
        self.run = Run.objects.get(run_id="in-flight-0")

    def change_run(self) -> None:
        """Give the run a new version, as the sync does."""
        from django.db import transaction

        from dashboard.models.runs import mark_changed

        with transaction.atomic():
            mark_changed([self.run.pk])

    def open_page(self, address: str) -> int:
        """Return the bytes of the page's HTML."""
        response = self.client.get(address)
        assert response.status_code == 200, address
        return len(response.content)

    def run_round(self, page: str, key: int) -> int:
        """Return the number of changed and status parts of the page, sent before or not."""
        from dashboard.models import ChangeCounter
        from dashboard.web.live import changes

        channel = changes.Channel(page, key, self.permissions)
        change_set = changes.load_changes(ChangeCounter.latest() - 1)
        return len([*change_set.changed_parts(channel), *change_set.status_parts(channel)])

    def list_pages(self) -> dict[str, Callable[[], int]]:
        """Return the operations that open a page, by name."""
        flow = "/projects/project-000/pipelines/pipeline-0000/release-flows/development/"
        addresses = {
            "Board": "/board/", "Now": "/", "Stage": f"{flow}?all=1",
            "Run": f"{flow}runs/in-flight-0/", "Status": "/health/",
        }  # fmt: skip
        return {name: partial(self.open_page, address) for name, address in addresses.items()}

    def list_rounds(self) -> dict[str, Callable[[], int]]:
        """Return the operations of the stream, by name."""
        keys = {"board": 0, "now": 0, "stage": self.run.stage_id, "run": self.run.pk, "health": 0}
        return {
            f"Stream of {page}, one round": partial(self.run_round, page, key)
            for page, key in keys.items()
        }


def measure_median(
    operation: Callable[[], int],
    prepare: Callable[[], None],
    repetitions: int,
    clock: Callable[[], float],
) -> float:
    """Return the median milliseconds of an operation, without the first, which fills the cache.

    `prepare` is called before each and not counted.
    """
    durations = []
    for _ in range(repetitions + 1):
        prepare()
        started_at = clock()
        operation()
        durations.append((clock() - started_at) * 1000)
    return quantile(0.5, durations[1:])


def measure(sizes: list[int], repetitions: int) -> int:
    """Measure on the database of this process's settings."""
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    from django.contrib.auth.models import User

    call_command("migrate", verbosity=0)
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.vendor]
    clock = time.process_time if name == "SQLite" else time.perf_counter
    user = User.objects.create_superuser("bench")
    medians: dict[str, dict[int, float]] = {}
    kilobytes: dict[str, float] = {}
    for size in sizes:
        create_stages(size)
        if size == sizes[0]:
            create_current_runs()
        print(f"  {name}: {size:,} stages", file=sys.stderr)
        workload = Workload(user)
        pages = workload.list_pages()
        for label, operation in (pages | workload.list_rounds()).items():
            medians.setdefault(label, {})[size] = measure_median(
                operation, workload.change_run, repetitions, clock
            )
        kilobytes = {
            label: max(kilobytes.get(label, 0), open_page() / 1000)
            for label, open_page in pages.items()
        }
    table = Table()
    for label, figures in medians.items():
        limits = {"Board": BOARD_TARGETS, "Stream of stage, one round": STAGE_ROUND_TARGETS}.get(
            label, {}
        )
        table.add(
            f"{name}: {label}", f"{', '.join(f'{figure:.1f}' for figure in figures.values())} ms",
            target=", ".join(f"{limit} ms at {size:,}" for size, limit in limits.items()),
            met=all(figures.get(size, 0) <= limit for size, limit in limits.items())
            if limits else None,
        )  # fmt: skip
    for label, figure in kilobytes.items():
        limit = MAX_HTML_KB if label == "Board" else None
        table.add(
            f"{name}: {label}, HTML at most", f"{figure:.0f} KB",
            target=f"<= {limit} KB" if limit else "", met=figure <= limit if limit else None,
        )  # fmt: skip
    print(f"\nStages: {', '.join(f'{size:,}' for size in sizes)}; medians of {repetitions}\n")
    table.show()
    print(f"\nPython {platform.python_version()}, {database_version()}", flush=True)
    connection.close()
    return 1 if table.missed else 0


def main() -> int:
    options = parse_options(__doc__, "fewer repetitions")
    with local_django(options.postgres):
        return measure([30, 300, 3_000], 5 if options.quick else 30)


if __name__ == "__main__":
    sys.exit(main())
