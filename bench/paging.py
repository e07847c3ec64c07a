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

from processes import database_version, local_django, parse_options
from tables import Table, format_quantiles, quantile

if TYPE_CHECKING:
    from dashboard.models import Stage

IN_FLIGHT = 5
# Of the ended runs one in twenty failed, and one in a thousand was skipped.
STATUS = """CASE WHEN n %% 1000 = 7 THEN 'skipped' WHEN n %% 20 = 3 THEN 'failure'
            WHEN n %% 50 = 1 THEN 'aborted' ELSE 'success' END"""


def create_stage(run_count: int) -> "Stage":
    """Create a stage with this many runs, two created at each moment, a tenth with steps."""
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
    steps = {"kind": "Workflow", "steps": [{"kind": "JobRun", "label": f"{n}"} for n in range(8)]}
    fields = {"stage": stage, "created_at": now, "first_synced_at": now, "synced_at": now,
            "status_since": now, "description": "What this release brings, in a line."}  # fmt: skip
    for number in range(IN_FLIGHT):
        Run.objects.create(
            **fields, run_id=f"in-flight-{number}", name=f"Release {number}", status="running",
            concluded=False, in_flight=True, started_at=now, version=number,
        )  # fmt: skip
    model = Run.objects.create(
        **fields, run_id="model", name="Model", status="success", concluded=True, in_flight=False,
        started_at=now, concluded_at=now, version=0, steps=steps,
    )  # fmt: skip
    columns = [
        field.column
        for field in Run._meta.concrete_fields
        if field.column and not field.primary_key and not field.generated
    ]
    if connection.vendor == "sqlite":
        created_at_sql = (
            "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', created_at, '-' || (n / 2) || ' minutes')"
        )
        series = "WITH RECURSIVE each(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM each LIMIT %s)"
    else:
        created_at_sql = "created_at - (n / 2) * interval '1 minute'"
        series = "WITH each AS (SELECT generate_series(1, %s) AS n)"
    expressions = {
        "run_id": "'run-' || n", "name": "'Release ' || n", "status": STATUS, "version": "n",
        "created_at": created_at_sql,
        "steps": "CASE WHEN n %% 10 = 0 THEN steps END",
    }  # fmt: skip
    values = ", ".join(expressions.get(column, column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{series} INSERT INTO dashboard_run ({', '.join(columns)})"
            f" SELECT {values} FROM each, dashboard_run WHERE run_id = 'model'",
            [run_count - IN_FLIGHT - 1],
        )
        cursor.execute("ANALYZE")
    model.delete()
    return stage


class Viewer:
    """A signed-in user who opens the stage's page."""

    def __init__(self, stage: "Stage") -> None:
        from django.contrib.auth.models import User
        from django.test import Client

        self.stage = stage
        self.user = User.objects.create_superuser("bench")
        self.client = Client(SERVER_NAME="localhost")
        self.client.force_login(self.user)

    def measure_page(self, query: str) -> float:
        """Request a page; return its milliseconds."""
        address = "/projects/bench/pipelines/bench/release-flows/production/"
        started_at = time.perf_counter()
        response = self.client.get(f"{address}?{query}")
        ms = (time.perf_counter() - started_at) * 1000
        assert response.status_code == 200, response.status_code
        return ms

    def measure_query(self, query: str, **limits: int) -> float:
        """Find a page's runs without rendering them; return the milliseconds.

        `limits` are those of `pagination.page`.
        """
        from django.http import QueryDict

        from dashboard.web.components.lists import filters, pagination

        started_at = time.perf_counter()
        run_filter = filters.parse(QueryDict(query), self.stage, self.user)
        pagination.page(self.stage.runs.all(), run_filter, **limits)
        return (time.perf_counter() - started_at) * 1000

    def last_page_query(self, query: str) -> str:
        """Return the query of the last page of a hundred runs, or of as many as there are."""
        from dashboard.web.components.lists.cursor import Cursor

        oldest = self.stage.runs.filter(in_flight=False)
        if statuses := parse_qs(query).get("status"):
            oldest = oldest.filter(status__in=statuses)
        keys = oldest.order_by("created_at", "pk").values_list("in_flight", "created_at", "pk")
        cursors = list(keys[:101])
        return f"{query}&before={Cursor(*cursors[-1]).encoded_text}"


def measure_pages(table: Table, viewer: Viewer, vendor: str, times: int) -> None:
    """Measure the first page and the last in turn: the cost of the position in the list."""
    for filter_name, first in (
        ("all runs", "all=1"),
        ("one status, 5 % of all", "status=failure"),
        ("one status, 0.1 % of all", "status=skipped"),
        ("two statuses", "status=failure&status=aborted"),
    ):
        last = viewer.last_page_query(first)
        query_times: dict[str, list[float]] = {first: [], last: []}
        page_times: dict[str, list[float]] = {first: [], last: []}
        for query in query_times:
            viewer.measure_page(query)
        for _ in range(times):
            for query in (first, last):
                query_times[query].append(viewer.measure_query(query))
                page_times[query].append(viewer.measure_page(query))
        first_ms, last_ms = quantile(0.5, query_times[first]), quantile(0.5, query_times[last])
        table.add(
            f"{vendor}: {filter_name}, runs found",
            f"first {first_ms:.1f}, last {last_ms:.1f} ms, x {last_ms / first_ms:.2f}",
            target="< x 1.5", met=last_ms / first_ms < 1.5,
        )  # fmt: skip
        first_ms, last_ms = quantile(0.5, page_times[first]), quantile(0.5, page_times[last])
        table.add(
            "… the whole page", f"{first_ms:.1f}, {last_ms:.1f} ms, x {last_ms / first_ms:.2f}"
        )


def measure_searches(table: Table, viewer: Viewer, vendor: str, times: int, run_count: int) -> None:
    """Measure a text with many matches, and one without."""
    for matches, query in (("with many matches", "q=release"), ("without a match", "q=nowhere")):
        figures = [viewer.measure_query(query) for _ in range(max(times // 5, 3))]
        table.add(f"{vendor}: a text {matches}", format_quantiles(figures))
    figures = [viewer.measure_query("q=nowhere", max_scanned=run_count) for _ in range(3)]
    table.add(f"… if all {run_count:,} were searched", format_quantiles(figures))


def measure(run_count: int, times: int) -> int:
    """Measure on the database of this process's settings."""
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    call_command("migrate", verbosity=0)
    vendor = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.vendor]
    started_at = time.monotonic()
    viewer = Viewer(create_stage(run_count))
    duration = time.monotonic() - started_at
    print(f"  {vendor}: {run_count:,} runs created in {duration:.0f} s", file=sys.stderr)
    table = Table()
    measure_pages(table, viewer, vendor, times)
    measure_searches(table, viewer, vendor, times, run_count)
    print()
    table.show()
    print(f"\nPython {platform.python_version()}, {database_version()}", flush=True)
    connection.close()
    return 1 if table.missed else 0


def main() -> int:
    options = parse_options(__doc__, "100,000 runs, fewer requests")
    with local_django(options.postgres):
        return measure(*((100_000, 20) if options.quick else (1_000_000, 60)))


if __name__ == "__main__":
    sys.exit(main())
