"""Searches among 1,000,000 runs: how long they take, and what their texts take.

    uv run bench/search.py [--quick | --runs 1000000] [--postgres postgres://…/database]

Fills a scratch database with the runs of bench/growth.py, with ids and descriptions as long as real
ones, and stores what they are found by. Then it searches for what all, few and none of them have,
for a user who sees everything and for one who sees a stage. On SQLite it measures the process's CPU
time, which includes the database; on PostgreSQL the duration.
"""

import sys
import time

from growth import create_first_runs, create_runs, create_stages
from processes import database_version, local_django, options_parser
from prune import read_database_size
from tables import Table, format_quantiles, quantile

REPETITIONS = 15
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
    print(f"\n{runs:,} runs, {database_version()}")
    return table


def main() -> int:
    parser = options_parser(__doc__, "100,000 runs")
    parser.add_argument("--runs", type=int, default=1_000_000)
    options = parser.parse_args()
    with local_django(options.postgres):
        table = measure(100_000 if options.quick else options.runs)
    table.show()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
