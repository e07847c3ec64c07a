"""How an abort is settled after it was sent more than once, and answers that are stored already."""

from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import F
from structlog.testing import capture_logs

from dashboard.aborts import reconcile, resend, resend_policy, settle
from dashboard.aborts.request import SEND_LEASE, AbortRequest, request_abort
from dashboard.db import threads as db_threads
from dashboard.models import Abort, ChangeCounter, Run
from dashboard.models.abort_lifecycle import AbortState, EventType
from dashboard.models.severity import Severity
from dashboard.northflank import AccessDenied, RequestRejected
from tests.support import factories
from tests.support.abort_answers import (
    FakeNorthflank,
    change_after_read_of,
    claim_due_resends,
    error_response,
    log_line,
    stored_fields,
    timeline,
)
from tests.support.world import T0


@pytest.fixture
def sent_twice(abort: Abort) -> Abort:
    """An abort that was sent a second time."""
    Abort.objects.update(send_count=2, sent_at=abort.requested_at + timedelta(seconds=10))
    return Abort.objects.select_related("run").get()


@pytest.mark.parametrize("status", ["aborted", "success", ""])
def test_refused_resend_of_ended_run_is_concluded_with_its_end(
    sent_twice: Abort, status: str
) -> None:
    run = Run(status=status, concluded=True) if status else None
    settle.record_refused(sent_twice, run, RequestRejected("No.", http_status=409))
    stored = Abort.objects.get()
    assert (stored.state, stored.outcome, stored.response_status) == ("concluded", status, 409)
    assert timeline(stored) == [("concluded", status)]


def test_refused_abort_of_aborting_run_is_accepted_with_the_answer(sent_twice: Abort) -> None:
    error = RequestRejected("Already aborting.", http_status=409, error_id="err-42")
    settle.record_refused(sent_twice, Run(status="aborting"), error)
    fields = stored_fields(sent_twice)
    assert fields.pop("sent_at") == "then"
    assert fields == {
        "state": "accepted", "responded_at": "then", "response": "Already aborting.",
        "response_status": 409, "error_id": "err-42",
    }  # fmt: skip
    assert timeline(sent_twice) == [("aborting", "")]


@pytest.mark.parametrize(("send_count", "state"), [(1, "refused"), (2, "accepted")])
def test_denied_abort_of_aborting_run_is_accepted_only_if_an_earlier_send_may_have_arrived(
    sent_twice: Abort, send_count: int, state: str
) -> None:
    Abort.objects.update(send_count=send_count)
    sent_twice.send_count = send_count
    error = AccessDenied("Not permitted.", http_status=403)
    settle.record_refused(sent_twice, Run(status="aborting"), error)
    assert Abort.objects.get().state == state


@pytest.fixture
def refused_resend(sent_twice: Abort) -> Abort:
    """An abort that may not have arrived, and whose resend Northflank refused."""
    error = RequestRejected("No.", http_status=409, error_id="err-42")
    settle.record_refused(sent_twice, Run(status="running"), error)
    return Abort.objects.select_related("run").get()


def test_refused_resend_leaves_the_abort_open_and_is_the_last(refused_resend: Abort) -> None:
    fields = stored_fields(refused_resend)
    assert fields.pop("sent_at") == "then"
    assert fields == {
        "state": "unknown", "responded_at": "then", "response": "No.", "response_status": 409,
        "error_id": "err-42",
    }  # fmt: skip
    assert timeline(refused_resend) == [("unknown", "No.")]
    assert claim_due_resends(db_threads.now() + timedelta(seconds=30)) == []
    assert settle.no_resend_reason(refused_resend, db_threads.now()) == "No."


def test_refusal_of_a_resend_stored_twice_is_one_event(sent_twice: Abort) -> None:
    Abort.objects.update(sent_at=F("requested_at"))
    with capture_logs() as logs:
        for _ in range(2):  # as the reply to the commit was lost
            again = Abort.objects.select_related("run").get()
            error = RequestRejected("No.", http_status=409)
            settle.record_refused(again, Run(status="running"), error)
    assert timeline(sent_twice) == [("unknown", "No.")]
    assert logs == [log_line("unknown", "warning", by="manager", why="No.")]


@pytest.mark.parametrize(("seconds", "state"), [(20, "unknown"), (20.001, "refused")])
def test_abort_with_a_refused_resend_is_refused_once_its_run_goes_on(
    refused_resend: Abort, seconds: float, state: str
) -> None:
    assert refused_resend.sent_at is not None
    Run.objects.update(synced_at=refused_resend.sent_at + timedelta(seconds=seconds))
    before = ChangeCounter.latest()
    with capture_logs() as logs:
        settle.settle_resolved_aborts(db_threads.now())
    stored, is_settled = Abort.objects.get(), state == "refused"
    assert (stored.state, stored.settled_at is not None) == (state, is_settled)
    assert (stored.response, stored.response_status) == ("No.", 409)
    assert timeline(stored)[1:] == ([("refused", "No.")] if is_settled else [])
    assert Run.objects.get().abort_severity == 0
    assert ChangeCounter.latest() == before + is_settled
    expected = {"state": "refused", "by": "manager", "response": "No."}
    assert logs == ([log_line("settled", "warning", **expected)] if is_settled else [])


