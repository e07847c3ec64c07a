"""A stage's page with a million runs: its first page, its last page, and text searches.

    uv run bench/paging.py [--quick] [--postgres postgres://user@host:port/database]

Fills a scratch SQLite database, or a new one on a PostgreSQL server, with one stage of 1,000,000
runs, requests pages from one process, prints one table, and exits with 1 if a target is missed.
"""

import platform
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from running import database_version, local_django, parse_options
from tables import Table, p, spread

if TYPE_CHECKING:
    from dashboard.models import Stage

FLYING = 5
# Of the ended runs one in twenty failed, and one in a thousand was skipped.
STATUS = """CASE WHEN n %% 1000 = 7 THEN 'skipped' WHEN n %% 20 = 3 THEN 'failure'
            WHEN n %% 50 = 1 THEN 'aborted' ELSE 'success' END"""


def fill(runs: int) -> "Stage":
    """Create a stage with this many runs, two created at each moment, some with steps."""
    from django.db import connection
    from django.utils import timezone

    from dashboard.models import Pipeline, Project, Run, Stage

    now = timezone.now()
    project = Project.objects.create(slug="bench", name="Bench", synced_at=now)
    pipeline = Pipeline.objects.create(project=project, slug="bench", name="Bench", synced_at=now)
    stage = Stage.objects.create(
        pipeline=pipeline,
        name="Production",
        confirmed_path_segment="production",
        has_flow=True,
        synced_at=now,
        next_sync_at=now,
        fresh_until=now,
    )
    root = {"kind": "Workflow", "steps": [{"kind": "JobRun", "label": f"{n}"} for n in range(8)]}
    fields = {"stage": stage, "created_at": now, "first_synced_at": now, "synced_at": now,
            "status_since": now, "description": "What this release brings, in a line."}  # fmt: skip
    for number in range(FLYING):
        Run.objects.create(
            **fields, run_id=f"flying-{number}", name=f"Release {number}", status="running",
            concluded=False, in_flight=True, started_at=now, version=number,
        )  # fmt: skip
    model = Run.objects.create(
        **fields, run_id="model", name="Model", status="success", concluded=True, in_flight=False,
        started_at=now, concluded_at=now, version=0, steps=root,
    )  # fmt: skip
    columns = [field.column for field in Run._meta.concrete_fields if not field.primary_key]
    if connection.vendor == "sqlite":
        made_at = "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', created_at, '-' || (n / 2) || ' minutes')"
        series = "WITH RECURSIVE each(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM each LIMIT %s)"
    else:
        made_at = "created_at - (n / 2) * interval '1 minute'"
        series = "WITH each AS (SELECT generate_series(1, %s) AS n)"
    own = {"run_id": "'run-' || n", "name": "'Release ' || n", "status": STATUS, "version": "n",
           "created_at": made_at, "steps": "CASE WHEN n %% 10 = 0 THEN steps END"}  # fmt: skip
    values = ", ".join(own.get(column, column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{series} INSERT INTO dashboard_run ({', '.join(columns)})"
            f" SELECT {values} FROM each, dashboard_run WHERE run_id = 'model'",
            [runs - FLYING - 1],
        )
        cursor.execute("ANALYZE")
    model.delete()
    return stage


class Person:
    """A signed-in user who opens the stage's page."""

    def __init__(self, stage: "Stage") -> None:
        from django.contrib.auth.models import User
        from django.test import Client

        self.stage = stage
        self.user = User.objects.create_superuser("bench")
        self.client = Client(SERVER_NAME="localhost")
        self.client.force_login(self.user)

    def ask(self, query: str) -> tuple[float, str]:
        """Request a page; return its milliseconds and the page."""
        address = "/projects/bench/pipelines/bench/release-flows/production/"
        started_at = time.perf_counter()
        answer = self.client.get(f"{address}?{query}")
        took = (time.perf_counter() - started_at) * 1000
        assert answer.status_code == 200, answer.status_code
        return took, answer.content.decode()

    def ms_to_find(self, query: str, **size: int) -> float:
        """Return the milliseconds that finding a page's runs took, without rendering them.

        Keyword arguments change the page's size.
        """
        from django.http import QueryDict

        from dashboard.web.components.lists import filters, pagination

        started_at = time.perf_counter()
        run_filter = filters.parse(QueryDict(query), self.stage, self.user)
        pagination.page(self.stage.runs.all(), run_filter, **size)
        return (time.perf_counter() - started_at) * 1000

    def last(self, query: str) -> str:
        """Return the query of the last page of a hundred runs, or of as many as there are."""
        from dashboard.web.components.lists.cursor import Cursor

        oldest = self.stage.runs.filter(in_flight=False)
        if statuses := parse_qs(query).get("status"):
            oldest = oldest.filter(status__in=statuses)
        keys = oldest.order_by("created_at", "pk").values_list("in_flight", "created_at", "pk")
        cursors = list(keys[:101])
        return f"{query}&before={Cursor(*cursors[-1]).encoded_text}"


def pages(table: Table, client: Person, name: str, times: int) -> None:
    """Measure the first page and the last in turn: the cost of the position in the list."""
    for filter_name, query in (
        ("all runs", "all=1"),
        ("one status, 5 % of all", "status=failure"),
        ("one status, 0.1 % of all", "status=skipped"),
        ("two statuses", "status=failure&status=aborted"),
    ):
        last = client.last(query)
        took: dict[str, list[float]] = {query: [], last: []}
        whole: dict[str, list[float]] = {query: [], last: []}
        for path in took:
            client.ask(path)
        for _ in range(times):
            for path in (query, last):
                took[path].append(client.ms_to_find(path))
                whole[path].append(client.ask(path)[0])
        (near, deep), (near_whole, deep_whole) = (
            (p(0.5, kind[query]), p(0.5, kind[last])) for kind in (took, whole)
        )
        table.add(
            f"{name}: {filter_name}, its runs found",
            f"first {near:.1f}, last {deep:.1f} ms, x {deep / near:.2f}",
            target="< x 1.5", met=deep / near < 1.5,
        )  # fmt: skip
        table.add(
            "… the whole page",
            f"{near_whole:.1f}, {deep_whole:.1f} ms, x {deep_whole / near_whole:.2f}",
        )


def texts(table: Table, client: Person, name: str, times: int, runs: int) -> None:
    """Measure a text with many matches, and one without."""
    few = max(times // 5, 3)
    for match_text, query in (("that many have", "q=release"), ("that none has", "q=nowhere")):
        table.add(
            f"{name}: a text {match_text}", spread([client.ms_to_find(query) for _ in range(few)]),
        )  # fmt: skip
    whole = [client.ms_to_find("q=nowhere", max_scanned=runs) for _ in range(3)]
    table.add(f"… if all {runs:,} were searched", spread(whole))


def measure(runs: int, times: int) -> int:
    """Measure on the database of this process's settings."""
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    call_command("migrate", verbosity=0)
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.vendor]
    started_at = time.monotonic()
    client = Person(fill(runs))
    print(
        f"  {name}: {runs:,} runs created in {time.monotonic() - started_at:.0f} s", file=sys.stderr
    )
    table = Table()
    pages(table, client, name, times)
    texts(table, client, name, times, runs)
    print()
    table.show()
    print(f"\nPython {platform.python_version()}, {database_version()}", flush=True)
    connection.close()
    return 1 if table.missed else 0


def main() -> int:
    chosen = parse_options(__doc__, "100,000 runs, fewer requests")
    with local_django(chosen.postgres):
        return measure(*((100_000, 20) if chosen.quick else (1_000_000, 60)))


if __name__ == "__main__":
    sys.exit(main())
