"""Pages and rounds of the stream with 1,000, 100,000 and 1,000,000 runs.

    uv run bench/growth.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch SQLite database, or a new one on a PostgreSQL server, for each size: 8 pipelines, 50
runs in flight, 288 more a day, 100 aborts. A process for each opens pages as a release manager,
with rendered rows cached, and does what the stream does for a viewer after a change. The processes
take turns, so that the ratios hold on a machine whose speed changes. Prints one table, and exits
with 1 if a target is missed. On SQLite it measures the process's CPU time, which includes the
database; on PostgreSQL the duration.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from processes import database_version, local_django, options_parser
from tables import Table, quantile

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from dashboard.models import Stage

PIPELINES, IN_FLIGHT, ABORTS = 8, 50, 100
MAX_RATIO = 1.2
STATUS = "CASE WHEN n %% 20 = 3 THEN 'failure' WHEN n %% 50 = 1 THEN 'aborted' ELSE 'success' END"


def create_stages() -> list["Stage"]:
    """Create three stages a pipeline, all of them fresh."""
    from django.utils import timezone

    from dashboard.models import Pipeline, Project, Stage
    from dashboard.models.catalog import StageName

    now = timezone.now()
    project = Project.objects.create(slug="bench", name="Bench", synced_at=now)
    pipelines = [
        Pipeline.objects.create(project=project, slug=f"p{n}", name=f"P {n}", synced_at=now)
        for n in range(PIPELINES)
    ]
    return [
        Stage.objects.create(
            pipeline=pipeline, name=name, has_flow=True,
            synced_at=now, next_sync_at=now, fresh_until=now + timedelta(days=1),
        )
        for pipeline in pipelines
        for name in StageName.values
    ]  # fmt: skip


def create_first_runs(stages: list["Stage"], user: "User") -> None:
    """Create the runs in flight, those that `user` aborted, and the template of all others."""
    from datetime import timedelta

    from django.utils import timezone

    from dashboard.models import Abort, Run

    now = timezone.now()
    common = {"created_at": now, "first_synced_at": now, "synced_at": now, "status_since": now,
              "started_at": now, "version": 1}  # fmt: skip
    for number in range(IN_FLIGHT):
        Run.objects.create(
            **common, stage=stages[number % len(stages)], run_id=f"in-flight-{number}",
            name=f"Release {number}", status="running", concluded=False, in_flight=True,
        )  # fmt: skip
    conclusion = {"concluded": True, "in_flight": False, "concluded_at": now}
    for number in range(ABORTS):
        aborted_at = now - timedelta(days=2, minutes=number)
        run = Run.objects.create(
            **common | conclusion | {"created_at": aborted_at, "concluded_at": aborted_at},
            stage=stages[0], run_id=f"aborted-{number}", name=f"Aborted {number}",
            status="aborted",
        )  # fmt: skip
        Abort.objects.create(
            run=run, user=user, username=user.username, state="concluded", outcome="aborted",
            requested_at=aborted_at, claimed_at=aborted_at, sent_at=aborted_at,
            responded_at=aborted_at, settled_at=aborted_at,
        )  # fmt: skip
    Run.objects.create(
        **common | conclusion, stage=stages[0], run_id="model", name="Model", status="success"
    )


def create_runs(first: int, last: int, stages: list["Stage"]) -> None:
    """Create concluded runs by SQL, one every five minutes into the past, in all stages in turn."""
    from django.db import connection

    from dashboard.models import Run

    columns = [
        field.column
        for field in Run._meta.concrete_fields
        if field.column and not field.primary_key and not field.generated
    ]
    if connection.vendor == "sqlite":
        created_at = (
            "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', created_at, '-' || (n * 5) || ' minutes')"
        )
        series = (
            "WITH RECURSIVE numbers(n) AS"
            " (SELECT %s UNION ALL SELECT n + 1 FROM numbers WHERE n < %s)"
        )
    else:
        created_at = "created_at - n * interval '5 minutes'"
        series = "WITH numbers AS (SELECT generate_series(%s, %s) AS n)"
    expressions = {
        "run_id": "'run-' || n", "name": "'Release ' || n", "status": STATUS,
        "stage_id": f"{stages[0].pk} + n %% {len(stages)}",
        "created_at": created_at, "started_at": created_at, "concluded_at": created_at,
    }  # fmt: skip
    values = ", ".join(expressions.get(column, column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{series} INSERT INTO dashboard_run ({', '.join(columns)})"
            f" SELECT {values} FROM numbers, dashboard_run WHERE run_id = 'model'",
            [first, last],
        )
        if connection.vendor == "postgresql":  # as autovacuum does
            cursor.execute("VACUUM ANALYZE")


def create_day_sums(stages: list["Stage"]) -> None:
    """Create sums of 90 days: of a stage, and of a project as with thousands of stages."""
    from django.utils import timezone

    from dashboard.models import ProjectDay, StageDay

    project, today = stages[0].pipeline.project, timezone.now().date()
    for age in range(90):
        day = today - timedelta(days=age)
        words = {"success": 40, "failure": 5, "aborted": 1}
        few = words | {f"{measure}{n}": 5 for measure in "dqr" for n in range(40, 48)}
        many = words | {f"{measure}{n}": 99 for measure in "dqrp" for n in range(20, 90)}
        StageDay.objects.create(stage=stages[0], day=day, counts=few)
        for stage in stages[:3]:
            ProjectDay.objects.create(project=project, stage_name=stage.name, day=day, counts=many)


def list_operations(stages: list["Stage"], user: "User") -> Mapping[str, Callable[[], object]]:
    """Return the measured operations, as this user, by label."""
    from django.db import transaction
    from django.test import Client

    from dashboard.accounts import permissions
    from dashboard.models import ChangeCounter, Run
    from dashboard.models.runs import mark_changed
    from dashboard.web.live import changes

    client = Client(SERVER_NAME="localhost")
    client.force_login(user)
    run = Run.objects.get(run_id="in-flight-0")
    flow = "/projects/bench/pipelines/p0/release-flows/development/"

    def open_page(address: str) -> None:
        assert client.get(address).status_code == 200, address

    def run_round(page: str, key: int) -> None:
        channel = changes.Channel(page, key, permissions.for_user(user))
        with transaction.atomic():
            mark_changed([run.pk])
        change_set = changes.load_changes(ChangeCounter.latest() - 1)
        change_set.changed_parts(channel)
        change_set.status_parts(channel)

    addresses = {
        "Now": "/", "Board": "/board/", "Stage": f"{flow}?all=1", "Run": f"{flow}runs/in-flight-0/",
        "Aborts": "/aborts/", "Status": "/health/", "Trends": f"{flow}trends/?days=90",
        "Trends of a project": "/projects/bench/trends/?days=90",
    }  # fmt: skip
    return {name: partial(open_page, address) for name, address in addresses.items()} | {
        f"Stream of {page}, one round": partial(run_round, page, key)
        for page, key in (("now", 0), ("board", 0), ("stage", stages[0].pk))
    }


def measure_on_request(size: int, server: str) -> None:
    """Fill a database with `size` runs; measure the operation that each line of stdin names."""
    with local_django(server):
        import django
        from django.core.management import call_command
        from django.db import connection

        django.setup()
        from django.contrib.auth.models import User

        call_command("migrate", verbosity=0)
        clock = time.process_time if connection.vendor == "sqlite" else time.perf_counter
        user = User.objects.create_superuser("bench")
        stages = create_stages()
        create_first_runs(stages, user)
        create_runs(1, size, stages)
        create_day_sums(stages)
        operations = list_operations(stages, user)
        print(json.dumps([database_version(), *operations]), flush=True)
        for line in sys.stdin:
            operation = operations[line.strip()]
            started_at = clock()
            operation()
            print((clock() - started_at) * 1000, flush=True)
        connection.close()


class MeasuringProcess:
    """A process that measures on a database with `size` runs."""

    def __init__(self, size: int, server: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--size", str(size), "--postgres", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.durations: dict[str, list[float]] = {}  # milliseconds by label

    def wait_until_filled(self) -> tuple[str, list[str]]:
        """Return the database's name and version, and the labels of the operations."""
        version, *labels = json.loads(self._read_line())
        return version, labels

    def measure(self, label: str) -> None:
        """Run the operation once, and record its duration."""
        assert self.process.stdin
        self.process.stdin.write(f"{label}\n")
        self.process.stdin.flush()
        self.durations.setdefault(label, []).append(float(self._read_line()))

    def median(self, label: str) -> float:
        """Return the median milliseconds, without the first, which fills the cache."""
        return quantile(0.5, self.durations[label][1:])

    def stop(self) -> None:
        self.process.communicate()

    def _read_line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "a process has ended"
        return line


