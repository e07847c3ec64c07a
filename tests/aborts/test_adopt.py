"""Aborts whose process has ended: another one adopts them, once."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection

from dashboard.aborts import bulk_send
from dashboard.aborts import reconcile as abort_reconcile
from dashboard.aborts.bulk_request import request_bulk_abort
from dashboard.aborts.reconcile import (
    cancel_tasks,
    reconcile_open_aborts,
    release_all_leases,
    release_lease,
)
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.db import threads as db_threads
from dashboard.models import Abort, BulkAbort, Run
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.bulk_aborts import Via
from dashboard.upstream.connection import Connection
from tests.support import factories
from tests.support.abort_answers import (
    FakeNorthflank,
    claim_first,
    error_response,
    log_line,
    run_response,
    timeline,
)
from tests.support.world import T0


def test_unsent_abort_with_expired_lease_is_adopted_and_sent(
    abort_with_expired_lease: Abort,
) -> None:
    northflank = FakeNorthflank()
    logs = northflank.reconcile()
    assert northflank.methods == ["GET", "POST"]
    assert timeline(abort_with_expired_lease) == [
        ("adopted", ""),
        ("sent", ""),
        ("accepted", "aborting"),
    ]
    assert logs[0] == log_line("adopted", "warning", by="manager")


def second_of(first: Abort, manager: User) -> Abort:
    """An unsent second abort, with the same lease."""
    now = db_threads.now()
    first.apply(EventType.NOT_ARRIVED, now)
    unsent = {"claimed_at": first.claimed_at, "sent_at": None, "responded_at": None}
    return factories.abort(first.run, manager, "requested", again_of=first, **unsent)


def first_of_aborting_run(first: Abort, _: User) -> Abort:
    Run.objects.update(status="aborting")
    return first


@pytest.mark.parametrize(
    ("prepare", "status"), [(second_of, "running"), (first_of_aborting_run, "aborting")]
)
def test_abort_whose_run_is_read_first_is_adopted_by_one_slow_read(
    abort_with_expired_lease: Abort,
    manager: User,
    prepare: Callable[[Abort, User], Abort],
    status: str,
) -> None:
    unsent = prepare(abort_with_expired_lease, manager)
    seconds_of_reads = 0

    def take_eight_seconds() -> None:
        nonlocal seconds_of_reads
        seconds_of_reads += 8  # twice as long would outlast the lease
        db_threads.set_clock_offset(timedelta(seconds=seconds_of_reads))

    northflank = FakeNorthflank(reading=run_response(status), during_read=take_eight_seconds)
    northflank.reconcile()
    assert northflank.methods == ["GET", "POST"]
    assert timeline(unsent) == [("adopted", ""), ("sent", ""), ("accepted", "aborting")]


def test_unsent_abort_with_failed_run_read_is_not_adopted(abort_with_expired_lease: Abort) -> None:
    northflank = FakeNorthflank(reading=error_response(403))
    before = db_threads.now()
    logs = northflank.reconcile()
    assert northflank.methods == ["GET"]
    assert timeline(abort_with_expired_lease) == []
    assert logs[1:] == [log_line("adoption_postponed", "info", cause="forbidden")]
    assert Abort.objects.get().claimed_at >= before  # no other worker adopts it meanwhile


@pytest.mark.parametrize(
    ("reading", "outcome"),
    [(run_response("success", concluded=True), "success"), (error_response(404), "")],
)
def test_unsent_abort_of_concluded_run_is_adopted_as_too_late(
    abort_with_expired_lease: Abort, reading: tuple[Any, ...], outcome: str
) -> None:
    northflank = FakeNorthflank(reading=reading)
    northflank.reconcile()
    assert northflank.methods == ["GET"]
    assert timeline(abort_with_expired_lease) == [("adopted", ""), ("too_late", outcome)]


def test_unsent_abort_after_permission_is_revoked_is_not_adopted(
    abort_with_expired_lease: Abort, manager: User
) -> None:
    manager.groups.clear()
    northflank = FakeNorthflank()
    northflank.reconcile()
    assert northflank.methods == []
    assert [event_type for event_type, _ in timeline(abort_with_expired_lease)] == ["not_sent"]


def test_sent_abort_with_expired_lease_is_adopted_as_unknown(
    abort_with_expired_lease: Abort,
) -> None:
    Abort.objects.update(sent_at=abort_with_expired_lease.requested_at)
    northflank = FakeNorthflank()
    northflank.reconcile()
    reason = "The sending process stopped before Northflank responded."
    assert northflank.methods == []  # the sync reads the run
    next_read = Run.objects.get().next_detail_sync_at
    assert next_read is not None
    assert next_read <= db_threads.now()
    assert timeline(abort_with_expired_lease) == [("adopted", ""), ("unknown", reason)]
    stored = Abort.objects.get()
    assert (stored.state, stored.response, stored.error_id) == ("unknown", reason, "")


def test_abort_with_valid_lease_is_not_adopted(abort: Abort) -> None:
    Abort.objects.update(claimed_at=abort.claimed_at - timedelta(seconds=10))
    northflank = FakeNorthflank()
    assert northflank.reconcile() == []
    assert northflank.methods == []


def test_handed_over_abort_is_adopted_immediately(abort: Abort) -> None:
    release_lease(abort)
    assert Abort.objects.get().claimed_at == abort.requested_at - timedelta(seconds=15)
    northflank = FakeNorthflank()
    northflank.reconcile()
    assert northflank.methods == ["GET", "POST"]


@pytest.mark.parametrize(
    "fields", [{"sent_at": T0}, {"state": "accepted"}, {"state": "refused", "settled_at": T0}]
)
def test_sent_or_settled_abort_is_not_handed_over(abort: Abort, fields: dict[str, Any]) -> None:
    Abort.objects.update(**fields)
    release_lease(abort)
    assert Abort.objects.get().claimed_at == abort.claimed_at


def test_hand_over_leaves_other_leases(abort: Abort, manager: User) -> None:
    other = request_abort(factories.run(abort.run.stage), AbortRequest(manager, "Stuck")).abort
    release_lease(abort)
    assert Abort.objects.get(pk=other.pk).claimed_at == other.claimed_at


def test_release_all_leases_expires_only_requested_aborts(abort: Abort, manager: User) -> None:
    accepted = factories.abort(factories.run(abort.run.stage), manager)
    settled = factories.abort(factories.run(abort.run.stage), manager, "requested", settled_at=T0)
    release_all_leases()
    claimed = dict(Abort.objects.values_list("pk", "claimed_at"))
    assert claimed == {
        abort.pk: abort.requested_at - timedelta(seconds=15),
        accepted.pk: accepted.claimed_at,
        settled.pk: settled.claimed_at,
    }


def test_abort_that_the_command_may_be_sending_keeps_its_lease(run: Run, manager: User) -> None:
    by_command = AbortRequest(manager, "Stuck", via=Via.COMMAND)
    abort = request_abort(run, by_command).abort
    release_all_leases()
    northflank = FakeNorthflank()
    northflank.reconcile()
    assert northflank.methods == []
    assert Abort.objects.get().claimed_at == abort.claimed_at


# --- Concurrent workers -------------------------------------------------------------------------


def test_abort_leased_by_another_worker_is_not_adopted(abort_with_expired_lease: Abort) -> None:
    at = db_threads.now()
    with connection.execute_wrapper(claim_first(lambda: Abort.objects.update(claimed_at=at))):
        assert abort_reconcile.claim_unanswered(db_threads.now()) == []
    assert Abort.objects.get().claimed_at == at


def test_abort_whose_lease_changed_meanwhile_is_not_claimed(
    abort_with_expired_lease: Abort,
) -> None:
    now = db_threads.now()
    claimed_at = abort_with_expired_lease.claimed_at - timedelta(seconds=1)

    def claim() -> None:  # by another clock, which is behind
        Abort.objects.update(claimed_at=claimed_at)

    with connection.execute_wrapper(claim_first(claim)):
        assert abort_reconcile.claim_unanswered(now) == []
    assert Abort.objects.get().claimed_at == claimed_at


def test_abort_that_is_answered_late_is_not_adopted(abort_with_expired_lease: Abort) -> None:
    def answer() -> None:
        late = Abort.objects.get()
        late.apply(EventType.ACCEPTED, db_threads.now())

    with connection.execute_wrapper(claim_first(answer)):
        assert abort_reconcile.claim_unanswered(db_threads.now()) == []
    assert timeline(abort_with_expired_lease) == [("accepted", "")]


# --- Bulk aborts of ended processes -------------------------------------------------------------


@pytest.fixture
def batch(run: Run, manager: User) -> BulkAbort:
    """A bulk abort whose lease has expired."""
    requested = request_bulk_abort([run.pk], AbortRequest(manager, "Stuck"), uuid4())
    release_all_leases()
    return requested


async def reconcile_until_done(connection: Connection) -> None:
    """Reconcile open aborts and bulk aborts, until all that were resumed have ended."""
    await reconcile_open_aborts(connection)
    await asyncio.gather(*bulk_send.running_tasks.values(), return_exceptions=True)
    await asyncio.sleep(0)


def test_bulk_abort_with_expired_lease_is_resumed(batch: BulkAbort) -> None:
    claimed = BulkAbort.objects.get().claimed_at
    assert claimed == batch.requested_at - timedelta(seconds=45)
    northflank = FakeNorthflank()
    logs = northflank.run_with_connection(reconcile_until_done)
    assert northflank.methods == ["POST"]
    assert logs[0] == {
        "event": "abort.bulk_adopted",
        "log_level": "warning",
        "bulk_abort": batch.pk,
    }
    assert BulkAbort.objects.get().settled_at is not None
    assert bulk_send.running_tasks == {}


def test_failing_bulk_abort_is_logged_and_stays_open(batch: BulkAbort) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    logs = FakeNorthflank(during_abort=fail).run_with_connection(reconcile_until_done)
    failed = [line for line in logs if line["event"] == "abort.bulk_failed"]
    assert [(line["log_level"], line["bulk_abort"]) for line in failed] == [("error", batch.pk)]
    assert isinstance(failed[0]["exc_info"], ZeroDivisionError)
    assert bulk_send.running_tasks == {}
    assert BulkAbort.objects.get().settled_at is None


def test_bulk_abort_skips_concluded_run_and_sends_rest_past_deadline(
    run: Run, manager: User
) -> None:
    ended_run = factories.run(run.stage)
    with time_machine.travel(T0, tick=False):  # far in the past
        batch = request_bulk_abort([ended_run.pk, run.pk], AbortRequest(manager, "Stuck"), uuid4())
    Run.objects.filter(pk=ended_run.pk).update(in_flight=False)
    northflank = FakeNorthflank()
    northflank.run_with_connection(
        lambda connection: bulk_send.process_bulk_abort(connection, batch.pk)
    )
    assert northflank.methods == ["POST"]
    assert list(batch.items.values_list("result", flat=True)) == ["ended", "abort"]


def test_released_bulk_abort_stops_immediately(batch: BulkAbort) -> None:
    async def start_and_release(connection: Connection) -> None:
        await bulk_send.adopt_bulk_aborts(connection)
        assert list(bulk_send.running_tasks) == [batch.pk]
        await cancel_tasks()
        assert bulk_send.running_tasks == {}

    northflank = FakeNorthflank()
    northflank.run_with_connection(start_and_release)
    assert northflank.methods == []


def test_settled_or_leased_bulk_abort_is_not_resumed(batch: BulkAbort) -> None:
    BulkAbort.objects.update(claimed_at=db_threads.now() - timedelta(seconds=40))
    assert FakeNorthflank().run_with_connection(reconcile_until_done) == []
    BulkAbort.objects.update(settled_at=db_threads.now())
    release_all_leases()
    assert BulkAbort.objects.get().claimed_at > batch.requested_at - timedelta(seconds=45)
    assert FakeNorthflank().run_with_connection(reconcile_until_done) == []
