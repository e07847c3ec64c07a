"""Records of an abort for every response: the abort, its timeline, and the log."""

import asyncio
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db.models import F
from structlog.testing import capture_logs

from dashboard.aborts import send as abort_send
from dashboard.aborts import settle as abort_settle
from dashboard.aborts import target
from dashboard.aborts.request import SEND_LEASE, AbortRequest, AbortResult, request_abort
from dashboard.aborts.send import send_abort, wait_for_response
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.severity import Severity
from dashboard.northflank import NorthflankError, RateLimited, RequestRejected, Unreachable
from dashboard.northflank.decoding import parse_run_detail
from dashboard.upstream.connection import Connection
from tests.support import factories
from tests.support.abort_answers import (
    ANSWERED,
    REFUSED_TEXT,
    SENT,
    SERVER_ERROR_TEXT,
    SETTLED,
    FakeNorthflank,
    error_response,
    log_line,
    place_fields,
    run_response,
    stored_fields,
    timeline,
)
from tests.support.databases import counting_statements
from tests.support.world import T0

SEND_DEADLINE = timedelta(minutes=5)  # an abort that was not sent by then is never sent


# --- Accepted -----------------------------------------------------------------------------------


def test_accepted_abort_stores_answer_and_timeline(abort: Abort) -> None:
    logs = FakeNorthflank().send(abort)
    expected = {"state": "accepted", "response": "aborting", "response_status": 200}
    assert stored_fields(abort) == ANSWERED | expected
    assert timeline(abort) == [("sent", ""), ("accepted", "aborting")]
    assert logs == [log_line("accepted", "info", by="manager", status="aborting")]
    run, stored = Run.objects.get(), Abort.objects.get()
    assert (run.status, run.next_detail_sync_at) == ("aborting", stored.responded_at)
    assert stored.claimed_at == stored.sent_at


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {"data": {}}), "Unexpected response from Northflank: required fields are missing."),
        (
            run_response("aborted", "r2", concluded=True),
            "Unexpected response from Northflank: it describes another run.",
        ),
    ],
)
def test_abort_answer_without_its_run_leaves_abort_unknown(
    abort: Abort, answer: tuple[Any, ...], reason: str
) -> None:
    logs = FakeNorthflank(abort=answer).send(abort)
    assert stored_fields(abort) == SENT | {"state": "unknown", "response": reason}
    assert timeline(abort) == [("sent", ""), ("unknown", reason)]
    assert logs == [log_line("unknown", "warning", by="manager", why=reason)]
    assert Run.objects.get().status == "running"


def test_accepted_abort_of_aborted_run_is_concluded(abort: Abort) -> None:
    FakeNorthflank(abort=run_response("aborted", concluded=True)).send(abort)
    expected = {"state": "concluded", "response": "aborted", "response_status": 200}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"outcome": "aborted"}
    assert timeline(abort) == [("sent", ""), ("accepted", "aborted"), ("concluded", "aborted")]


def test_accepted_abort_of_successful_run_is_too_late(abort: Abort) -> None:
    FakeNorthflank(abort=run_response("success", concluded=True)).send(abort)
    expected = {"state": "too_late", "response": "success", "response_status": 200}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"outcome": "success"}
    assert timeline(abort) == [("sent", ""), ("too_late", "success")]


def test_accepted_abort_of_run_that_list_read_concluded_is_concluded(abort: Abort) -> None:
    def end() -> None:
        Run.objects.update(status="aborted", concluded=True, in_flight=False)

    FakeNorthflank(abort=run_response("aborted", concluded=True), during_abort=end).send(abort)
    expected = {"state": "concluded", "response_status": 200, "outcome": "aborted"}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"response": "aborted"}
    assert timeline(abort) == [("sent", ""), ("accepted", "aborted"), ("concluded", "aborted")]


