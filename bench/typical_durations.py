"""Cost of typical durations and overdue marks.

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
from typing import TYPE_CHECKING, Any

from running import ROOT, Bench, scratch
from tables import Table, p, spread

if TYPE_CHECKING:
    from dashboard.models import Stage

ROWS = 100
FLYING = 200
STAGES = 300
HISTORY = 40


class World:
    """Two projects of equal size, and for each a user who may view only that one."""

    def __init__(self) -> None:
        from django.contrib.auth.models import Group, User
        from django.test import Client

        from dashboard.models import Grant, Project

        Grant.objects.all().delete()
        self.desks: dict[str, Client] = {}
        self.stages: dict[str, Stage] = {}
        for name in ("known", "unknown"):
            project = Project.objects.create(slug=name, name=name, synced_at=_now())
            group = Group.objects.create(name=name)
            Grant.objects.create(group=group, project=project, action="abort")
            client = User.objects.create_user(name)
            client.groups.add(group)
            self.desks[name] = Client(SERVER_NAME="localhost")
            self.desks[name].force_login(client)
            self.stages[name] = _stage(project, "checkout")
            _runs(self.stages[name], ROWS, in_flight=True, overdue=name == "known")
        _runs(self.stages["known"], HISTORY, in_flight=False)
        _usual(self.stages["known"])

    def ask(self, name: str, page: str) -> float:
        """Return a page's milliseconds of CPU time, since others use the machine too."""
        address = {
            "now": "/",
            "stage": f"/projects/{name}/pipelines/checkout/release-flows/production/",
        }[page]
        started_at = time.process_time()
        answer = self.desks[name].get(address)
        took = (time.process_time() - started_at) * 1000
        assert answer.status_code == 200, answer.status_code
        assert answer.content.count(b"data-run=") >= 50
        return took


def pages(table: Table, world: World, times: int) -> None:
    """Measure pages of both projects in turn, with all rows cached and with none."""
    from django.core.cache import cache

    for page in ("now", "stage"):
        for cached in (True, False):
            took: dict[str, list[float]] = {"known": [], "unknown": []}
            for name in took:
                world.ask(name, page)
            for _ in range(times if cached else times // 10):
                for name, figures in took.items():
                    if not cached:
                        cache.clear()
                    figures.append(world.ask(name, page))
            known, unknown = (p(0.5, figures) for figures in took.values())
            difference = known - unknown
            table.add(
                f"{page}, {ROWS} rows, {'cached' if cached else 'no row cached'}, CPU",
                f"{unknown:.1f} -> {known:.1f} ms, {difference:+.2f} ms, x {known / unknown:.2f}",
                target="< 1 ms more" if cached else "",
                met=difference < 1 if cached else None,
            )


def charts(table: Table, times: int) -> None:
    """Measure the board's history charts of 300 stages with a full history."""
    from django.core.cache import cache

    from dashboard.models import Project, Run
    from dashboard.web.components.runs import history_charts

    project = Project.objects.create(slug="many", name="many", synced_at=_now())
    all_stages = [_stage(project, f"pipeline-{n}") for n in range(STAGES)]
    for stage in all_stages:
        _runs(stage, HISTORY, in_flight=False)
    single_stage = all_stages[:1]

    def anew(of: "list[Stage]", **how: Any) -> None:
        cache.clear()
        history_charts.render_charts(of, **how)

    cases: list[tuple[str, Callable[[], object]]] = [
        ("1 stage, cached", lambda: history_charts.render_charts(single_stage)),
        ("1 stage, made anew", lambda: anew(single_stage)),
        (
            f"{STAGES} stages, cached",
            lambda: history_charts.render_charts(all_stages, compact=True),
        ),
        (f"{STAGES} stages, made anew", lambda: anew(all_stages, brief=True)),
    ]
    for name, work in cases:
        work()
        took = [_timed(work) for _ in range(times // 10 if "anew" in name else times)]
        on_each_view = work is cases[0][1]
        table.add(
            f"charts of {name}, CPU",
            spread(took),
            target="p50 < 1 ms" if on_each_view else "",
            met=p(0.5, took) < 1 if on_each_view else None,
        )
    size = (
        sum(len(html) for html in history_charts.render_charts(all_stages, compact=True).values())
        / 1024
    )
    table.add(f"… their markup ({Run.objects.count():,} runs in the mirror)", f"{size:.0f} KB")


def marking(table: Table, times: int) -> None:
    """Measure the check of all runs in flight that runs every five seconds."""
    import msgspec

    from dashboard.models import Run
    from dashboard.sync import overdue_checker as chore

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
    tree = msgspec.to_builtins(_node("Workflow", steps))
    Run.objects.in_flight().update(steps=tree)
    assert Run.objects.in_flight().count() == FLYING
    chore.check_runs(now)  # the first check stores the severities
    cpu = []
    for _ in range(times // 10):
        started_at = time.process_time()
        chore.check_runs(now)
        cpu.append((time.process_time() - started_at) * 1000)
    share = p(0.5, cpu) / 1000 / chore.CHECK_INTERVAL
    table.add(f"checking {FLYING} runs of 20 steps, CPU", f"{spread(cpu)}, {share:.2%} of a core")
    tracemalloc.start()
    chore.check_runs(now)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    table.add("… memory while it runs", f"{most / 2**20:.1f} MB")


def _timed(work: Callable[[], object]) -> float:
    """Return the milliseconds of CPU time of a call."""
    started_at = time.process_time()
    work()
    return (time.process_time() - started_at) * 1000


def _now() -> Any:
    from django.utils import timezone

    return timezone.now()


def _node(kind: str, steps: list[dict[str, Any]]) -> Any:
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


def _stage(project: Any, slug: str) -> "Stage":
    from dashboard.models import Pipeline, Stage

    now = _now()
    pipeline = Pipeline.objects.create(project=project, slug=slug, name=slug, synced_at=now)
    later = now + timedelta(hours=1)
    return Stage.objects.create(
        pipeline=pipeline,
        name="Production",
        confirmed_path_segment="production",
        has_flow=True,
        synced_at=now,
        next_sync_at=later,
        fresh_until=later,
    )


def _runs(stage: "Stage", count: int, *, in_flight: bool, overdue: bool = False) -> None:
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


def _usual(stage: "Stage") -> None:
    from dashboard.models import StageTiming

    StageTiming.objects.create(
        stage=stage,
        observed_run_median=360,
        observed_run_p95=540,
        observed_queue_median=30,
        observed_queue_p95=60,
        observed_steps={"migrate": [60, 90]},
        successes=20,
        detail_count=5,
        observed_at=_now(),
    )


def _open(bench: Bench) -> None:
    """Set up Django in this process, on the scratch database."""
    sys.path.insert(0, str(ROOT))
    quiet = {"NORTHFLANK_API_TOKEN": "sandbox", "LOG_LEVEL": "ERROR"}
    os.environ.update(bench.environment(quiet))
    os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="fewer repetitions")
    times = 60 if arguments.parse_args().quick else 300
    table = Table()
    with scratch() as bench:
        _open(bench)
        world = World()
        pages(table, world, times)
        marking(table, times)
        charts(table, times)
        from django.db import connection

        connection.close()
    print()
    table.show()
    print(f"\nPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
