"""Aborts that may not have arrived: resent automatically, within limits, with a message."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User

from dashboard.aborts import bulk_send, resend_policy
from dashboard.aborts import reconcile as abort_reconcile
from dashboard.aborts import resend as abort_resend
from dashboard.aborts import send as abort_send
from dashboard.aborts import settle as abort_settle
from dashboard.aborts.abort_rules import can_abort_again
from dashboard.aborts.bulk_request import request_bulk_abort
from dashboard.aborts.reconcile import cancel_tasks, reconcile_in_background, reconcile_open_aborts
from dashboard.aborts.request import SEND_LEASE, AbortRequest, request_abort
from dashboard.aborts.send import send_abort, wait_for_response
from dashboard.accounts.permissions import Permission
from dashboard.db import threads as db_threads
from dashboard.db.threads import now
from dashboard.models import Abort, RateBudget, Run
from dashboard.models.abort_lifecycle import EventType
from dashboard.northflank import NorthflankClient
from dashboard.sandbox import parse_fault
from dashboard.web.components.runs import run_row
from tests.support import factories
from tests.support.abort_answers import claim_due_resends
from tests.support.live import Live
from tests.support.live_runs import (
    abort_message,
    advance_time,
    append_only_disabled,
    backdate_abort,
    create_run_in_flight,
    notice_text,
    read,
    reconcile,
    replace_client,
    restart_resend_delay,
    submit_abort,
)


def run_with_unknown_abort(live: Live, manager: User, fault: str = "503*1@/abort") -> Run:
    """A run whose abort was sent once, and may not have arrived."""
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault(fault)]
    submit_abort(live.sign_in("manager"), run)
    assert Abort.objects.get().state == "unknown"
    return run


def backdate_leases(seconds: float = 20) -> None:
    """Backdate the leases of unknown aborts by `seconds`; none of them is settled by that."""
    for abort in Abort.objects.open().filter(state="unknown"):
        backdate_abort(abort, claimed_at=seconds)


def send_numbers() -> list[str]:
    return [str(number or 1) for number in event_details(EventType.SENT)]


def event_details(event_type: EventType) -> list[str]:
    events = Abort.objects.latest("pk").events.filter(event_type=event_type)
    return list(events.values_list("detail", flat=True))


@pytest.mark.parametrize("fault", ["503*1@/abort", "reset*1@/abort", "502-html*1@/abort"])
def test_abort_that_did_not_arrive_is_resent(live: Live, manager: User, fault: str) -> None:
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault(fault), parse_fault("503@GET")]
    submit_abort(live.sign_in("manager"), run)
    live.sandbox.faults = []
    backdate_leases()
    read(live, run)  # Northflank answers again
    abort = Abort.objects.get()
    assert (abort.state, abort.send_count) == ("accepted", 2)
    assert send_numbers() == ["1", "2"]
    assert live.sandbox.abort_request_counts[run.run_id] == 2
    assert Run.objects.get().status == "aborting"


def test_unknown_abort_is_not_resent_immediately(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    restart_resend_delay(Abort.objects.get())
    reconcile(live)
    assert live.sandbox.abort_request_counts[run.run_id] == 1


@pytest.mark.parametrize(("number", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (9, 8)])
def test_resend_delay_doubles_up_to_maximum(number: int, seconds: int) -> None:
    assert resend_policy.delay(number) == timedelta(seconds=seconds)


def test_unknown_abort_of_aborting_run_is_not_resent(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault("reset-after*1@/abort"), parse_fault("503*3@GET")]
    submit_abort(live.sign_in("manager"), run)
    live.sandbox.faults = []
    backdate_leases()
    reconcile(live)
    assert Abort.objects.get().state == "accepted"
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def fail_resends(live: Live, run: Run, times: int) -> None:
    """Reconcile an abort that never arrives, `times` times."""
    live.sandbox.faults = [parse_fault("503@/abort")]
    for _ in range(times):
        backdate_leases()
        reconcile(live)


@pytest.mark.slow
def test_abort_that_never_arrives_is_sent_five_times_then_critical(
    live: Live, manager: User
) -> None:
    run = run_with_unknown_abort(live, manager)
    fail_resends(live, run, 7)
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at, abort.send_count) == ("unknown", None, 5)
    assert send_numbers() == ["1", "2", "3", "4", "5"]
    assert live.sandbox.abort_request_counts[run.run_id] == 5
    backdate_abort(abort, sent_at=25)
    row = read(live, run)
    abort.refresh_from_db()
    assert abort.settled_at is not None
    assert event_details(EventType.NOT_ARRIVED) == ["Already sent 5 times."]
    assert abort_message() == (
        "Northflank never confirmed this abort; the run goes on. You can abort again."
    )
    assert row.abort_severity == 2
    reconcile(live)
    assert Run.objects.get().abort_severity == 2  # until somebody handles it


def backdate_first_send(seconds: float) -> None:
    """Backdate the first send of the open abort by `seconds`."""
    abort = Abort.objects.get()
    interval = timedelta(seconds=seconds)
    with append_only_disabled():
        for event in abort.events.all():
            type(event).objects.filter(pk=event.pk).update(occurred_at=event.occurred_at - interval)
    backdate_abort(abort, requested_at=seconds, sent_at=seconds, claimed_at=seconds)


@pytest.mark.parametrize(("seconds", "is_resent"), [(100, True), (121, False)])
def test_unknown_abort_is_resent_only_within_two_minutes(
    live: Live, manager: User, seconds: float, is_resent: bool
) -> None:
    run = run_with_unknown_abort(live, manager)
    backdate_first_send(seconds)
    read(live, run)
    assert live.sandbox.abort_request_counts[run.run_id] == (2 if is_resent else 1)
    if not is_resent:
        assert event_details(EventType.NOT_ARRIVED) == ["The time limit for resending has passed."]


def test_unknown_abort_of_unread_run_is_critical_after_two_minutes(
    live: Live, manager: User
) -> None:
    run = run_with_unknown_abort(live, manager)
    live.sandbox.faults = [parse_fault("503")]
    Run.objects.update(synced_at=now() - timedelta(seconds=200))
    backdate_first_send(125)
    reconcile(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert Run.objects.get().abort_severity == 2
    assert abort_message().endswith("It may not be resent any more. You can abort again.")
    assert can_abort_again(abort, now())
    live.sandbox.faults = []
    result = request_abort(
        Run.objects.with_stage().get(), AbortRequest(manager), again_of_pk=abort.pk
    )
    assert result.is_new
    live.run(lambda: wait_for_response(result))
    assert Abort.objects.get(pk=result.abort.pk).state == "accepted"
    assert live.sandbox.abort_request_counts[run.run_id] == 2


def test_unconfirmed_abort_of_a_run_aborted_again_in_vain_may_have_aborted_its_run(
    live: Live, manager: User
) -> None:
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault("reset-after*1@/abort"), parse_fault("503@GET")]
    submit_abort(live.sign_in("manager"), run)
    first = Abort.objects.get()
    assert first.state == "unknown"
    Run.objects.update(synced_at=now() - timedelta(seconds=200))
    backdate_first_send(125)
    reconcile(live)
    live.sandbox.faults = [parse_fault("rate-limited@/abort"), parse_fault("503@GET")]
    request = AbortRequest(manager)
    row = Run.objects.with_stage().get()
    second = request_abort(row, request, again_of_pk=first.pk).abort
    live.run(lambda: send_abort(live.connection, second.pk))
    live.sandbox.faults = []
    live.sandbox.rate_limit_window.request_count = 0
    assert read(live, run).status == "aborting"
    first, second = Abort.objects.order_by("pk")
    assert (first.state, second.state) == ("aborted_again", "not_sent")
    assert re.fullmatch(
        r"Not ended 2 min \d+ s after this abort; it was aborted again\.", abort_message(first)
    )
    page = live.sign_in("manager").get(factories.address(run)).text
    # In the header, in the row, and in the incident summary.
    assert page.count("; the latest abort from this dashboard was not accepted.") == 3
    assert "requested outside" not in page
    advance_time(live, 10)
    assert read(live, run).status == "aborted"
    assert list(Abort.objects.all().accepted_or_aborted()) == [first]


# --- Permissions --------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", [{"READ_ONLY": True}, {"ABORTS_ENABLED": False}])
def test_resend_is_skipped_when_aborting_is_disabled(
    live: Live, manager: User, settings: Any, switch: dict[str, bool]
) -> None:
    run = run_with_unknown_abort(live, manager)
    for name, value in switch.items():
        setattr(settings, name, value)
    assert_not_resent(live, run)


def test_resend_is_skipped_when_permission_is_revoked(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    manager.groups.clear()
    assert_not_resent(live, run)


def test_resend_is_skipped_when_account_is_inactive(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    User.objects.update(is_active=False)
    assert_not_resent(live, run)
    assert event_details(EventType.NOT_ARRIVED) == ["The requesting account is inactive."]


def assert_not_resent(live: Live, run: Run) -> None:
    backdate_leases()
    reconcile(live)
    assert live.sandbox.abort_request_counts[run.run_id] == 1
    backdate_abort(Abort.objects.get(), sent_at=25)
    read(live, run)
    abort = Abort.objects.get()
    assert (abort.state, abort.send_count) == ("unknown", 1)
    assert abort.settled_at is not None
    assert len(event_details(EventType.NOT_ARRIVED)) == 1


# --- Rate budget --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "send_count"),
    [(26, 2), (25, 1)],  # of a reserve of 100 the last quarter is for single aborts
)
def test_bulk_abort_is_resent_only_above_its_share_of_reserve(
    live: Live, manager: User, remaining: int, send_count: int
) -> None:
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault("503*1@/abort")]
    batch = request_bulk_abort([run.pk], AbortRequest(manager, "Stuck"), uuid4())
    live.run(lambda: bulk_send.process_bulk_abort(live.connection, batch.pk))
    assert Abort.objects.get().state == "unknown"
    RateBudget.objects.update(remaining=remaining, limit=1000)
    backdate_leases()
    reconcile(live)
    assert live.sandbox.abort_request_counts[run.run_id] == send_count


def test_single_abort_is_resent_at_any_remaining_budget(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    RateBudget.objects.update(remaining=2, limit=1000)
    backdate_leases()
    reconcile(live)
    assert live.sandbox.abort_request_counts[run.run_id] == 2


def test_abort_is_not_resent_while_rate_limited(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    RateBudget.objects.update(backoff_until=now() + timedelta(seconds=30))
    backdate_leases()
    reconcile(live)
    assert live.sandbox.abort_request_counts[run.run_id] == 1


# --- Answers to a resend ------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["rate-limited@/abort", "503@/abort"])
def test_maybe_sent_abort_stays_unknown_after_failed_resend(
    live: Live, manager: User, fault: str
) -> None:
    run_with_unknown_abort(live, manager)
    live.sandbox.faults = [parse_fault(fault)]
    backdate_leases()
    reconcile(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at, abort.send_count) == ("unknown", None, 2)


def test_resend_with_refused_connection_leaves_abort_unknown(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    backdate_leases()
    claimed = claim_due_resends(now())[0]
    replace_client(live, NorthflankClient("sandbox", base_url="http://127.0.0.1:9"))
    live.run(lambda: abort_send.attempt_send(live.connection, claimed))
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at, abort.send_count) == ("unknown", None, 2)
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def abort_externally(live: Live, status: str, *, concluded: bool) -> Callable[[], None]:
    """Return a function that aborts the run upstream, between its read and the next send."""

    def change() -> None:
        run = Run.objects.get()
        flow = live.sandbox.world.find_flow("payments", "ledger", "Staging")
        assert flow is not None
        live.sandbox.world.abort_run(
            flow, run.run_id, live.sandbox.clock(), seconds=0 if concluded else 4
        )

    return change


@pytest.mark.parametrize(
    ("at_once", "state", "outcome"), [(False, "accepted", ""), (True, "concluded", "aborted")]
)
def test_refused_resend_for_aborting_or_aborted_run_counts_as_success(
    live: Live, manager: User, at_once: bool, state: str, outcome: str
) -> None:
    run = run_with_unknown_abort(live, manager)
    backdate_leases()
    claimed = claim_due_resends(now())[0]
    abort_externally(live, "", concluded=at_once)()
    live.sandbox.faults = [parse_fault("error-string:409@/abort")]
    live.run(lambda: abort_send.attempt_send(live.connection, claimed))
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome, abort.response_status) == (state, outcome, 409)
    assert live.sandbox.abort_request_counts[run.run_id] == 2


# --- Concurrent requests and processes ----------------------------------------------------------


def test_abort_request_during_resends_shows_state_and_resends_at_once(
    live: Live, manager: User
) -> None:
    run = run_with_unknown_abort(live, manager)
    row = Run.objects.with_stage().get()
    assert run_row.build_row(row, Permission(True), Abort.objects.get()).is_abortable
    message = notice_text(submit_abort(live.sign_in("manager"), run))
    assert message.endswith(" (1 of 5 sent); you need not do anything.")
    assert live.sandbox.abort_request_counts[run.run_id] == 1
    reconcile(live)  # without a delay
    assert live.sandbox.abort_request_counts[run.run_id] == 2
    assert Abort.objects.count() == 1


def test_abort_request_during_resend_keeps_its_lease(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    backdate_leases()
    claimed = claim_due_resends(now())[0]
    request_abort(Run.objects.with_stage().get(), AbortRequest(manager))
    assert claim_due_resends(now()) == []
    live.run(lambda: abort_resend.resend_abort(live.connection, claimed))
    assert live.sandbox.abort_request_counts[run.run_id] == 2


def test_concurrent_workers_resend_once(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    backdate_leases()

    async def reconcile_concurrently() -> None:
        tasks = (reconcile_open_aborts(live.connection) for _ in range(4))
        await asyncio.gather(*tasks)

    live.run(reconcile_concurrently)
    assert live.sandbox.abort_request_counts[run.run_id] == 2
    assert send_numbers() == ["1", "2"]


def test_resend_after_expired_lease_is_sent_by_one_worker(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    backdate_leases()
    first = claim_due_resends(now())[0]
    backdate_leases(60)  # longer than a lease
    second = claim_due_resends(now())[0]
    for claimed in (second, first):
        live.run(lambda claimed=claimed: abort_resend.resend_abort(live.connection, claimed))
    assert live.sandbox.abort_request_counts[run.run_id] == 2
    assert send_numbers() == ["1", "2"]


def test_resend_with_expired_lease_sends_nothing(live: Live, manager: User) -> None:
    run = run_with_unknown_abort(live, manager)
    backdate_leases()
    claimed = claim_due_resends(now())[0]
    db_threads.set_clock_offset(timedelta(seconds=30))
    try:
        live.run(lambda: abort_resend.resend_abort(live.connection, claimed))
    finally:
        db_threads.set_clock_offset(timedelta())
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_first_send_with_expired_lease_sends_nothing(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    result = request_abort(run, AbortRequest(manager))
    db_threads.set_clock_offset(SEND_LEASE)
    try:
        live.run(lambda: send_abort(live.connection, result.abort.pk))
    finally:
        db_threads.set_clock_offset(timedelta())
    assert Abort.objects.get().state == "requested"
    assert live.sandbox.abort_request_counts[run.run_id] == 0


def test_send_with_no_time_left_sends_nothing(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    unsent_abort = request_abort(run, AbortRequest(manager)).abort
    no_time_left = -1.0
    live.run(
        lambda: abort_send.attempt_send(live.connection, unsent_abort, time_limit=no_time_left)
    )
    abort = Abort.objects.get()
    assert (abort.state, abort.send_count) == ("unknown", 1)  # and it is resent
    assert live.sandbox.abort_request_counts[run.run_id] == 0


# --- Prompt responses ---------------------------------------------------------------------------


def test_slow_run_read_does_not_delay_other_resends(live: Live, manager: User) -> None:
    slow, fast = create_run_in_flight(live), create_run_in_flight(live)
    live.sandbox.faults = [parse_fault("503*2@/abort")]
    for run in (slow, fast):
        submit_abort(live.sign_in("manager"), run)
    live.sandbox.faults = [parse_fault(f"latency:8@{slow.run_id}")]
    backdate_leases()

    async def reconcile_twice() -> None:
        unknown_aborts = Abort.objects.open().filter(state="unknown", run=fast)
        await db_threads.run_in_db_thread(
            unknown_aborts.update, claimed_at=now()
        )  # its delay is not over
        await reconcile_in_background(live.connection, 0.2)
        long_before = now() - timedelta(seconds=20)
        await db_threads.run_in_db_thread(unknown_aborts.update, claimed_at=long_before)
        await reconcile_in_background(live.connection, 5)
        await cancel_tasks()

    live.run(reconcile_twice)
    assert live.sandbox.abort_request_counts == {slow.run_id: 1, fast.run_id: 2}
    assert abort_reconcile.running_tasks == set()


def test_result_of_earlier_send_does_not_change_later_one(live: Live, manager: User) -> None:
    run_with_unknown_abort(live, manager)
    earlier = Abort.objects.get()
    Abort.objects.update(state="requested", send_count=2)
    abort_settle.mark_unknown(earlier, "Too late.")
    assert Abort.objects.get().state == "requested"