@pytest.mark.parametrize("is_settled", [False, True])
def test_accepted_answer_stored_twice_is_one_event(abort: Abort, is_settled: bool) -> None:
    during = (lambda: settle(abort)) if is_settled else (lambda: None)
    FakeNorthflank(during_abort=during).send(abort)
    before = stored_fields(abort), timeline(abort)
    sent = Abort.objects.select_related("run__stage__pipeline__project").get(pk=abort.pk)
    detail = parse_run_detail(run_response()[1]["data"])
    assert detail is not None
    # The reply to the commit was lost.
    is_under_way = abort_send.record_accepted(sent, detail, request_seq=1)
    assert is_under_way is not is_settled
    assert (stored_fields(abort), timeline(abort)) == before


@pytest.mark.parametrize("is_settled", [False, True])
@pytest.mark.parametrize("status", [409, 429])
def test_refusal_stored_twice_is_one_event(abort: Abort, status: int, is_settled: bool) -> None:
    during = (lambda: settle(abort)) if is_settled else (lambda: None)
    FakeNorthflank(abort=error_response(status), during_abort=during).send(abort)
    before = stored_fields(abort), timeline(abort)
    sent = Abort.objects.select_related("run__stage__pipeline__project").get(pk=abort.pk)
    error = (RateLimited if status == 429 else RequestRejected)("It broke", http_status=status)
    record = abort_settle.record_not_sent if status == 429 else partial(refuse, sent.run)
    record(sent, error)
    assert (stored_fields(abort), timeline(abort)) == before


def refuse(run: Run, abort: Abort, error: NorthflankError) -> None:
    abort_settle.record_refused(abort, run, error)


def settle(abort: Abort) -> None:
    Abort.objects.get(pk=abort.pk).apply(EventType.NOT_ARRIVED, db_threads.now())


@pytest.mark.parametrize(
    ("answer", "detail"),
    [(run_response("running"), "running"), (error_response(409), REFUSED_TEXT)],
)
def test_answer_after_abort_is_settled_is_added_to_timeline_only(
    abort: Abort, answer: tuple[Any, ...], detail: str
) -> None:
    FakeNorthflank(abort=answer, during_abort=lambda: settle(abort)).send(abort)
    assert stored_fields(abort) == SENT | SETTLED | {"state": "unknown"}
    assert timeline(abort) == [("sent", ""), ("not_arrived", ""), ("late_response", detail)]


# --- Not accepted -------------------------------------------------------------------------------


def test_refused_abort_stores_answer_and_error_id(abort: Abort) -> None:
    northflank = FakeNorthflank(abort=error_response(409, id="e-77"))
    logs = northflank.send(abort)
    expected = {
        "state": "refused",
        "response": REFUSED_TEXT,
        "response_status": 409,
        "error_id": "e-77",
    }
    assert stored_fields(abort) == ANSWERED | SETTLED | expected
    assert timeline(abort) == [("sent", ""), ("refused", REFUSED_TEXT)]
    assert logs == [
        log_line("settled", "warning", state="refused", by="manager", response=REFUSED_TEXT)
    ]
    assert northflank.methods == ["POST", "GET"]


def test_refused_abort_without_error_id_stores_none(abort: Abort) -> None:
    FakeNorthflank(abort=error_response(403)).send(abort)
    assert "error_id" not in stored_fields(abort)


def test_refused_abort_with_failed_run_read_stays_refused(abort: Abort) -> None:
    logs = FakeNorthflank(abort=error_response(409), reading=error_response(403)).send(abort)
    assert stored_fields(abort)["state"] == "refused"
    assert logs[0] == log_line("run_read_failed", "info", cause="forbidden")


def test_refused_abort_of_concluded_run_is_too_late(abort: Abort) -> None:
    logs = FakeNorthflank(
        abort=error_response(409, id="7"), reading=run_response("success", concluded=True)
    ).send(abort)
    expected = {"state": "too_late", "outcome": "success", "response_status": 409, "error_id": "7"}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"response": REFUSED_TEXT}
    assert timeline(abort) == [("sent", ""), ("too_late", "success")]
    assert logs == [
        log_line("settled", "warning", state="too_late", by="manager", response=REFUSED_TEXT)
    ]


def test_abort_of_removed_run_is_too_late(abort: Abort) -> None:
    text = "Not found on Northflank (404): It broke"
    FakeNorthflank(abort=error_response(404), reading=error_response(404)).send(abort)
    expected = {"state": "too_late", "response": text, "response_status": 404}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected
    assert timeline(abort) == [("sent", ""), ("too_late", "")]