def test_abort_sent_again_meanwhile_is_not_settled_by_the_refusal_before(
    refused_resend: Abort,
) -> None:
    assert refused_resend.sent_at is not None
    Run.objects.update(synced_at=refused_resend.sent_at + timedelta(seconds=21))

    def send_again() -> None:
        Abort.objects.update(send_count=3)

    with connection.execute_wrapper(change_after_read_of("dashboard_abort", send_again)):
        settle.settle_resolved_aborts(db_threads.now())
    assert Abort.objects.get().state == "unknown"


@pytest.mark.parametrize(
    ("status", "in_flight", "state"),
    [("aborting", True, "accepted"), ("aborted", False, "concluded")],
)
def test_abort_with_a_refused_resend_follows_the_status_of_its_run(
    refused_resend: Abort, status: str, in_flight: bool, state: str
) -> None:
    Run.objects.update(status=status, in_flight=in_flight, concluded=not in_flight)
    settle.settle_resolved_aborts(db_threads.now())
    assert Abort.objects.get().state == state


@pytest.mark.parametrize("status", ["aborting", "running"])
def test_answer_to_an_earlier_send_does_not_settle_the_abort(
    sent_twice: Abort, status: str
) -> None:
    sent_twice.send_count = 1  # as the process that sent it first has it
    settle.record_refused(sent_twice, Run(status=status), RequestRejected("No.", http_status=409))
    assert Abort.objects.get().state == "requested"


@pytest.mark.parametrize(
    ("seconds", "is_answered"), [(-1, False), (0, True), (1, True)], ids=["before", "at", "after"]
)
def test_answer_to_an_earlier_send_is_not_the_latest(
    sent_twice: Abort, seconds: float, is_answered: bool
) -> None:
    assert sent_twice.sent_at is not None
    at = sent_twice.sent_at + timedelta(seconds=seconds)
    other = factories.abort(factories.run(factories.stage(), "other"), sent_twice.user)
    Abort.objects.filter(pk=other.pk).update(state=AbortState.ACCEPTED, responded_at=at)
    assert not settle.has_response(sent_twice)
    Abort.objects.filter(pk=sent_twice.pk).update(state=AbortState.UNKNOWN, responded_at=at)
    assert settle.has_response(sent_twice) == is_answered


@pytest.mark.parametrize("event_type", [EventType.NOT_SENT, EventType.LATE_RESPONSE])
@pytest.mark.parametrize(("seconds", "is_answered"), [(-1, False), (0, True)])
def test_event_of_an_earlier_send_is_no_answer_to_the_latest(
    sent_twice: Abort, event_type: EventType, seconds: float, is_answered: bool
) -> None:
    assert sent_twice.sent_at is not None
    at = sent_twice.sent_at + timedelta(seconds=seconds)
    sent_twice.events.create(event_type=event_type, occurred_at=at)
    sent_twice.events.create(event_type=EventType.SENT, occurred_at=at + timedelta(seconds=5))
    assert settle.has_response(sent_twice) == is_answered


def test_resends_are_postponed_while_their_runs_can_not_be_read(sent_twice: Abort) -> None:
    other = factories.abort(factories.run(factories.stage(), "other"), sent_twice.user)
    long_ago = sent_twice.claimed_at - timedelta(minutes=1)
    Abort.objects.filter(pk=other.pk).update(
        send_count=2, sent_at=sent_twice.sent_at, claimed_at=long_ago, state=AbortState.UNKNOWN
    )
    Abort.objects.filter(pk=sent_twice.pk).update(state=AbortState.UNKNOWN, claimed_at=long_ago)
    northflank = FakeNorthflank(reading=error_response(403))
    before = db_threads.now()
    logs = northflank.reconcile()
    assert northflank.methods == ["GET", "GET"]
    expected = log_line("run_read_failed", "info", cause="forbidden")
    assert sorted(logs, key=str) == sorted([expected, expected | {"run": "other"}], key=str)
    for stored in Abort.objects.all():
        assert (stored.state, stored.send_count) == ("unknown", 2)
        # As if it had just been tried: a lease would end in the future.
        assert before <= stored.claimed_at <= db_threads.now()


def test_request_for_an_unconfirmed_abort_makes_only_that_one_due(
    sent_twice: Abort, manager: User
) -> None:
    other = factories.abort(factories.run(factories.stage(), "other"), manager)
    now = sent_twice.claimed_at
    Abort.objects.update(state=AbortState.UNKNOWN, claimed_at=now)
    run = Run.objects.with_stage().get(pk=sent_twice.run_id)
    request_abort(run, AbortRequest(manager, "Again"))
    assert Abort.objects.get(pk=sent_twice.pk).claimed_at < now
    assert Abort.objects.get(pk=other.pk).claimed_at == now


