"""Bulk aborts: runs are aborted one after another, in time, and never twice."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from dashboard.aborts import bulk_send
from dashboard.aborts.bulk_send import start_bulk_abort
from dashboard.aborts.reconcile import cancel_tasks, release_all_leases
from dashboard.models import Abort, BulkAbort, Run
from dashboard.northflank import NorthflankClient
from dashboard.sandbox import parse_fault
from tests.support import live as live_module
from tests.support.bulk_aborts import request_bulk, sent_run_ids
from tests.support.live import Live
from tests.support.live_runs import (
    abort_message,
    create_run_in_flight,
    reconcile,
    replace_client,
    submit_abort,
    wait_until,
)


def process(live: Live, batch: BulkAbort, *, is_delayed: bool = False) -> list[str]:
    """Process a bulk abort and return its results."""
    live.run(lambda: bulk_send.process_bulk_abort(live.connection, batch.pk, is_delayed=is_delayed))
    return results(batch)


def results(batch: BulkAbort) -> list[str]:
    return list(batch.items.values_list("result", flat=True))


def is_settled(batch: BulkAbort) -> bool:
    return BulkAbort.objects.filter(pk=batch.pk, settled_at__isnull=False).exists()


class _CountingTransport(httpx.AsyncBaseTransport):
    """Forwards requests, and counts how many aborts are under way at once."""

    def __init__(self) -> None:
        self.transport = httpx.AsyncHTTPTransport()
        self.active = self.max_active = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return await self.transport.handle_async_request(request)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        try:
            return await self.transport.handle_async_request(request)
        finally:
            self.active -= 1

    async def aclose(self) -> None:
        await self.transport.aclose()


@pytest.fixture
def counting_transport(live: Live) -> _CountingTransport:
    transport = _CountingTransport()
    token = live.sandbox.options.token
    replace_client(live, NorthflankClient(token, base_url=live.upstream_url, transport=transport))
    return transport


# --- Processing ---------------------------------------------------------------------------------


def test_bulk_abort_sends_aborts_in_order(live: Live, runs: list[Run], manager: User) -> None:
    runs.reverse()
    batch = request_bulk(runs, manager)
    assert process(live, batch) == ["abort"] * 5
    assert sent_run_ids(live) == [run.run_id for run in runs]
    assert is_settled(batch)


def test_bulk_abort_in_two_processes_sends_each_abort_once_one_at_a_time(
    live: Live, runs: list[Run], manager: User, counting_transport: _CountingTransport
) -> None:
    live.sandbox.faults = [parse_fault("latency:0.1@/abort")]
    batch = request_bulk(runs, manager)

    async def process_twice() -> None:
        await asyncio.gather(
            *(bulk_send.process_bulk_abort(live.connection, batch.pk) for _ in range(2))
        )

    live.run(process_twice)
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}
    assert counting_transport.max_active == 1
    assert Abort.objects.count() == 5


# --- The budget ---------------------------------------------------------------------------------


@pytest.fixture
def low_budget(transactional_db: None, settings: Settings) -> Iterator[Live]:
    """Forty requests in an hour, twenty of them the reserve: lists stop at the last five."""
    settings.NORTHFLANK_REQUEST_RESERVE = "20"
    with live_module.run_live(live_module.options(rate_limit=40)) as running:
        yield running


def spend(live: Live, remaining: int) -> None:
    """Send requests until `remaining` are left."""

    async def call() -> None:
        for _ in range(40 - remaining - len(live.sandbox.requests)):
            await live.connection.call(lambda nf: nf.get_auth())

    live.run(call)


def test_bulk_abort_leaves_last_quarter_of_reserve_for_single_aborts(
    low_budget: Live, manager: User
) -> None:
    runs = [create_run_in_flight(low_budget) for _ in range(6)]
    spend(low_budget, 8)
    batch = request_bulk(runs, manager)
    assert process(low_budget, batch) == ["abort"] * 6
    assert len(sent_run_ids(low_budget)) == 3
    states = list(Abort.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["accepted"] * 3 + ["not_sent"] * 3
    last = reload_in_flight(low_budget, runs[-1])
    assert submit_abort(low_budget.sign_in("manager"), last).status_code == 200
    assert low_budget.sandbox.abort_request_counts[last.run_id] == 1


def reload_in_flight(live: Live, run: Run) -> Run:
    assert run.in_flight
    return Run.objects.with_stage().get(pk=run.pk)


def test_bulk_abort_without_budget_refers_to_single_aborts(low_budget: Live, manager: User) -> None:
    runs = [create_run_in_flight(low_budget) for _ in range(2)]
    spend(low_budget, 5)
    process(low_budget, request_bulk(runs, manager))
    for abort in Abort.objects.all():
        assert abort.retry_at is None  # a single abort need not wait
        assert abort_message(abort) == (
            "Not sent: Northflank’s rate limit is used up, or reserved for single aborts. "
            "Abort this run by itself."
        )
        assert abort.settled_at is not None
    assert sent_run_ids(low_budget) == []


# --- The process dies ---------------------------------------------------------------------------


def start(live: Live, batch: BulkAbort) -> None:
    live.run(lambda: start_bulk_abort(batch.pk))


def test_bulk_abort_continues_in_background_after_request(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    start(live, batch)
    wait_until(lambda: is_settled(batch))
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}


def test_bulk_abort_interrupted_while_sending_is_resumed_after_lease_expires(
    live: Live, runs: list[Run], manager: User
) -> None:
    batch = request_bulk(runs, manager)
    first, second, *_ = batch.items.values_list("run__run_id", flat=True)
    live.sandbox.faults = [parse_fault(f"reset-after:5@{second}/abort")]
    start(live, batch)
    wait_until(lambda: live.sandbox.abort_request_counts[second])
    live.run(cancel_tasks)
    assert results(batch) == ["abort", "abort", "waiting", "waiting", "waiting"]
    reconcile(live)
    assert sent_run_ids(live) == [first, second]  # its lease is still valid
    release_all_leases()
    reconcile(live)
    wait_until(lambda: is_settled(batch))
    assert results(batch) == ["abort"] * 5
    assert live.sandbox.abort_request_counts == {run.run_id: 1 for run in runs}