def test_rate_limited_abort_is_not_sent_with_retry_time(abort: Abort) -> None:
    headers = {
        "x-ratelimit-limit": "1000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "90",
    }  # fmt: skip
    text = "Northflank rate limit reached (429): It broke"
    northflank = FakeNorthflank(abort=error_response(429), headers=headers)
    northflank.send(abort)
    expected = {"state": "not_sent", "response": text, "response_status": 429, "retry_at": "then"}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected
    assert timeline(abort) == [("sent", ""), ("not_sent", text)]
    stored = Abort.objects.get()
    assert stored.retry_at - stored.settled_at == timedelta(seconds=90)
    assert northflank.methods == ["POST"]


# --- Unknown ------------------------------------------------------------------------------------


def test_failed_abort_is_unknown_and_run_is_read(abort: Abort) -> None:
    northflank = FakeNorthflank(abort=error_response(500, id="e-77"))
    logs = northflank.send(abort)
    expected = {"state": "unknown", "response": SERVER_ERROR_TEXT, "error_id": "e-77"}
    assert stored_fields(abort) == SENT | expected
    assert timeline(abort) == [("sent", ""), ("unknown", SERVER_ERROR_TEXT)]
    assert logs == [log_line("unknown", "warning", by="manager", why=SERVER_ERROR_TEXT)]
    assert northflank.methods[-1] == "GET"


def test_unknown_abort_with_failed_run_read_logs_both(abort: Abort) -> None:
    logs = FakeNorthflank(abort=error_response(500), reading=error_response(403)).send(abort)
    assert Run.objects.get().failures == 1  # the read was tried
    assert [line["event"] for line in logs] == ["abort.unknown", "abort.run_read_failed"]
    assert logs[1] == log_line("run_read_failed", "info", cause="forbidden")


def test_run_of_unknown_abort_is_due_for_read(abort: Abort) -> None:
    due_at = abort.requested_at + timedelta(seconds=1)
    with time_machine.travel(due_at, tick=False):
        abort_settle.mark_unknown(abort, "Nobody knows.", "e-77")
    assert Run.objects.get().next_detail_sync_at == due_at
    assert Abort.objects.get().claimed_at == due_at  # the delay before the next send starts
    assert (abort.state, abort.response, abort.error_id) == ("unknown", "Nobody knows.", "e-77")
    assert timeline(abort) == [("unknown", "Nobody knows.")]


def test_unknown_abort_is_accepted_once_run_is_aborting(abort: Abort) -> None:
    FakeNorthflank(abort=error_response(500), reading=run_response("aborting")).send(abort)
    assert stored_fields(abort) == SENT | {"state": "accepted", "response": SERVER_ERROR_TEXT}
    assert timeline(abort)[1:] == [("unknown", SERVER_ERROR_TEXT), ("aborting", "")]


def test_unknown_abort_is_concluded_once_run_is_read_aborted(abort: Abort) -> None:
    FakeNorthflank(abort=error_response(500), reading=run_response("aborted", concluded=True)).send(
        abort
    )
    expected = {"state": "concluded", "response": SERVER_ERROR_TEXT, "outcome": "aborted"}
    assert stored_fields(abort) == SENT | SETTLED | expected
    assert timeline(abort)[1:] == [("unknown", SERVER_ERROR_TEXT), ("concluded", "aborted")]


def test_unknown_abort_of_run_that_list_read_concluded_is_concluded(abort: Abort) -> None:
    def end() -> None:
        Run.objects.update(status="aborted", concluded=True, in_flight=False)

    concluded = run_response("aborted", concluded=True)
    FakeNorthflank(abort=error_response(500), reading=concluded, during_abort=end).send(abort)
    expected = {"state": "concluded", "response": SERVER_ERROR_TEXT, "outcome": "aborted"}
    assert stored_fields(abort) == SENT | SETTLED | expected
    assert timeline(abort)[1:] == [("unknown", SERVER_ERROR_TEXT), ("concluded", "aborted")]