@pytest.mark.parametrize(
    ("send_count", "seconds", "is_exhausted"),
    [(4, 120, False), (5, 0, True), (1, 120.001, True)],
)
def test_resends_end_after_five_sends_or_two_minutes(
    send_count: int, seconds: float, is_exhausted: bool
) -> None:
    now = T0 + timedelta(seconds=seconds)
    assert resend_policy.is_exhausted(send_count, T0, now) == is_exhausted


@pytest.mark.parametrize("state", [AbortState.REQUESTED, AbortState.UNKNOWN])
@pytest.mark.parametrize("change", ["late", "inactive"])
def test_abort_that_another_process_has_sent_meanwhile_is_not_cancelled(
    abort: Abort, change: str, state: AbortState
) -> None:
    # As a process has it that paused before it sent the abort.
    unsent = Abort.objects.select_related("run__stage__pipeline__project").get()
    sent = {"sent_at": "then", "state": state}
    Abort.objects.update(state=state, send_count=1, sent_at=abort.requested_at + SEND_LEASE)
    if change == "inactive":
        User.objects.update(is_active=False)
    after = settle.SEND_DEADLINE + timedelta(seconds=1) if change == "late" else timedelta()
    with time_machine.travel(abort.requested_at + after, tick=False), capture_logs() as logs:
        assert settle.cancel_if_unwanted(unsent)
    assert stored_fields(abort) == sent
    assert (timeline(abort), logs) == ([], [])


@pytest.fixture
def two_unconfirmed(sent_twice: Abort) -> tuple[Abort, Abort]:
    """Two aborts that may not have arrived, claimed at the same time."""
    other = factories.abort(factories.run(factories.stage(), "other"), sent_twice.user)
    Abort.objects.update(state=AbortState.UNKNOWN, claimed_at=sent_twice.claimed_at)
    first, second = Abort.objects.select_related("run").filter(pk__in=[sent_twice.pk, other.pk])
    return first, second


def test_only_the_abort_whose_run_can_not_be_read_is_postponed(
    two_unconfirmed: tuple[Abort, Abort],
) -> None:
    abort, other = two_unconfirmed
    resend.postpone(abort)
    assert Abort.objects.get(pk=abort.pk).claimed_at > abort.claimed_at
    assert Abort.objects.get(pk=other.pk).claimed_at == other.claimed_at


def test_abort_that_another_process_claimed_is_not_postponed(
    two_unconfirmed: tuple[Abort, Abort],
) -> None:
    abort, _ = two_unconfirmed
    lease = abort.claimed_at + timedelta(hours=1)
    Abort.objects.filter(pk=abort.pk).update(claimed_at=lease)
    resend.postpone(abort)
    assert Abort.objects.get(pk=abort.pk).claimed_at == lease


@pytest.mark.parametrize(
    ("claimed_after", "is_due"),
    [
        (timedelta(seconds=-2), True),
        (timedelta(seconds=-1.999), False),
        (2 * SEND_LEASE, False),
        (2 * SEND_LEASE + timedelta(milliseconds=1), True),
    ],
    ids=["delay over", "delay not over", "claimed", "claimed by a clock that was set back"],
)
def test_abort_is_resent_after_its_delay_unless_claimed(
    sent_twice: Abort, claimed_after: timedelta, is_due: bool
) -> None:
    now = db_threads.now()
    Abort.objects.update(state=AbortState.UNKNOWN, claimed_at=now + claimed_after)
    assert claim_due_resends(now) == ([sent_twice] if is_due else [])


def test_abort_resent_meanwhile_is_not_given_up(sent_twice: Abort) -> None:
    Abort.objects.update(state=AbortState.UNKNOWN, send_count=F("send_count") + 1)
    before = ChangeCounter.latest()
    settle.mark_not_arrived(sent_twice, "Already sent.", db_threads.now())
    assert Abort.objects.get().settled_at is None
    assert ChangeCounter.latest() == before
    assert timeline(sent_twice) == []


def test_abort_that_has_not_arrived_counts_until_the_run_has_a_later_one(
    sent_twice: Abort, manager: User
) -> None:
    now = db_threads.now()
    not_arrived = {"state": AbortState.UNKNOWN, "settled_at": now}
    Abort.objects.update(**not_arrived)
    aborted_again = factories.run(factories.stage(), "aborted_again")
    factories.abort(aborted_again, manager, **not_arrived)
    critical = Run.objects.filter(abort_severity=Severity.CRITICAL).values_list("pk", flat=True)
    reconcile.update_severities(now)
    assert set(critical.all()) == {sent_twice.run_id, aborted_again.pk}
    factories.abort(aborted_again, manager)
    reconcile.update_severities(now)
    assert set(critical.all()) == {sent_twice.run_id}
