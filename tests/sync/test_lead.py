"""The lead: one process reads; another takes over when it dies, hangs or was paused."""

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from dashboard.db import threads as db_threads
from dashboard.models import Lead, Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import lead
from dashboard.sync.lead import CLOCK_TOLERANCE, LEASE, SILENCE, LeadLost, Term
from dashboard.sync.plan import Plan
from dashboard.sync.read_jobs import StageJob
from dashboard.sync.read_plan import ReadPlan
from dashboard.sync.worker import SyncWorker
from tests.support import factories
from tests.support.live import WAIT_TIMEOUT
from tests.support.world import LONG_AGO, T0, LoggedEvents, World, at

HOUR = timedelta(hours=1)
PLAN = ReadPlan(Plan(scale=math.inf, longest=300.0), {})


def take(holder: str = "a", seconds: float = 0) -> Term | None:
    return lead.take(holder, at(seconds))


def take_first(holder: str = "a") -> Term:
    term = take(holder)
    assert term is not None
    return term


# --- the row ------------------------------------------------------------------------------------


def test_lead_is_held_by_one_process(db: None) -> None:
    assert take("a") is not None
    assert take("b", LEASE.total_seconds()) is None
    assert Lead.objects.get().holder == "a"


def test_lead_that_is_not_renewed_is_taken_over(db: None) -> None:
    take("a")
    assert take("b", LEASE.total_seconds() + 1) is not None
    assert Lead.objects.get().holder == "b"


def test_renewed_lead_is_held_for_longer(db: None) -> None:
    term = take_first()
    lead.renew(term, at(10), at(9))
    assert take("b", LEASE.total_seconds() + 1) is None


def test_lead_that_was_given_up_is_taken_at_once(db: None) -> None:
    lead.release(take_first())
    assert take("b") is not None


def test_lead_of_another_process_is_not_renewed_nor_given_up(db: None) -> None:
    term = take_first("a")
    take("b", 16)
    with pytest.raises(LeadLost):
        lead.renew(term, at(17), at(17))
    lead.release(term)
    assert Lead.objects.get().holder == "b"


def test_lead_is_taken_by_one_of_several_processes(transactional_db: None) -> None:
    barrier = threading.Barrier(4)

    def work(number: int) -> bool:
        barrier.wait(10)
        try:
            return take(str(number)) is not None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 1


@pytest.mark.parametrize(
    ("fields", "is_alive"),
    [
        ({}, True),
        ({"renewed_at": at(-1) - SILENCE}, False),
        ({"holder": ""}, False),
    ],
    ids=["renewed", "silent", "given up"],
)
def test_nobody_reads_after_the_lead_was_given_up_or_long_silent(
    db: None, fields: dict[str, Any], is_alive: bool
) -> None:
    row = factories.leader(**{"renewed_at": T0} | fields)
    assert lead.is_alive(row.holder, row.renewed_at, T0) is is_alive


# --- a process that goes on after its term ------------------------------------------------------


def test_leader_that_was_paused_writes_nothing(world: World) -> None:
    term = take_first("paused")
    take("other", 16)

    async def write() -> None:
        await term.write(Stage.objects.update, has_flow=True)

    stage = factories.stage()
    Stage.objects.filter(pk=stage.pk).update(has_flow=None)
    with pytest.raises(LeadLost):
        world.live.run(write)
    stage.refresh_from_db()
    assert stage.has_flow is None


def test_leader_that_was_paused_sends_nothing(world: World) -> None:
    world.sync()
    stage = Stage.objects.filter(has_flow=True).select_related("pipeline__project")[0]
    reads = world.live.reads
    world.sandbox.requests.clear()
    reads.term.ends_at = 0.0  # as after a pause
    with pytest.raises(LeadLost):
        world.live.run(lambda: reads.read(StageJob(stage, PLAN)))
    assert not world.sandbox.requests


def test_leader_that_was_paused_stands_by(world: World, logged_events: LoggedEvents) -> None:
    world.sync()
    Lead.objects.update(epoch=10, holder="other")
    world.make_due()
    world.sandbox.requests.clear()
    world.live.reads.term.ends_at = 0.0
    world.live.sync(2)
    assert world.live.worker.reads is None
    assert not world.sandbox.requests
    assert len(logged_events("sync.lead_lost")) == 1


# --- workers ------------------------------------------------------------------------------------


def test_second_worker_stands_by_until_the_first_stops(world: World) -> None:
    first, second = (SyncWorker(world.live.connection) for _ in range(2))

    async def tick(worker: SyncWorker) -> None:
        await worker.tick()
        await worker.wait_idle()

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(first.run(stop))
        async with asyncio.timeout(WAIT_TIMEOUT / 2):
            while first.reads is None or not first.reads.started:
                await asyncio.sleep(0.01)
            await tick(second)
            assert second.reads is None
            stop.set()
            await task
            await tick(second)
            assert second.reads is not None

    world.live.run(work)
    assert Lead.objects.get().holder == second.holder


def test_new_leader_reads_what_the_last_one_was_reading(world: World) -> None:
    world.sync()
    world.make_due()
    world.sandbox.faults = [parse_fault("latency:1")]
    first = world.live.worker

    async def work() -> None:
        await first.tick()
        assert world.live.reads.active
        for task in world.live.reads.active:  # it dies
            task.cancel()

    world.live.run(work)
    world.sandbox.faults = []
    run_id = world.start()
    world.live.replace_worker()
    world.live.sync()
    assert Run.objects.filter(run_id=run_id).exists()


def test_defect_in_a_read_is_not_repeated_at_each_tick(
    world: World, logged_events: LoggedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sync()

    async def crash(*_: object) -> None:
        raise ZeroDivisionError

    stage = Stage.objects.filter(has_flow=True)[0]
    Stage.objects.filter(pk=stage.pk).update(synced_at=LONG_AGO, next_sync_at=LONG_AGO)
    monkeypatch.setattr(StageJob, "read", crash)
    world.live.sync(3)
    assert len(logged_events("read.crashed")) == 1


# --- a clock that is set back -------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["a", ""], ids=["held", "given up"])
def test_nobody_takes_the_lead_while_the_clock_is_behind(db: None, holder: str) -> None:
    factories.leader(holder, renewed_at=at(3600))
    assert take("b", 0) is None
    assert take("b", 3600 + LEASE.total_seconds() + 1) is not None


def test_reading_pauses_until_a_clock_set_back_has_caught_up(
    world: World, logged_events: LoggedEvents
) -> None:
    clock = [timedelta()]
    world.live.replace_worker(
        renewal_interval=0, sync_clock=lambda: db_threads.set_clock_offset(clock[-1])
    )
    world.sync()
    synced = dict(Stage.objects.values_list("pk", "synced_at"))
    clock.append(-HOUR)
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(2)
    assert dict(Stage.objects.values_list("pk", "synced_at")) == synced
    row = Lead.objects.get()
    assert lead.clock_catches_up_at(row.renewed_at, timezone.now() - HOUR) == row.renewed_at
    assert [round(line["seconds"], -2) for line in logged_events("clock.set_back")] == [3600]
    clock.append(timedelta(seconds=1))
    run_id = world.start()
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(1)
    assert Run.objects.filter(run_id=run_id).exists()
    assert len(logged_events("clock.set_back")) == 1


def test_clock_set_back_by_seconds_pauses_nothing(db: None) -> None:
    term = take_first()
    assert lead.renew(term, T0 - CLOCK_TOLERANCE, T0) == timedelta()
    assert lead.renew(term, T0 - 3 * CLOCK_TOLERANCE, T0) == 2 * CLOCK_TOLERANCE