def make_unknown(abort: Abort, *, read_after: float, sent_after: float | None = 0) -> None:
    """Make an abort unknown, and its run read `read_after` seconds after the request."""
    requested_at = abort.requested_at
    Run.objects.update(synced_at=requested_at + timedelta(seconds=read_after))
    sent_at = None if sent_after is None else requested_at + timedelta(seconds=sent_after)
    Abort.objects.update(state="unknown", sent_at=sent_at, send_count=5)


@pytest.mark.parametrize(
    ("read_after", "sent_after", "is_lost"),
    [(20, 0, False), (20.1, 0, True), (29, 10, False), (31, 10, True), (21, None, True)],
)
def test_unknown_abort_is_not_arrived_only_after_read_past_last_send(
    abort: Abort, read_after: float, sent_after: float | None, is_lost: bool
) -> None:
    make_unknown(abort, read_after=read_after, sent_after=sent_after)
    with capture_logs() as logs:
        abort_settle.settle_resolved_aborts(db_threads.now())
    assert timeline(abort) == ([("not_arrived", "Already sent 5 times.")] if is_lost else [])
    expected = log_line("not_arrived", "warning", by="manager") | place_fields(abort.run)
    assert logs == ([expected] if is_lost else [])
    assert ("settled_at" in stored_fields(abort)) is is_lost
    assert Run.objects.get().abort_severity == (Severity.CRITICAL if is_lost else Severity.OK)
    assert stored_fields(abort)["state"] == "unknown"


def test_review_settles_unknown_aborts_and_leaves_open_ones(
    run: Run, abort: Abort, manager: User
) -> None:
    make_unknown(abort, read_after=61)
    others = [
        factories.abort(factories.run(run.stage, status=status), manager, state)
        for status, state in [("running", "accepted"), ("running", "requested")]
    ]
    ended_run_abort = factories.abort(factories.run(run.stage, status="success"), manager)
    removed_run_abort = factories.abort(factories.run(run.stage, in_flight=False), manager)
    arrived_abort = factories.abort(factories.run(run.stage, status="aborting"), manager, "unknown")
    abort_settle.settle_resolved_aborts(db_threads.now())
    assert [Abort.objects.get(pk=abort.pk).state for abort in others] == ["accepted", "requested"]
    outcomes = [
        Abort.objects.get(pk=abort.pk).outcome for abort in (ended_run_abort, removed_run_abort)
    ]
    assert outcomes == ["success", ""]
    assert list(ended_run_abort.events.values_list("event_type", "detail")) == [
        ("concluded", "success")
    ]
    assert Abort.objects.get(pk=arrived_abort.pk).state == "accepted"
    assert list(arrived_abort.events.values_list("event_type", "detail")) == [("aborting", "")]
    assert Abort.objects.get(pk=abort.pk).settled_at is not None


def test_wait_for_another_process_ignores_other_aborts(abort: Abort, manager: User) -> None:
    other = request_abort(factories.run(abort.run.stage), AbortRequest(manager, "Stuck"))
    Abort.objects.filter(pk=abort.pk).update(state="accepted")

    async def wait(_: Connection) -> None:
        joined = AbortResult(abort, is_new=False)
        answered = await asyncio.wait_for(wait_for_response(joined), 10)
        assert answered == abort
        assert answered.run.stage.pipeline.project.slug  # loaded: no query is allowed here

    northflank = FakeNorthflank()
    northflank.run_with_connection(wait)
    assert Abort.objects.get(pk=other.abort.pk).state == "requested"
    assert northflank.methods == []


