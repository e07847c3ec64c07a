"""Cost of typical durations and of the overdue check.

    uv run bench/typical_durations.py [--quick]

In one process on a scratch SQLite database: in turn, pages with 100 rows of stages with typical
durations (half of the runs overdue, a full history) and of stages without; history charts of 300
stages; and the check of 200 runs for overdue ones. Prints a table, and exits with 1 if a target is
missed.
"""

import argparse
import os
import platform
import sqlite3
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from processes import ROOT, Bench, scratch
from tables import Table, format_quantiles, quantile

if TYPE_CHECKING:
    from dashboard.models import Stage

ROWS = 100
IN_FLIGHT = 2 * ROWS  # of both projects
STAGES = 300
ENDED_RUNS = 40  # a stage, more than the 30 of a history chart
TIMED, UNTIMED = "timed", "untimed"  # projects with and without typical durations


class ProjectPair:
    """Two projects of equal size, and for each a user who may view only that one."""

    def __init__(self) -> None:
        from django.contrib.auth.models import Group, User
        from django.test import Client

        from dashboard.models import Grant, Project

        Grant.objects.all().delete()
        self.clients: dict[str, Client] = {}
        stages: dict[str, Stage] = {}
        for name in (TIMED, UNTIMED):
            project = Project.objects.create(slug=name, name=name, synced_at=_now())
            group = Group.objects.create(name=name)
            Grant.objects.create(group=group, project=project, action="abort")
            user = User.objects.create_user(name)
            user.groups.add(group)
            self.clients[name] = Client(SERVER_NAME="localhost")
            self.clients[name].force_login(user)
            stages[name] = _create_stage(project, "checkout")
            _create_runs(stages[name], ROWS, in_flight=True, overdue=name == TIMED)
        _create_runs(stages[TIMED], ENDED_RUNS, in_flight=False)
        _create_timing(stages[TIMED])

    def measure_page(self, name: str, page: str) -> float:
        """Request a page of a project; return its milliseconds of CPU time.

        CPU time, since other load on the machine adds to the duration.
        """
        address = {
            "now": "/",
            "stage": f"/projects/{name}/pipelines/checkout/release-flows/production/",
        }[page]
        started_at = time.process_time()
        response = self.clients[name].get(address)
        cpu_ms = (time.process_time() - started_at) * 1000
        assert response.status_code == 200, response.status_code
        assert response.content.count(b"data-run=") >= 50
        return cpu_ms


