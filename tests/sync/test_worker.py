"""The worker's loop: its row, its chores, rounds that fail, and its end."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.db import notify as db_notify
from dashboard.db.threads import run_in_db_thread
from dashboard.models import CatalogSync, Lead, Run, Stage
from dashboard.sync import catalog, due, lead, watchers
from dashboard.sync.webhooks import events
from dashboard.sync.worker import SyncWorker
from dashboard.upstream.connection import Connection
from tests.support import live_runs
from tests.support.live import WAIT_TIMEOUT
from tests.support.world import LoggedEvents, World


def _view_stage() -> None:
    watchers.watch_stage(_idle_stages().get(), timezone.now())


def _view_run() -> None:
    run = Run.objects.tracked().filter(stage__in=_idle_stages()).first()
    assert run is not None
    watchers.watch_run(run, timezone.now())


def _receive_event() -> None:
    data = {"projectId": "payments", "pipelineId": "ledger", "stage": "production"}
    name = "release-flow-template-run:start"
    events.handle_event(events.Event(name, data, "e-1"), timezone.now())


def _idle_stages() -> QuerySet[Stage]:
    return Stage.objects.filter(pipeline__slug="ledger", name="Production")


@pytest.mark.parametrize("ask", [_view_stage, _view_run, _receive_event])
def test_worker_between_ticks_reads_what_becomes_due_at_once(
    world: World, ask: Callable[[], None]
) -> None:
    world.keep_one_pipeline()
    world.start("payments/ledger/production")
    worker = SyncWorker(world.live.connection, tick_interval=WAIT_TIMEOUT)

    def has_read_everything() -> bool:
        return Stage.objects.exists() and not due.has_due_reads(timezone.now())

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        while not await run_in_db_thread(has_read_everything):
            worker.wake()
            await asyncio.sleep(0.02)
        await worker.wait_idle()
        await run_in_db_thread(_read_a_while_ago)
        assert worker.reads is not None
        read_before = worker.reads.started
        await run_in_db_thread(ask)
        async with asyncio.timeout(WAIT_TIMEOUT / 2):
            while worker.reads.started == read_before:
                await asyncio.sleep(0.02)
        stop.set()
        await task

    world.live.run(work)


def _read_a_while_ago() -> None:
    now = timezone.now()
    past, future = now - timedelta(minutes=2), now + timedelta(hours=1)
    Stage.objects.update(synced_at=past, next_sync_at=future, fresh_until=future)
    Run.objects.update(detail_synced_at=past, next_detail_sync_at=None)
    CatalogSync.objects.update(next_sync_at=future)


def test_answer_to_an_abort_is_notified(world: World, manager: User) -> None:
    run = live_runs.create_run_in_flight(world.live)
    notified: list[None] = []
    topics = {db_notify.Topic.READS: lambda: notified.append(None)}
    listener = asyncio.run_coroutine_threadsafe(db_notify.listen(topics), world.live.loop)
    # On PostgreSQL also once it listens.
    world.live.run(lambda: asyncio.sleep(0))
    live_runs.wait_until(lambda: notified or connection.vendor == "sqlite")
    before = len(notified)
    live_runs.submit_abort(world.live.sign_in("manager"), run)
    live_runs.wait_until(lambda: len(notified) > before)
    listener.cancel()


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
        chores=[reconcile_open_aborts],
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
            row = await run_in_db_thread(Lead.objects.get)
        finally:
            await run_in_db_thread(
                run_statement, "ALTER TABLE elsewhere RENAME TO dashboard_ratebudget"
            )
        await wait_for_event("sync.recovered")
        stop.set()
        # It still has the lead, and pages say that it reads nothing.
        assert lead.is_stalled(row.round_ended_at, row.renewed_at + lead.MAX_ROUND)
        await task

    world.live.run(work)
    assert len(logged_events("sync.tick_failed")) == len(logged_events("sync.recovered")) == 1
    assert logged_events("read.crashed") == []


def test_round_that_does_not_end_is_logged_once(world: World, logged_events: LoggedEvents) -> None:
    hangs, is_over = threading.Event(), threading.Event()

    def measure_clock() -> None:
        if hangs.is_set():
            is_over.wait(WAIT_TIMEOUT)

    max_round = timedelta(seconds=0.3)
    worker = SyncWorker(
        world.live.connection, renewal_interval=0, sync_clock=measure_clock, max_round=max_round
    )

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(worker.run(stop))
        while worker.reads is None:
            await asyncio.sleep(0.01)
        hangs.set()
        while not logged_events("sync.stalled"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(max_round.total_seconds())  # two more checks, which log nothing
        is_over.set()
        stop.set()
        await task

    world.live.run(work)
    assert len(logged_events("sync.stalled")) == 1