def compare_sizes(processes: list[MeasuringProcess], repetitions: int) -> Table:
    """Measure all sizes in turns: the machine's speed changes for all of them."""
    contents = [process.wait_until_filled() for process in processes]
    version, labels = contents[0]
    table = Table()
    for label in labels:
        for number in range(repetitions + 1):
            for process in processes[:: 1 if number % 2 else -1]:
                process.measure(label)
        figures = [process.median(label) for process in processes]
        ratio = figures[-1] / figures[0]
        table.add(
            label,
            f"{', '.join(f'{figure:.1f}' for figure in figures)} ms, x {ratio:.2f}",
            target=f"x <= {MAX_RATIO}", met=ratio <= MAX_RATIO,
        )  # fmt: skip
    print(f"\nPython {platform.python_version()}, {version}")
    return table


def main() -> int:
    parser = options_parser(__doc__, "up to 100,000 runs, fewer repetitions")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size:
        measure_on_request(options.size, options.postgres)
        return 0
    sizes = [1_000, 100_000] if options.quick else [1_000, 100_000, 1_000_000]
    repetitions = 20 if options.quick else 50
    processes = [MeasuringProcess(size, options.postgres) for size in sizes]
    try:
        table = compare_sizes(processes, repetitions)
    finally:
        for process in processes:
            process.stop()
    numbers = ", ".join(f"{size:,}" for size in sizes)
    print(f"Runs: {numbers}; medians of {repetitions}, last to first\n")
    table.show()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
