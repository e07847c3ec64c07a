"""Seconds until a new database contains all runs in flight. Prints a table.

    uv run bench/cold_start.py [STAGES ...]

Serves a sandbox with this many stages (default: 180 and 300), Northflank's rate limit and answers
after 200 ms, and starts `manage.py serve` on a new SQLite database. Exits with 1 if a target is
missed.
"""

import argparse
import contextlib
import dataclasses
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from processes import ROOT, Bench, scratch, serve_in_thread
from tables import Table

sys.path.insert(0, str(ROOT))
from dashboard import sandbox
from dashboard.sandbox.sandbox import Sandbox

LATENCY = 0.2  # seconds
TARGETS = {180: 60.0, 300: 100.0}  # seconds, by the number of stages
TIMEOUT = 300.0  # seconds


@dataclass
class Figures:
    """Results; times are seconds since the start of the process, None if not reached."""

    stages: int
    in_flight_count: int
    first_run_read_at: float | None = None
    half_read_at: float | None = None
    in_flight_read_at: float | None = None  # all runs in flight
    stages_read_at: float | None = None  # every stage
    request_count: int = 0  # until then


@contextlib.contextmanager
def serve_upstream(stages: int) -> Iterator[tuple[str, Sandbox]]:
    """Serve a sandbox with this many stages from this process."""
    options = sandbox.Options(
        scenario="100-pipelines", faults=[sandbox.parse_fault(f"latency:{LATENCY}")]
    )
    app = Sandbox(options)
    world = app.world
    pipelines_per_project = stages // 3 // len(world.projects)
    world.projects = tuple(
        dataclasses.replace(project, pipelines=project.pipelines[:pipelines_per_project])
        for project in world.projects
    )
    with serve_in_thread(app) as url:
        yield url, app


def list_runs_in_flight(upstream: Sandbox) -> set[str]:
    """Return the ids of the runs that are in flight upstream now."""
    world, now = upstream.world, upstream.clock()
    return {
        run.id
        for flow in world.list_flows()
        for run in world.list_runs(flow, now)
        if now < run.concluded_at
    }


def measure(bench: Bench, stages: int) -> Figures:
    """Start a dashboard of this many stages, and poll its mirror until everything was read."""
    with serve_upstream(stages) as (url, upstream):
        settings = {"NORTHFLANK_API_TOKEN": "sandbox", "NORTHFLANK_API_BASE_URL": url}
        bench.manage("migrate", **settings)
        run_ids = list_runs_in_flight(upstream)
        figures = Figures(stages, len(run_ids))
        started_at = time.perf_counter()
        server = bench.start("serve", "--port", "0", **settings)
        mirror = sqlite3.connect(f"file:{bench.database}?mode=ro", uri=True)
        try:
            while figures.in_flight_read_at is None or figures.stages_read_at is None:
                elapsed = time.perf_counter() - started_at
                if elapsed > TIMEOUT:
                    break
                update_figures(figures, mirror, run_ids, elapsed)
                figures.request_count = upstream.rate_limit_window.request_count
                # A run that has concluded meanwhile need not be in the mirror.
                run_ids &= list_runs_in_flight(upstream)
                time.sleep(0.1)
        finally:
            mirror.close()
            bench.stop(server)
    return figures


def update_figures(
    figures: Figures, mirror: sqlite3.Connection, run_ids: set[str], elapsed: float
) -> None:
    """Record which of the figures the mirror has reached, after this many seconds."""
    query = "SELECT run_id FROM dashboard_run WHERE in_flight"
    read_count = len(run_ids & {run_id for (run_id,) in mirror.execute(query)})
    if read_count and figures.first_run_read_at is None:
        figures.first_run_read_at = elapsed
    if read_count >= len(run_ids) / 2 and figures.half_read_at is None:
        figures.half_read_at = elapsed
    if read_count == len(run_ids) and figures.in_flight_read_at is None:
        figures.in_flight_read_at = elapsed
    query = "SELECT count(*), count(synced_at), sum(in_flight_incomplete) FROM dashboard_stage"
    stage_count, read_stage_count, incomplete_count = mirror.execute(query).fetchone()
    query = "SELECT count(*) FROM dashboard_catalogsync WHERE synced_at IS NULL"
    (unread_list_count,) = mirror.execute(query).fetchone()
    is_complete = (
        stage_count == read_stage_count > 0 and not incomplete_count and not unread_list_count
    )
    if is_complete and figures.stages_read_at is None:
        figures.stages_read_at = elapsed


def format_seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", type=int, default=list(TARGETS))
    table = Table()
    for stages in parser.parse_args().stages:
        with scratch() as bench:
            figures = measure(bench, stages)
        target = TARGETS.get(stages)
        table.add(
            f"{stages} stages, {figures.in_flight_count} runs in flight: all read",
            format_seconds(figures.in_flight_read_at),
            target=f"<= {target:.0f} s" if target else "",
            met=figures.in_flight_read_at is not None and figures.in_flight_read_at <= target
            if target
            else None,
        )
        table.add(
            "... the first, half of them",
            f"{format_seconds(figures.first_run_read_at)}, {format_seconds(figures.half_read_at)}",
        )
        table.add("... every stage read", format_seconds(figures.stages_read_at))
        table.add("... requests until then, of 1,000", str(figures.request_count))
    table.show()
    return int(table.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
