"""Bytes a run in the database, by table and index.

    uv run bench/size.py [--quick] [--postgres postgres://user@host:port/database]

Mirrors 10,000 concluded runs of the sandbox into a scratch database, 40 % of them with their steps,
as the sync does, and prints the size of each table and index. On SQLite free pages are not counted.
Exits with 1 if a run takes more than a third of the bytes of the first version.
"""

import itertools
import sys
import time

from processes import database_version, local_django, parse_options

SHARE_WITH_STEPS = 0.4
BATCH_SIZE = 100
MAX_BYTES = {"sqlite": 1_460, "postgresql": 730}  # a run


def mirror_runs(count: int) -> int:
    """Mirror about `count` concluded runs of the sandbox; return how many."""
    from django.utils import timezone

    from dashboard.models import Pipeline, Project, Stage
    from dashboard.northflank.decoding import parse_run_detail
    from dashboard.sandbox.choices import Choices
    from dashboard.sandbox.serializers import serialize_run_detail
    from dashboard.sandbox.world import World
    from dashboard.sync import mirror

    timestamp, now = time.time(), timezone.now()
    world = World(opened_at=timestamp, history_seconds=count * 60)
    run_count = 0
    for flow in world.list_flows():
        project = Project.objects.get_or_create(slug=flow.project, synced_at=now)[0]
        pipeline = Pipeline.objects.get_or_create(
            project=project, slug=flow.pipeline, synced_at=now
        )[0]
        stage = Stage.objects.create(pipeline=pipeline, name=flow.stage, next_sync_at=now)
        runs_of_flow = world.list_runs(flow, timestamp)
        concluded_runs = (run for run in runs_of_flow if run.concluded_at < timestamp)
        for runs in itertools.batched(concluded_runs, BATCH_SIZE):
            payloads = (serialize_run_detail(run, timestamp, Choices({})) for run in runs)
            details = [detail for payload in payloads if (detail := parse_run_detail(payload))]
            mirror.apply_runs(stage.pk, [detail.run for detail in details], requested_at=now)
            for detail in details[: round(len(details) * SHARE_WITH_STEPS)]:
                mirror.apply_detail(stage.pk, detail, requested_at=now)
            run_count += len(details)
            if run_count >= count:
                return run_count
    return run_count


def read_sizes() -> dict[str, int]:
    """Return the bytes of each table and index that has more than a few pages."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("VACUUM")
            cursor.execute("SELECT name, SUM(pgsize) FROM dbstat GROUP BY name")
        else:
            cursor.execute("VACUUM FULL")
            cursor.execute(
                "SELECT relname, pg_relation_size(oid) FROM pg_class"
                " WHERE relkind IN ('r', 'i', 't') AND (relnamespace = 'public'::regnamespace"
                " OR oid IN (SELECT reltoastrelid FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace))"
            )
        return {name: size for name, size in cursor.fetchall() if size > 2 * 8192}


def main() -> int:
    options = parse_options(__doc__, "1,000 runs")
    with local_django(options.postgres):
        import django
        from django.core.management import call_command
        from django.db import connection

        django.setup()
        call_command("migrate", verbosity=0)
        count = mirror_runs(1_000 if options.quick else 10_000)
        sizes = read_sizes()
        for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
            print(f"{size / count:10,.0f} bytes a run  {name}")
        total, limit = sum(sizes.values()) / count, MAX_BYTES[connection.vendor]
        print(f"{total:10,.0f} bytes a run  in total, of {count:,} runs; target <= {limit:,}")
        print(f"\n{database_version()}")
    return 0 if total <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