def test_wait_for_another_process_ends_with_its_lease(
    abort: Abort, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(abort_send, "asyncio", SimpleNamespace(sleep=pause))
    assert asyncio.run(abort_send.wait_for_other_process(abort.pk)) == abort
    assert sum(pauses) == SEND_LEASE.total_seconds()
    assert max(pauses) < 1  # the answer is shown soon after it has been stored


def test_answer_is_stored_before_the_rate_limit_that_came_with_it(abort: Abort) -> None:
    """A person waits for the answer alone."""

    async def send(upstream: Connection) -> None:
        upstream.recording_delay = 60  # until the connection is closed
        await send_abort(upstream, abort.pk)

    headers = {
        "x-ratelimit-limit": "1000", "x-ratelimit-remaining": "900", "x-ratelimit-reset": "90",
    }  # fmt: skip
    with counting_statements(db_threads.executor, db_threads.abort_executor) as statements:
        FakeNorthflank(headers=headers).run_with_connection(send)
    answer_writes, limit_writes = (
        [number for number, sql in enumerate(statements) if sql.startswith(start)]
        for start in ('UPDATE "dashboard_abort"', 'INSERT INTO "dashboard_ratebudget"')
    )
    assert max(answer_writes) < min(limit_writes)
    assert stored_fields(abort)["state"] == "accepted"


# --- Not sent -----------------------------------------------------------------------------------


def test_settled_abort_is_not_sent(abort: Abort) -> None:
    settle(abort)
    northflank = FakeNorthflank()
    northflank.send(abort)
    assert northflank.methods == []


@pytest.mark.parametrize("fields", [{"sent_at": F("requested_at")}, {"state": "accepted"}])
def test_sent_abort_is_not_sent_twice(abort: Abort, fields: dict[str, Any]) -> None:
    Abort.objects.update(**fields)
    version = Run.objects.get().version
    northflank = FakeNorthflank()
    northflank.send(abort)
    assert northflank.methods == []
    assert Run.objects.get().version == version  # open pages have nothing to show


def test_only_the_given_abort_is_sent(abort: Abort, manager: User) -> None:
    other_run = factories.run(abort.run.stage, "r2")
    other = request_abort(other_run, AbortRequest(manager, "Stuck")).abort
    Abort.objects.update(claimed_at=abort.claimed_at)  # recorded at the same time
    northflank = FakeNorthflank(abort=run_response(run_id="r2"))
    northflank.send(other)
    assert northflank.methods == ["POST"]
    assert stored_fields(other)["state"] == "accepted"
    assert stored_fields(abort) == {"state": "requested"}
    assert Abort.objects.get(pk=abort.pk).send_count == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "accepted"},
        {"sent_at": F("requested_at")},
        {"claimed_at": F("claimed_at") + timedelta(milliseconds=1)},
    ],
    ids=["answered", "sent", "claimed"],
)
def test_abort_that_another_process_took_over_is_not_sent(
    abort: Abort, changes: dict[str, Any]
) -> None:
    Abort.objects.update(**changes)
    assert attempt(abort).methods == []
    assert timeline(abort) == []


def attempt(abort: Abort) -> FakeNorthflank:
    """Send an abort as it was when this process loaded it."""
    northflank = FakeNorthflank()
    northflank.run_with_connection(lambda upstream: abort_send.attempt_send(upstream, abort))
    return northflank


@pytest.fixture
def resend(abort: Abort) -> Abort:
    """An abort that may not have arrived, claimed to be resent."""
    lease = F("requested_at") + timedelta(hours=1)
    Abort.objects.update(state="unknown", sent_at=F("requested_at"), send_count=2, claimed_at=lease)
    return Abort.objects.select_related("run__stage__pipeline__project").get()


def test_claimed_resend_is_sent(resend: Abort) -> None:
    assert attempt(resend).methods == ["POST"]
    assert timeline(resend) == [("sent", "3"), ("accepted", "aborting")]


@pytest.mark.parametrize(
    "changes",
    [{"send_count": 3}, {"claimed_at": F("claimed_at") + timedelta(milliseconds=1)}],
    ids=["sent", "claimed"],
)
def test_resend_that_another_process_took_over_is_not_sent(
    resend: Abort, changes: dict[str, Any]
) -> None:
    Abort.objects.update(**changes)
    assert attempt(resend).methods == []


def test_abort_is_not_sent_a_sixth_time(resend: Abort) -> None:
    Abort.objects.update(send_count=5)
    resend.refresh_from_db(fields=["send_count"])
    assert attempt(resend).methods == []
    assert timeline(resend) == []