def measure_pages(table: Table, projects: ProjectPair, times: int) -> None:
    """Measure pages of both projects in turn, with all rows cached and with none."""
    from django.core.cache import cache

    for page in ("now", "stage"):
        for is_cached in (True, False):
            cpu_times: dict[str, list[float]] = {TIMED: [], UNTIMED: []}
            for name in cpu_times:
                projects.measure_page(name, page)
            for _ in range(times if is_cached else times // 10):
                for name, figures in cpu_times.items():
                    if not is_cached:
                        cache.clear()
                    figures.append(projects.measure_page(name, page))
            timed, untimed = (quantile(0.5, figures) for figures in cpu_times.values())
            difference = timed - untimed
            table.add(
                f"{page}, {ROWS} rows, {'cached' if is_cached else 'no row cached'}, CPU",
                f"{untimed:.1f} -> {timed:.1f} ms, {difference:+.2f} ms, x {timed / untimed:.2f}",
                target="< 1 ms more" if is_cached else "",
                met=difference < 1 if is_cached else None,
            )


def measure_charts(table: Table, times: int) -> None:
    """Measure the board's history charts of 300 stages with a full history."""
    from django.core.cache import cache

    from dashboard.models import Project, Run
    from dashboard.web.components.runs import history_charts

    project = Project.objects.create(slug="many", name="many", synced_at=_now())
    stages = [_create_stage(project, f"pipeline-{n}") for n in range(STAGES)]
    for stage in stages:
        _create_runs(stage, ENDED_RUNS, in_flight=False)

    def render_uncached(selected: "list[Stage]", *, compact: bool) -> None:
        cache.clear()
        history_charts.render_charts(selected, compact=compact)

    for name, selected, compact in (
        ("1 stage", stages[:1], False),
        (f"{STAGES} stages", stages, True),
    ):
        render = partial(history_charts.render_charts, selected, compact=compact)
        render()
        figures = [_measure_cpu(render) for _ in range(times)]
        has_target = len(selected) == 1  # each view of a stage's page costs this
        table.add(
            f"charts of {name}, cached, CPU",
            format_quantiles(figures),
            target="p50 < 1 ms" if has_target else "",
            met=quantile(0.5, figures) < 1 if has_target else None,
        )
        render_all = partial(render_uncached, selected, compact=compact)
        render_all()
        figures = [_measure_cpu(render_all) for _ in range(times // 10)]
        table.add(f"charts of {name}, rendered, CPU", format_quantiles(figures))
    charts = history_charts.render_charts(stages, compact=True)
    size = sum(len(html) for html in charts.values()) / 1024
    table.add(f"… their markup ({Run.objects.count():,} runs in the mirror)", f"{size:.0f} KB")


def measure_overdue_check(table: Table, times: int) -> None:
    """Measure the check of all runs in flight that runs every five seconds."""
    import msgspec

    from dashboard.models import Run
    from dashboard.sync import overdue_checker

    now = _now()
    steps = [
        {
            "kind": "JobRun",
            "label": f"step {n}",
            "ref": f"step-{n}",
            "status": "waiting",
            "started_at": (now - timedelta(minutes=1)).isoformat(),
            "ended_at": None,
        }
        for n in range(20)
    ]
    root = msgspec.to_builtins(_build_node("Workflow", steps))
    Run.objects.in_flight().update(steps=root)
    assert Run.objects.in_flight().count() == IN_FLIGHT
    overdue_checker.check_runs(now)  # the first check stores the severities
    figures = [_measure_cpu(partial(overdue_checker.check_runs, now)) for _ in range(times // 10)]
    share = quantile(0.5, figures) / 1000 / overdue_checker.CHECK_INTERVAL
    table.add(
        f"checking {IN_FLIGHT} runs of 20 steps, CPU",
        f"{format_quantiles(figures)}, {share:.2%} of a core",
    )
    tracemalloc.start()
    overdue_checker.check_runs(now)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    table.add("… memory while it runs", f"{peak / 2**20:.1f} MB")


def _measure_cpu(call: Callable[[], object]) -> float:
    """Return the milliseconds of CPU time of a call."""
    started_at = time.process_time()
    call()
    return (time.process_time() - started_at) * 1000


def _now() -> Any:
    from django.utils import timezone

    return timezone.now()


def _build_node(kind: str, steps: list[dict[str, Any]]) -> Any:
    import msgspec

    from dashboard.northflank import Node

    empty = dict.fromkeys(Node.__dataclass_fields__) | {
        "kind": kind,
        "label": "",
        "parallel": False,
        "skip": False,
        "steps": [],
    }
    return msgspec.convert(empty | {"steps": [empty | step for step in steps]}, Node)


def _create_stage(project: Any, slug: str) -> "Stage":
    from dashboard.models import Pipeline, Stage

    now = _now()
    pipeline = Pipeline.objects.create(project=project, slug=slug, name=slug, synced_at=now)
    next_sync_at = now + timedelta(hours=1)
    return Stage.objects.create(
        pipeline=pipeline,
        name="Production",
        confirmed_path_segment="production",
        has_flow=True,
        synced_at=now,
        next_sync_at=next_sync_at,
        fresh_until=next_sync_at,
    )


def _create_runs(stage: "Stage", count: int, *, in_flight: bool, overdue: bool = False) -> None:
    from dashboard.models import Run

    now = _now()
    Run.objects.bulk_create(
        Run(
            stage=stage,
            run_id=f"{stage.pk}-{in_flight}-{n}",
            name=f"Release {n}",
            status="running" if in_flight else ("failure" if n % 9 == 0 else "success"),
            concluded=not in_flight,
            in_flight=in_flight,
            created_at=now - timedelta(minutes=n + 2),
            started_at=now - timedelta(minutes=n + 1),
            concluded_at=None if in_flight else now - timedelta(minutes=n),
            first_synced_at=now,
            synced_at=now,
            status_since=now,
            version=n,
            step="migrate",
            step_key="migrate",
            step_started_at=now if in_flight else None,
            overdue_severity=n % 2 if overdue else 0,
            overdue_reason="run" if overdue and n % 2 else "",
        )
        for n in range(count)
    )


def _create_timing(stage: "Stage") -> None:
    from dashboard.models import StageTiming

    StageTiming.objects.create(
        stage=stage,
        observed_run_median=360,
        observed_run_p95=540,
        observed_queue_median=30,
        observed_queue_p95=60,
        observed_steps={"migrate": [60, 90]},
        success_count=20,
        detail_count=5,
        observed_at=_now(),
    )


def _set_up_django(bench: Bench) -> None:
    """Set up Django in this process, on the scratch database."""
    sys.path.insert(0, str(ROOT))
    settings = {"NORTHFLANK_API_TOKEN": "sandbox", "LOG_LEVEL": "ERROR"}
    os.environ.update(bench.environment(settings))
    os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    times = 60 if parser.parse_args().quick else 300
    table = Table()
    with scratch() as bench:
        _set_up_django(bench)
        measure_pages(table, ProjectPair(), times)
        measure_overdue_check(table, times)
        measure_charts(table, times)
        from django.db import connection

        connection.close()
    print()
    table.show()
    print(f"\nPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
