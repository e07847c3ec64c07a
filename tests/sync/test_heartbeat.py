"""The row of a worker: it has a heartbeat, and is deleted when the worker stops."""

import asyncio
import threading
import time
from typing import Any

import pytest

from dashboard.db.threads import run_in_db_thread
from dashboard.models import Worker
from dashboard.sync import worker as sync_worker
from dashboard.sync.worker import SyncWorker
from tests.support.live import WAIT_TIMEOUT
from tests.support.world import World


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


def test_worker_stopped_during_a_heartbeat_deletes_its_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_heartbeat = sync_worker.record_heartbeat
    has_begun, has_ended = threading.Event(), threading.Event()

    def record_slowly(*arguments: Any) -> None:
        has_begun.set()
        time.sleep(0.3)
        record_heartbeat(*arguments)
        has_ended.set()

    monkeypatch.setattr(sync_worker, "record_heartbeat", record_slowly)
    worker = SyncWorker(world.live.connection)

    async def stop_during_heartbeat() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        while not has_begun.is_set():
            await asyncio.sleep(0.01)
        stop.set()
        await task

    world.live.run(stop_during_heartbeat)
    assert has_ended.wait(WAIT_TIMEOUT)
    assert not Worker.objects.exists()
