"""The worker's loop: its chores, rounds that fail, and its end."""

import asyncio

from django.db import connection
from django.utils import timezone

from dashboard import aborts
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Lead, Run
from dashboard.sync import catalog
from dashboard.sync.worker import SyncWorker
from dashboard.upstream.connection import Connection
from tests.support.world import LoggedEvents, World


def test_waiting_chore_does_not_delay_reads(world: World) -> None:
    release = asyncio.Event()
    started_chores = []

    async def chore(_: Connection) -> None:
        started_chores.append(1)
        await release.wait()

    worker = SyncWorker(world.live.connection, chores=[chore])

    async def work() -> None:
        await run_in_db_thread(catalog.start, timezone.now())
        for _ in range(100):
            await worker.tick()
            assert worker.reads is not None
            await asyncio.gather(*worker.reads.active)
        release.set()
        await worker.wait_idle()

    world.live.run(work)
    assert Run.objects.in_flight().exists()
    assert len(started_chores) == 1


def run_statement(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_worker_stops_during_database_outage(world: World) -> None:
    worker = SyncWorker(world.live.connection)

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(worker.run(stop))
        while worker.reads is None or not worker.reads.started:
            await asyncio.sleep(0.01)
        await run_in_db_thread(run_statement, "ALTER TABLE dashboard_lead RENAME TO elsewhere")
        try:
            stop.set()
            await task
        finally:
            await run_in_db_thread(run_statement, "ALTER TABLE elsewhere RENAME TO dashboard_lead")

    world.live.run(work)
    assert worker.reads is not None
    assert not worker.reads.active
    assert Lead.objects.get().holder == worker.holder  # as after a kill


def test_failing_round_is_logged_once_at_start_and_end(
    world: World, logged_events: LoggedEvents
) -> None:
    world.sync()
    measurements = 0

    def measure_clock() -> None:
        nonlocal measurements
        measurements += 1

    worker = SyncWorker(
        world.live.connection,
        chores=[aborts.reconcile_open_aborts],
        renewal_interval=0,  # so that each round measures the clock first
        sync_clock=measure_clock,
    )

    async def wait_for_event(event: str) -> None:
        """Wait until an event has been logged, and another round has ended."""
        while not logged_events(event):
            await asyncio.sleep(0.01)
        # The second measurement from now begins a round after one that has ended.
        expected = measurements + 2
        while measurements < expected:
            await asyncio.sleep(0.01)

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(worker.run(stop))
        await run_in_db_thread(
            run_statement, "ALTER TABLE dashboard_ratebudget RENAME TO elsewhere"
        )
        try:
            await wait_for_event("sync.tick_failed")
        finally:
            await run_in_db_thread(
                run_statement, "ALTER TABLE elsewhere RENAME TO dashboard_ratebudget"
            )
        await wait_for_event("sync.recovered")
        stop.set()
        await task

    world.live.run(work)
    assert len(logged_events("sync.tick_failed")) == len(logged_events("sync.recovered")) == 1
    assert logged_events("read.crashed") == []
