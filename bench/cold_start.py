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

from running import ROOT, Bench, scratch, serve_in_thread
from tables import Table

sys.path.insert(0, str(ROOT))
from dashboard import sandbox
from dashboard.sandbox.sandbox import Sandbox

LATENCY = 0.2  # seconds
TARGETS = {180: 60.0, 300: 100.0}  # seconds, by the number of stages
GIVE_UP = 300.0  # seconds


@dataclass
class Figures:
    """Results; times are seconds since the start of the process."""

    stages: int
    in_flight: int
    first: float | None = None  # first run in flight read
    half: float | None = None
    in_flight_read_after: float | None = None  # all runs in flight read
    all_read_after: float | None = None  # every stage read
    requests: int = 0  # until then


@contextlib.contextmanager
def upstream(stages: int) -> Iterator[tuple[str, Sandbox]]:
    """Serve a sandbox with this many stages from this process."""
    options = sandbox.Options(
        scenario="100-pipelines", faults=[sandbox.parse_fault(f"latency:{LATENCY}")]
    )
    app = sandbox.create_app(options)
    world = app.state.sandbox.world
    pipelines_per_project = stages // 3 // len(world.projects)
    world.projects = tuple(
        dataclasses.replace(project, pipelines=project.pipelines[:pipelines_per_project])
        for project in world.projects
    )
    with serve_in_thread(app) as url:
        yield url, app.state.sandbox


def in_flight(of: Sandbox) -> set[str]:
    """Return the runs that are in flight upstream now."""
    world, now = of.world, of.clock()
    return {
        run.id
        for flow in world.list_flows()
        for run in world.list_runs(flow, now)
        if now < run.concluded_at
    }


def measure(bench: Bench, stages: int) -> Figures:
    with upstream(stages) as (url, of):
        settings = {"NORTHFLANK_API_TOKEN": "sandbox", "NORTHFLANK_API_BASE_URL": url}
        bench.manage("migrate", **settings)
        asked_for = in_flight(of)
        figures = Figures(stages, len(asked_for))
        started_at = time.perf_counter()
        server = bench.start("serve", "--port", "0", **settings)
        mirror = sqlite3.connect(f"file:{bench.database}?mode=ro", uri=True)
        try:
            while figures.in_flight_read_after is None or figures.all_read_after is None:
                after = time.perf_counter() - started_at
                if after > GIVE_UP:
                    break
                look(mirror, asked_for, figures, after)
                figures.requests = of.rate_limit_window.request_count
                # A run that has ended meanwhile need not be in the mirror.
                asked_for &= in_flight(of)
                time.sleep(0.1)
        finally:
            mirror.close()
            bench.stop(server)
    return figures


def look(mirror: sqlite3.Connection, asked_for: set[str], figures: Figures, after: float) -> None:
    """Update the figures from the mirror."""
    runs = "SELECT run_id FROM dashboard_run WHERE in_flight"
    known_count = len(asked_for & {run for (run,) in mirror.execute(runs)})
    if known_count and figures.first is None:
        figures.first = after
    if known_count >= len(asked_for) / 2 and figures.half is None:
        figures.half = after
    if known_count == len(asked_for) and figures.in_flight_read_after is None:
        figures.in_flight_read_after = after
    unread = "SELECT count(*), count(synced_at), sum(in_flight_incomplete) FROM dashboard_stage"
    unlisted_query = "SELECT count(*) FROM dashboard_catalogsync WHERE synced_at IS NULL"
    stages, read_count, older = mirror.execute(unread).fetchone()
    (unlisted_count,) = mirror.execute(unlisted_query).fetchone()
    is_all_read = stages == read_count > 0 and not older and not unlisted_count
    if is_all_read and figures.all_read_after is None:
        figures.all_read_after = after


def seconds(after: float | None) -> str:
    return "never" if after is None else f"{after:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", type=int, default=list(TARGETS))
    table = Table()
    for stages in parser.parse_args().stages:
        with scratch() as bench:
            figures = measure(bench, stages)
        target = TARGETS.get(stages)
        table.add(
            f"{stages} stages, {figures.in_flight} runs in flight: all read",
            seconds(figures.in_flight_read_after),
            target=f"<= {target:.0f} s" if target else "",
            met=figures.in_flight_read_after is not None and figures.in_flight_read_after <= target
            if target
            else None,
        )
        table.add(
            "... the first, half of them", f"{seconds(figures.first)}, {seconds(figures.half)}"
        )
        table.add("... every stage read", seconds(figures.all_read_after))
        table.add("... requests until then, of 1,000", str(figures.requests))
    table.show()
    return int(table.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
