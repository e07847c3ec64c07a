"""Searches among 1,000,000 runs: how long they take, and what their texts take.

    uv run bench/search.py [--quick | --runs 1000000] [--postgres postgres://…/database]

Fills a scratch database with the runs of bench/growth.py, with ids and descriptions as long as real
ones, and stores what they are found by. Then it searches for what all, few and none of them have,
for a user who sees everything and for one who sees a stage. On SQLite it measures the process's CPU
time, which includes the database; on PostgreSQL the duration.

Then a dashboard serves this database, and a release manager requests Health and aborts runs: alone,
and while another process searches on 24 connections of another account.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from growth import create_first_runs, create_runs, create_stages
from password_guessing import start_runs
from processes import (
    Browser,
    database_version,
    local_django,
    options_parser,
    scratch,
    start_dashboard,
    start_upstream,
)
from prune import read_database_size
from tables import Table, format_quantiles, quantile

REPETITIONS = 15
CONNECTIONS = 24  # that search at the same time
PAGES, ABORTS = 40, 10
MAX_RATIO = 5  # beside the searches
SEARCHES = {
    "all runs": "release",
    "one run, by a part of its id": "run-4719-",
    "one run, by two words": "release run-4719-",
    "no run": "nothing has this",
    "the runs of a stage's pipeline": "p 3",
    "runs that a user aborted": "mallory",
}


def fill(runs: int) -> tuple[float, float]:
    """Create runs and store their texts; return the seconds and megabytes that the texts took."""
    from django.contrib.auth.models import User
    from django.db import connection

    from dashboard.models import Run
    from dashboard.runs import search

    stages = create_stages()
    create_first_runs(stages, User.objects.create_user("mallory"))
    create_runs(1, runs, stages)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE dashboard_run SET run_id = run_id || '-ec9e-566e-9d0b-533cd77d4c6a',"
            " description = 'Deploys change ' || id || ', as asked for by the team of payments'"
        )
    size_before, _ = read_database_size()
    started_at = time.perf_counter()
    for start in range(0, runs + 1, 1000):
        search.store_texts(Run.objects.order_by("pk")[start : start + 1000])
    seconds = time.perf_counter() - started_at
    size, _ = read_database_size()
    if connection.vendor == "postgresql":  # as autovacuum does
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    return seconds, size - size_before


def measure(runs: int) -> Table:
    """Measure on the database of this process's settings."""
    import django
    from django.core.management import call_command

    django.setup()
    from django.contrib.auth.models import Group, User
    from django.db import connection

    from dashboard.accounts import permissions
    from dashboard.models import Grant, Project
    from dashboard.runs.search import Search

    call_command("migrate", verbosity=0)
    table = Table()
    seconds, megabytes = fill(runs)
    table.add("Texts of runs that had none", f"{seconds:.0f} s, {megabytes:.0f} MB")
    grants = list(Grant.objects.all())
    Grant.objects.all().delete()
    viewer, group = User.objects.create_user("viewer"), Group.objects.create(name="viewers")
    viewer.groups.add(group)
    project = Project.objects.get()
    Grant.objects.create(group=group, project=project, stage="Production", action="view")
    viewers = {"": permissions.ALL, ", by who sees Production": permissions.for_user(viewer)}
    clock = time.process_time if connection.vendor == "sqlite" else time.perf_counter
    target = 30 if runs <= 100_000 else 300
    for label, text in SEARCHES.items():
        for who, viewer_permissions in viewers.items():
            durations = []
            for _ in range(REPETITIONS):
                started_at = clock()
                found = Search(text).runs(viewer_permissions)
                durations.append((clock() - started_at) * 1000)
            table.add(
                f"{label}{who} ({len(found)})", format_quantiles(durations),
                target=f"<= {target} ms", met=quantile(0.5, durations) <= target,
            )  # fmt: skip
    Grant.objects.bulk_create(grants)
    print(f"\n{runs:,} runs, {database_version()}")
    return table


# --- Pages and aborts beside searches -------------------------------------------------------------


def search_until_closed(url: str) -> None:
    """Search on all connections until standard input ends."""
    first = Browser(url)
    first.sign_in("searcher")

    def search(browser: Browser) -> None:
        while True:
            browser.request("/search/?q=nothing+has+this")

    for _ in range(CONNECTIONS):
        threading.Thread(target=search, args=(first.new_connection(),), daemon=True).start()
    sys.stdin.read()


@contextlib.contextmanager
def search_meanwhile(url: str) -> Iterator[None]:
    command = [sys.executable, __file__, "--search", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        time.sleep(5)  # all connections search
        yield
        process.terminate()


def measure_requests(client: Browser, runs: list[str]) -> dict[str, list[float]]:
    """Request pages and abort the runs in turn; return the milliseconds of each."""
    client.http.close()  # the server closes idle connections
    times: dict[str, list[float]] = {"page": [], "healthz": [], "abort": []}
    for number in range(PAGES):
        times["page"].append(client.request("/health/").ms)
        times["healthz"].append(client.request("/healthz").ms)
        if number % (PAGES // ABORTS) == 0:
            address = f"{runs.pop()}abort/"
            response = client.request(address, {"reason": "bench"}, {"HX-Request": "true"})
            assert response.status == 200, response.text
            times["abort"].append(response.ms)
    return times


def measure_beside_searches(table: Table) -> None:
    """Measure a dashboard that serves the database of this process's settings."""
    from django.contrib.auth.models import Group, User

    searcher = User.objects.create_user("searcher", password="searcher")
    searcher.groups.add(Group.objects.get(name="Release managers"))
    with scratch() as bench:
        upstream = start_upstream(bench, "--choice", "abort-seconds=0.5")
        server, client = start_dashboard(bench, upstream, DATABASE_URL=os.environ["DATABASE_URL"])
        runs = start_runs(upstream, client, 2 * ABORTS)
        time.sleep(5)  # everything was read once
        alone = measure_requests(client, runs)
        with search_meanwhile(server.url):
            beside = measure_requests(client, runs)
    for name, times in alone.items():
        ratio = quantile(0.5, beside[name]) / quantile(0.5, times)
        table.add(f"{name}, alone", format_quantiles(times))
        table.add(
            f"… beside {CONNECTIONS} searches: × {ratio:.1f}", format_quantiles(beside[name]),
            target=f"<= × {MAX_RATIO}", met=ratio <= MAX_RATIO,
        )  # fmt: skip


def main() -> int:
    parser = options_parser(__doc__, "100,000 runs")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--search", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        search_until_closed(options.search)
        return 0
    with local_django(options.postgres):
        table = measure(100_000 if options.quick else options.runs)
        measure_beside_searches(table)
    table.show()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
