"""CPU time of pages with rows of runs and aborts: no row cached, and after one change.

    uv run bench/rows.py [--quick] [--postgres postgres://user@host:port/database]

In one process on a scratch SQLite database, or a new one on a PostgreSQL server: a stage with 100
runs, 50 of them in flight, overdue, acknowledged or aborting; 100 aborts. Before each request all
runs get a new version, so that no cached row is used, or one of them does. Milliseconds of this
process's CPU time, the minimum of all requests, since other load only adds to it; it includes the
database on SQLite, not on PostgreSQL. Prints one table, and exits with 1 if a target is missed.
"""

import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from processes import database_version, local_django, parse_options
from tables import Table

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from dashboard.models import Run

RUNS = 100
STAGE = "/projects/shop/pipelines/checkout/release-flows/production/"
ALL_RUNS = range(RUNS)
ONE_RUN = range(1)
# Label, address, the runs that change before each request, and the target in ms.
PAGES = [
    ("Stage, 100 rows, no row cached", f"{STAGE}?all=1", ALL_RUNS, 10),
    ("... one run changed", f"{STAGE}?all=1", ONE_RUN, 4),
    ("Now, 50 in flight, no row cached", "/", ALL_RUNS, None),
    ("... one run changed", "/", ONE_RUN, 5),
    ("Run, changed", f"{STAGE}runs/run-0/", ONE_RUN, 4),
    ("Aborts, 100 rows, no row cached", "/aborts/", ALL_RUNS, 10),
    ("... one run changed", "/aborts/", ONE_RUN, None),
    ("Status", "/status/", ONE_RUN, 4),
]


def create_runs(user: "User") -> list["Run"]:
    """Create a stage with typical durations, its runs and their aborts; return the runs."""
    from datetime import timedelta

    from django.utils import timezone

    from dashboard.models import (
        Abort,
        AbortEvent,
        Acknowledgement,
        Pipeline,
        Project,
        Run,
        Stage,
        StageTiming,
    )  # fmt: skip

    now = timezone.now()
    project = Project.objects.create(slug="shop", name="Shop", synced_at=now)
    pipeline = Pipeline.objects.create(
        project=project, slug="checkout", name="Checkout", synced_at=now
    )
    stage = Stage.objects.create(
        pipeline=pipeline, name="Production", has_flow=True,
        synced_at=now, next_sync_at=now, fresh_until=now + timedelta(days=1),
    )  # fmt: skip
    StageTiming.objects.create(
        stage=stage, observed_run_median=360, observed_run_p95=540, observed_queue_median=40,
        observed_queue_p95=90,
    )  # fmt: skip
    runs = []
    for number in range(RUNS):
        in_flight = number < RUNS // 2
        created_at = now - timedelta(minutes=number)
        is_overdue, is_aborting = number % 3 == 0, number % 5 == 0
        status = ("aborting" if is_aborting else "running") if in_flight else "aborted"
        run = Run.objects.create(
            stage=stage, run_id=f"run-{number}", name=f"Release {number} & more", status=status,
            concluded=not in_flight, in_flight=in_flight, created_at=created_at,
            started_at=created_at, concluded_at=None if in_flight else now, first_synced_at=now,
            synced_at=now, status_since=now, version=1, step="Run the migrations",
            step_started_at=now, overdue_severity=int(in_flight and is_overdue),
            overdue_reason="run" if in_flight and is_overdue else "",
        )  # fmt: skip
        runs.append(run)
        if is_overdue and in_flight:
            Acknowledgement.objects.create(
                run=run, user=user, username=user.username, acknowledged_at=now
            )
        if in_flight and not is_aborting:
            continue
        state = {"state": "accepted"} if in_flight else {"state": "concluded", "settled_at": now}
        for _ in range(1 if in_flight else 2):
            abort = Abort.objects.create(
                run=run, user=user, username=user.username, reason="Stuck", requested_at=created_at,
                claimed_at=now, sent_at=now, answered_at=now, answer_status=200,
                client_address="192.0.2.7", outcome="" if in_flight else "aborted", **state,
            )  # fmt: skip
            AbortEvent.objects.bulk_create(
                AbortEvent(abort=abort, event_type=event_type, occurred_at=now, detail=detail)
                for event_type, detail in (
                    ("requested", "192.0.2.7"), ("sent", ""), ("accepted", "aborting"),
                    ("concluded", "aborted"),
                )
            )  # fmt: skip
    return runs


def measure_minimum(
    open_page: Callable[[], object], change: Callable[[], None], repetitions: int
) -> float:
    """Return the least milliseconds of CPU of a page after `change`, which is not counted."""
    open_page()
    durations = []
    for _ in range(repetitions):
        change()
        started_at = time.process_time()
        open_page()
        durations.append((time.process_time() - started_at) * 1000)
    return min(durations)


def measure(repetitions: int) -> int:
    """Measure on the database of this process's settings."""
    import django
    from django.core.management import call_command
    from django.db import connection, transaction

    django.setup()
    from django.contrib.auth.models import User
    from django.test import Client

    from dashboard.models.runs import mark_changed

    call_command("migrate", verbosity=0)
    user = User.objects.create_superuser("bench")
    runs = create_runs(user)
    client = Client(SERVER_NAME="localhost", headers={"Accept-Encoding": "gzip"})
    client.force_login(user)

    def open_page(address: str) -> None:
        response = client.get(address)
        assert response.status_code == 200, address

    def change_runs(numbers: range) -> None:
        with transaction.atomic():
            mark_changed(runs[number].pk for number in numbers)

    table = Table()
    for label, address, numbers, target in PAGES:
        figure = measure_minimum(
            partial(open_page, address), partial(change_runs, numbers), repetitions
        )
        table.add(
            label, f"{figure:.1f} ms", target=f"<= {target} ms" if target else "",
            met=figure <= target if target else None,
        )  # fmt: skip
    print()
    table.show()
    print(f"\nPython {platform.python_version()}, {database_version()}", flush=True)
    connection.close()
    return 1 if table.missed else 0


def main() -> int:
    options = parse_options(__doc__, "fewer requests")
    with local_django(options.postgres):
        return measure(20 if options.quick else 60)


if __name__ == "__main__":
    sys.exit(main())
