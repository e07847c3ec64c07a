"""A clock jumps by an hour, forward or back: nothing is stuck, nothing is repeated."""

from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.db import threads as db_threads
from dashboard.models import RateBudget, Stage
from dashboard.northflank import RateLimit
from dashboard.sync.worker import SyncWorker
from dashboard.upstream import budget_store
from tests.support.rate_budget import record_response
from tests.support.world import World

HOUR = timedelta(hours=1)
BOTH_DIRECTIONS = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])


@pytest.mark.parametrize("jump", [timedelta(minutes=2), timedelta(minutes=-10)])
def test_own_requests_are_not_taken_for_those_of_others(db: None, jump: timedelta) -> None:
    now = timezone.now()
    for number in range(5):
        record_response(RateLimit(1000, 999 - number, 1800), now)
    record_response(RateLimit(1000, 994, 1799), now + jump + timedelta(seconds=1))
    budget_row = RateBudget.objects.get()
    assert (budget_row.own_requests, budget_row.remaining) == (6, 994)
    assert budget_row.resets_at == now + jump + timedelta(seconds=1800)
    assert budget_store.load(now + jump).other_requests == 0


@BOTH_DIRECTIONS
def test_session_survives(client: Client, viewer: User, jump: timedelta) -> None:
    client.force_login(viewer)
    assert client.get("/").status_code == 200
    with time_machine.travel(timezone.now() + jump):
        assert client.get("/").status_code == 200
    assert client.get("/").status_code == 200


def test_reads_are_neither_stuck_nor_a_storm_after_the_clock_was_set_forward(world: World) -> None:
    clock = [timedelta()]
    worker = SyncWorker(
        world.live.connection,
        renewal_interval=0,
        sync_clock=lambda: db_threads.set_clock_offset(clock[-1]),
    )

    async def work() -> None:
        for _ in range(20):
            await worker.tick()
            await worker.wait_idle()

    world.sync()
    first_reads = len(world.sandbox.requests)
    world.sandbox.requests.clear()
    clock.append(HOUR)
    world.live.run(work)
    assert len(world.sandbox.requests) <= 2 * first_reads
    latest = Stage.objects.filter(has_flow=True).latest("next_sync_at").next_sync_at
    assert latest < db_threads.now() + HOUR / 2