def test_resend_after_permission_is_revoked_is_neither_sent_nor_cancelled(
    resend: Abort, manager: User
) -> None:
    manager.groups.clear()
    assert attempt(resend).methods == []
    assert Abort.objects.open().get().state == "unknown"
    assert timeline(resend) == []


def test_run_found_aborting_is_not_sent_another_abort(resend: Abort) -> None:
    Run.objects.update(status="aborting")
    assert attempt(resend).methods == []


def test_abort_after_permission_is_revoked_is_not_sent(abort: Abort, manager: User) -> None:
    manager.groups.clear()
    northflank = FakeNorthflank()
    logs = northflank.send(abort)
    reason = str(permissions.abort_permission(manager, abort.run.stage).denied_reason)
    assert stored_fields(abort) == SETTLED | {"state": "not_sent", "response": reason}
    assert timeline(abort) == [("not_sent", reason)]
    assert logs == [log_line("cancelled", "warning", by="manager", why=reason)]
    assert northflank.methods == []


def test_abort_after_account_is_deleted_is_not_sent(abort: Abort, manager: User) -> None:
    manager.delete()
    FakeNorthflank().send(abort)
    assert stored_fields(abort)["response"] == "The requesting account was deleted."


@pytest.mark.parametrize(("seconds_late", "state"), [(0, "accepted"), (1, "not_sent")])
def test_abort_past_send_deadline_is_not_sent(
    run: Run, manager: User, seconds_late: int, state: str
) -> None:
    with time_machine.travel(T0, tick=False):
        abort = request_abort(run, AbortRequest(manager, "Stuck")).abort
    with time_machine.travel(T0 + SEND_DEADLINE + timedelta(seconds=seconds_late), tick=False):
        assert abort_settle.cancel_if_unwanted(abort) is (state == "not_sent")
    answer = "Sending timed out." if seconds_late else ""
    assert Abort.objects.get().response == answer


# --- Aborted again, or elsewhere -----------------------------------------------------------------


def create_second(abort: Abort, manager: User) -> Abort:
    """An abort of a run that is aborted again."""
    settle(abort)
    unsent = {"sent_at": None, "responded_at": None}
    return factories.abort(abort.run, manager, "requested", again_of=abort, **unsent)


def test_second_abort_reads_run_before_sending(abort: Abort, manager: User) -> None:
    second = create_second(abort, manager)
    northflank = FakeNorthflank()
    northflank.send(second)
    assert northflank.methods == ["GET", "POST"]


def test_abort_of_aborting_run_reads_run_before_sending(abort: Abort) -> None:
    Run.objects.update(status="aborting")
    northflank = FakeNorthflank()
    northflank.send(abort)
    assert northflank.methods == ["GET", "POST"]


def test_second_abort_with_failed_run_read_is_sent(abort: Abort, manager: User) -> None:
    second = create_second(abort, manager)
    logs = FakeNorthflank(reading=error_response(403)).send(second)
    assert logs[0] == log_line("run_read_failed", "info", cause="forbidden")
    assert logs[1]["event"] == "abort.accepted"


@pytest.mark.parametrize(
    ("reading", "outcome"),
    [(run_response("aborted", concluded=True), {"outcome": "aborted"}), (error_response(404), {})],
)
def test_second_abort_for_concluded_run_is_too_late(
    abort: Abort, manager: User, reading: tuple[Any, ...], outcome: dict[str, str]
) -> None:
    second = create_second(abort, manager)
    northflank = FakeNorthflank(reading=reading)
    logs = northflank.send(second)
    assert stored_fields(second) == SETTLED | {"state": "too_late"} | outcome
    assert northflank.methods == ["GET"]
    assert logs == [log_line("settled", "warning", state="too_late", by="manager", response="")]


# --- Reads of the run ---------------------------------------------------------------------------


def test_run_that_is_not_read_in_time_may_be_read_later(abort: Abort) -> None:
    with pytest.raises(Unreachable) as raised:
        FakeNorthflank().run_with_connection(lambda upstream: target.read(upstream, abort, 0))
    error = raised.value
    assert str(error) == "The run could not be read within 0 seconds."
    assert (error.cause, error.may_have_arrived) == ("timeout", True)
