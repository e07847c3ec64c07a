"""The worker's loop: its row, its chores, rounds that fail, and its end."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.utils import timezone

from dashboard import aborts
from dashboard.db.threads import executor, run_in_db_thread
from dashboard.models import Run, Worker
from dashboard.sync import catalog
from dashboard.sync.worker import SyncWorker
from dashboard.upstream.connection import Connection
from tests.support.databases import wrap_statements
from tests.support.live import WAIT_TIMEOUT
from tests.support.world import LoggedEvents, World


def test_running_worker_has_a_heartbeat(world: World) -> None:
    world.sync()
    assert Worker.objects.get().heartbeat_at is not None


def test_stopped_worker_deletes_its_row(world: World) -> None:
    worker = SyncWorker(world.live.connection)

    async def run_briefly() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        while not await run_in_db_thread(Worker.objects.exists):
            await asyncio.sleep(0.01)
        stop.set()
        await task

    world.live.run(run_briefly)
    assert not Worker.objects.exists()


def test_worker_stopped_during_a_heartbeat_deletes_its_row(world: World) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def write(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if sql.startswith("INSERT") and Worker._meta.db_table in sql:
            has_begun.set()
            assert may_end.wait(WAIT_TIMEOUT)
        return execute(sql, *arguments)

    worker = SyncWorker(world.live.connection)

    async def stop_during_heartbeat() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        while not has_begun.is_set():
            await asyncio.sleep(0.01)
        stop.set()
        try:
            # Nothing says that the worker waits, so this has to wait some time.
            ended, _ = await asyncio.wait({task}, timeout=0.3)
            assert not ended
        finally:
            may_end.set()
        await task

    with wrap_statements(executor, wrapper=write):  # ends once these threads have written all
        world.live.run(stop_during_heartbeat)
    assert not Worker.objects.exists()


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
            await asyncio.gather(*worker.active_reads)
        release.set()
        await worker.wait_idle()

    world.live.run(work)
    assert Run.objects.in_flight().exists()
    assert len(started_chores) == 1


def test_worker_idle_returns_when_last_read_ends() -> None:
    worker = SyncWorker(Connection("token", "http://127.0.0.1:9"))

    async def read() -> None:
        pass

    async def work() -> None:
        worker.start_read(read())
        await asyncio.sleep(0)  # it has ended, and is still in `active_reads`
        assert worker.active_reads
        await worker.wait_idle()
        await worker.connection.close()

    # A blocked loop can't be stopped from within.
    working = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    working.start()
    working.join(WAIT_TIMEOUT)
    assert not working.is_alive()
    assert not worker.active_reads


def run_statement(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_worker_stops_during_database_outage(world: World) -> None:
    worker = SyncWorker(world.live.connection)

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(worker.run(stop))
        while not worker.reads_started:
            await asyncio.sleep(0.01)
        await run_in_db_thread(run_statement, "ALTER TABLE dashboard_worker RENAME TO elsewhere")
        try:
            stop.set()
            await task
        finally:
            await run_in_db_thread(
                run_statement, "ALTER TABLE elsewhere RENAME TO dashboard_worker"
            )

    world.live.run(work)
    assert not worker.active_reads
    assert Worker.objects.filter(name=worker.name).exists()  # as after a kill


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
        heartbeat_interval=0,  # so that each round measures the clock first
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
