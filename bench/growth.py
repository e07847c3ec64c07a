"""Pages and rounds of the stream with 1,000, 100,000 and 1,000,000 runs.

    uv run bench/growth.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch SQLite database, or a new one on a PostgreSQL server, for each size: 8 pipelines, 50
runs in flight, 288 more a day, 100 aborts. A process for each opens pages as a release manager,
with rendered rows cached, and does what the stream does for a viewer after a change. All do the
same in turns, so that the ratios hold on a machine whose speed changes. Prints one table, and exits
with 1 if a target is missed. On SQLite it measures the process's CPU time, which includes the
database; on PostgreSQL the duration.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from running import database_version, local_django, options_parser
from tables import Table, p

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from dashboard.models import Stage

PIPELINES, IN_FLIGHT, ABORTS = 8, 50, 100
MAX_RATIO = 1.2
STATUS = "CASE WHEN n %% 20 = 3 THEN 'failure' WHEN n %% 50 = 1 THEN 'aborted' ELSE 'success' END"


def create_stages() -> list["Stage"]:
    """Create three stages a pipeline, just read."""
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
            pipeline=pipeline, name=name, confirmed_path_segment=name.lower(), has_flow=True,
            synced_at=now, next_sync_at=now, fresh_until=now + timezone.timedelta(days=1),
        )
        for pipeline in pipelines
        for name in StageName.values
    ]  # fmt: skip


def create_first_runs(stages: list["Stage"], by: "User") -> None:
    """Create the runs in flight, those that were aborted, and the model of all others."""
    from datetime import timedelta

    from django.utils import timezone

    from dashboard.models import Abort, Run

    now = timezone.now()
    times = {"created_at": now, "first_synced_at": now, "synced_at": now, "status_since": now,
             "started_at": now, "version": 1}  # fmt: skip
    for number in range(IN_FLIGHT):
        Run.objects.create(
            **times, stage=stages[number % len(stages)], run_id=f"in-flight-{number}",
            name=f"Release {number}", status="running", concluded=False, in_flight=True,
        )  # fmt: skip
    ended = {"concluded": True, "in_flight": False, "concluded_at": now}
    for number in range(ABORTS):
        ago = now - timedelta(days=2, minutes=number)
        run = Run.objects.create(
            **times | ended | {"created_at": ago, "concluded_at": ago}, stage=stages[0],
            run_id=f"aborted-{number}", name=f"Aborted {number}", status="aborted",
        )  # fmt: skip
        Abort.objects.create(
            run=run, user=by, username=by.username, state="concluded", outcome="aborted",
            requested_at=ago, claimed_at=ago, sent_at=ago, answered_at=ago, settled_at=ago,
        )  # fmt: skip
    Run.objects.create(
        **times | ended, stage=stages[0], run_id="model", name="Model", status="success"
    )


def create_runs(first: int, last: int, stages: list["Stage"]) -> None:
    """Create ended runs by SQL, one every five minutes into the past, in all stages in turn."""
    from django.db import connection

    from dashboard.models import Run

    columns = [
        field.column
        for field in Run._meta.concrete_fields
        if not field.primary_key and not field.generated
    ]
    if connection.vendor == "sqlite":
        created_at = (
            "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', created_at, '-' || (n * 5) || ' minutes')"
        )
        series = (
            "WITH RECURSIVE each(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM each WHERE n < %s)"
        )
    else:
        created_at = "created_at - n * interval '5 minutes'"
        series = "WITH each AS (SELECT generate_series(%s, %s) AS n)"
    own = {
        "run_id": "'run-' || n", "name": "'Release ' || n", "status": STATUS,
        "stage_id": f"{stages[0].pk} + n %% {len(stages)}",
        "created_at": created_at, "started_at": created_at, "concluded_at": created_at,
    }  # fmt: skip
    values = ", ".join(own.get(column, column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{series} INSERT INTO dashboard_run ({', '.join(columns)})"
            f" SELECT {values} FROM each, dashboard_run WHERE run_id = 'model'",
            [first, last],
        )
        if connection.vendor == "postgresql":  # as it does by itself
            cursor.execute("VACUUM ANALYZE")


def work(stages: list["Stage"], by: "User") -> dict[str, Callable[[], object]]:
    """Return what is measured."""
    from django.db import transaction
    from django.test import Client

    from dashboard.accounts import permissions
    from dashboard.models import ChangeCounter, Run
    from dashboard.models.runs import mark_changed
    from dashboard.web.live import changes

    client = Client(SERVER_NAME="localhost")
    client.force_login(by)
    run = Run.objects.get(run_id="in-flight-0")
    flow = "/projects/bench/pipelines/p0/release-flows/development/"

    def view(address: str) -> None:
        assert client.get(address).status_code == 200, address

    def round_of(page: str, key: int) -> None:
        channel = changes.Channel(page, key, permissions.for_user(by))
        with transaction.atomic():
            mark_changed([run.pk])
        change_set = changes.load_changes(ChangeCounter.latest() - 1)
        change_set.changed_parts(channel)
        change_set.status_parts(channel)

    addresses = {
        "Now": "/", "Board": "/board/", "Stage": f"{flow}?all=1", "Run": f"{flow}runs/in-flight-0/",
        "Aborts": "/aborts/", "Status": "/status/",
    }  # fmt: skip
    return {
        name: lambda address=address: view(address) for name, address in addresses.items()
    } | {
        f"Stream of {page}, one round": lambda page=page, key=key: round_of(page, key)
        for page, key in (("now", 0), ("board", 0), ("stage", stages[0].pk))
    }  # fmt: skip


def measure_on_request(size: int, server: str) -> None:
    """Fill a database with this many runs; measure the work that each line of stdin names."""
    with local_django(server):
        import django
        from django.core.management import call_command
        from django.db import connection

        django.setup()
        from django.contrib.auth.models import User

        call_command("migrate", verbosity=0)
        clock = time.process_time if connection.vendor == "sqlite" else time.perf_counter
        by = User.objects.create_superuser("bench")
        stages = create_stages()
        create_first_runs(stages, by)
        create_runs(1, size, stages)
        measured = work(stages, by)
        print(json.dumps([database_version(), *measured]), flush=True)
        for line in sys.stdin:
            do = measured[line.strip()]
            started_at = clock()
            do()
            print((clock() - started_at) * 1000, flush=True)
        connection.close()


class MeasuringProcess:
    """A process that measures on a database of so many runs."""

    def __init__(self, size: int, server: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--size", str(size), "--postgres", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.took: dict[str, list[float]] = {}

    def read_contents(self) -> tuple[str, list[str]]:
        """Wait until it is filled; return the name of the database, and what can be measured."""
        name, *labels = json.loads(self._read_line())
        return name, labels

    def measure(self, label: str) -> None:
        """Do the work once, and keep the milliseconds that it took."""
        assert self.process.stdin
        self.process.stdin.write(f"{label}\n")
        self.process.stdin.flush()
        self.took.setdefault(label, []).append(float(self._read_line()))

    def median(self, label: str) -> float:
        """Return the median, without the first time, which fills the cache."""
        return p(0.5, self.took[label][1:])

    def stop(self) -> None:
        self.process.communicate()

    def _read_line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "a process has ended"
        return line


def compare(processes: list[MeasuringProcess], times: int) -> Table:
    """Let all sizes do the same work in turns: the machine's speed changes for all of them."""
    contents = [process.read_contents() for process in processes]
    table = Table()
    for label in contents[0][1]:
        for number in range(times + 1):
            for process in processes[:: 1 if number % 2 else -1]:
                process.measure(label)
        figures = [process.median(label) for process in processes]
        ratio = figures[-1] / figures[0]
        table.add(
            label,
            f"{', '.join(f'{figure:.1f}' for figure in figures)} ms, x {ratio:.2f}",
            target=f"x <= {MAX_RATIO}", met=ratio <= MAX_RATIO,
        )  # fmt: skip
    print(f"\nPython {platform.python_version()}, {contents[0][0]}")
    return table


def main() -> int:
    parser = options_parser(__doc__, "up to 100,000 runs, less often")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.size:
        measure_on_request(chosen.size, chosen.postgres)
        return 0
    sizes = [1_000, 100_000] if chosen.quick else [1_000, 100_000, 1_000_000]
    times = 20 if chosen.quick else 50
    processes = [MeasuringProcess(size, chosen.postgres) for size in sizes]
    try:
        table = compare(processes, times)
    finally:
        for process in processes:
            process.stop()
    numbers = ", ".join(f"{size:,}" for size in sizes)
    print(f"Runs: {numbers}; medians of {times}, last to first\n")
    table.show()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
