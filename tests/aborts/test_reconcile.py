"""Aborts of ended processes: sent if never sent, resent only after the run was read."""

from datetime import datetime

import httpx
import pytest
from django.contrib.auth.models import Group, User
from pytest_django import Settings

from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.aborts.send import send_abort
from dashboard.accounts import permissions
from dashboard.models import Abort, Run
from dashboard.northflank import NorthflankClient
from dashboard.sandbox import parse_fault
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    abort_message,
    ago,
    create_run_in_flight,
    mirror_run,
    read,
    reconcile,
    remove_run,
    replace_client,
    start_run,
)


def abort_with_expired_lease(run: Run, *, seconds: float = 50, sent: bool = False) -> Abort:
    """Create an abort as left by a process that died before, or while, sending it."""
    past: datetime = ago(seconds)
    permissions.ensure_default_group()
    user, _ = User.objects.get_or_create(username="manager")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return Abort.objects.create(
        run=run, user=user, username="manager", requested_at=past, claimed_at=past,
        sent_at=past if sent else None, send_count=1 if sent else 0,
    )  # fmt: skip


def test_worker_tick_adopts_abort_with_expired_lease(live: Live) -> None:
    run = create_run_in_flight(live)
    abort_with_expired_lease(run)
    live.run(live.worker.tick)
    live.run(live.worker.wait_idle)
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_unsent_abort_past_deadline_is_not_sent_during_outage(live: Live) -> None:
    run = create_run_in_flight(live)
    abort_with_expired_lease(run, seconds=301)
    live.sandbox.faults = [parse_fault("503")]
    reconcile(live)
    assert Abort.objects.get().state == "not_sent"
    assert "Sending timed out" in abort_message()


def test_adoption_is_postponed_during_outage(live: Live) -> None:
    run = create_run_in_flight(live)
    abort_with_expired_lease(run)
    live.sandbox.faults = [parse_fault("503*2")]
    reconcile(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.sent_at) == ("requested", None)
    Abort.objects.update(claimed_at=ago(50))
    reconcile(live)
    assert Abort.objects.get().state == "accepted"
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_slow_adoption_does_not_delay_others(live: Live) -> None:
    slow, fast = create_run_in_flight(live), create_run_in_flight(live)
    for run in (slow, fast):  # the older one waits
        abort_with_expired_lease(run)
    live.sandbox.faults = [parse_fault(f"latency:1@{slow.run_id}")]

    reconcile(live)
    sent = dict(Abort.objects.values_list("run__run_id", "sent_at"))
    assert sent[fast.run_id] < sent[slow.run_id]
    assert live.sandbox.abort_request_counts == {slow.run_id: 1, fast.run_id: 1}


def test_concurrent_workers_adopt_abort_once(live: Live) -> None:
    run = create_run_in_flight(live)
    abort_with_expired_lease(run)

    async def reconcile_concurrently() -> None:
        import asyncio

        await asyncio.gather(*(reconcile_open_aborts(live.connection) for _ in range(3)))

    live.run(reconcile_concurrently)
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_run_removed_before_answer_leaves_abort_outcome_unknown(live: Live) -> None:
    run = create_run_in_flight(live)
    abort_with_expired_lease(run, sent=True)
    remove_run(live, run.run_id)
    reconcile(live)
    read(live, run)
    assert Abort.objects.get().outcome == ""
    assert "Outcome unknown" in abort_message()


def answer_with_run(live: Live, other: str) -> None:
    """Answer each request with the run `other`, whichever was requested."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = {"id": other, "status": "success", "concluded": True}
        return httpx.Response(200, json={"data": body})

    replace_client(live, NorthflankClient("sandbox", transport=httpx.MockTransport(answer)))


def test_abort_answer_with_another_run_changes_neither_run(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    other = mirror_run(live, LEDGER, start_run(live, LEDGER))
    answer_with_run(live, other.run_id)
    result = request_abort(run, AbortRequest(manager))
    live.run(lambda: send_abort(live.connection, result.abort.pk))
    assert Abort.objects.get().state == "unknown"
    assert Run.objects.get(pk=run.pk).in_flight
    assert Run.objects.get(pk=other.pk).in_flight


@pytest.mark.parametrize("switch", [{"READ_ONLY": True}, {"ABORTS_ENABLED": False}])
def test_unsent_abort_is_not_sent_when_aborting_is_disabled(
    live: Live, settings: Settings, switch: dict[str, bool]
) -> None:
    run = create_run_in_flight(live)
    abort_with_expired_lease(run)
    for name, value in switch.items():
        setattr(settings, name, value)
    reconcile(live)
    assert Abort.objects.get().state == "not_sent"
    assert live.sandbox.abort_request_counts[run.run_id] == 0
