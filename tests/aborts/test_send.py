"""Records of an abort for every response: the abort, its timeline, and the log."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection, connections
from structlog.testing import capture_logs

from dashboard import aborts
from dashboard.aborts import AbortRequest
from dashboard.aborts import bulk as bulk_abort
from dashboard.aborts import reconcile as abort_reconcile
from dashboard.aborts import send as abort_send
from dashboard.db import threads as db_threads
from dashboard.models import Abort, BulkAbort, Run
from dashboard.models.aborts import AbortState, EventType
from dashboard.northflank import NorthflankClient, NorthflankError, RateLimited, RequestRejected
from dashboard.northflank.decoding import parse_run_detail
from dashboard.upstream.connection import Connection
from tests.support import factories, payloads
from tests.support.live import close_connections
from tests.support.world import T0

SEND_DEADLINE = timedelta(minutes=5)  # an abort that was not sent by then is never sent
Logs = list[MutableMapping[str, Any]]


def run_response(
    status: str = "aborting", run_id: str = "r1", *, concluded: bool = False
) -> tuple[Any, ...]:
    """Northflank's answer with a run."""
    return 200, payloads.data(payloads.run(run_id, status=status, concluded=concluded))


def error_response(status: int, **fields: Any) -> tuple[Any, ...]:
    """Northflank's answer with an error."""
    return status, payloads.error("It broke", **fields)


@dataclass
class FakeNorthflank:
    """Gives the same answer to every abort, and to every read."""

    abort: tuple[Any, ...] = run_response()
    reading: tuple[Any, ...] = run_response("running")
    headers: dict[str, str] = field(default_factory=dict)
    during_abort: Callable[[], None] = lambda: None  # while an abort is under way
    methods: list[str] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/runs"):  # the list, for an unknown run
            return httpx.Response(200, json={"data": {"runs": []}})
        self.methods.append(request.method)
        status, body = self.abort if request.method == "POST" else self.reading
        if request.method == "POST":
            run_in_thread(self.during_abort)
        return httpx.Response(status, json=body, headers=self.headers)

    def run_with_connection(self, work: Callable[[Connection], Awaitable[None]]) -> Logs:
        """Run `work` with a connection to this fake, and return what it logs."""

        async def work_and_close() -> None:
            connection = Connection("token", "http://northflank.invalid")
            transport = httpx.MockTransport(self.answer)
            connection.client = NorthflankClient(
                "token", transport=transport, on_call=connection.unrecorded_calls.append
            )
            await work(connection)
            await connection.close()

        with capture_logs() as logs:
            asyncio.run(work_and_close())
        return [line for line in logs if line["event"].startswith("abort.")]

    def send(self, abort: Abort) -> Logs:
        return self.run_with_connection(lambda connection: aborts.send_abort(connection, abort.pk))

    def reconcile(self) -> Logs:
        return self.run_with_connection(aborts.reconcile_open_aborts)


def run_in_thread(work: Callable[[], None]) -> None:
    """Run `work`, which uses the database, outside of the event loop's thread."""

    def work_and_close() -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(work_and_close).result()


@pytest.fixture
def run(transactional_db: None) -> Iterator[Run]:
    """A run in flight."""
    created = factories.run(factories.stage("Staging"), "r1")
    yield Run.objects.with_stage().get(pk=created.pk)
    for pool in (db_threads.executor, db_threads.abort_executor):
        close_connections(pool)


@pytest.fixture
def abort(run: Run, manager: User) -> Abort:
    """An abort that was just recorded."""
    return aborts.request_abort(run, AbortRequest(manager, "Stuck")).abort


def stored_fields(abort: Abort) -> dict[str, Any]:
    """The abort's stored state, without its request; a time after the request is “then”."""
    names = (
        "state", "sent_at", "answered_at", "answer", "answer_status", "error_id", "retry_at",
        "outcome", "settled_at",
    )  # fmt: skip
    values = Abort.objects.values(*names).get(pk=abort.pk)
    return {
        name: "then" if isinstance(value, datetime) and value > abort.requested_at else value
        for name, value in values.items()
        if value not in {"", None}
    }


def timeline(abort: Abort) -> list[tuple[str, str]]:
    """The abort's timeline after the request."""
    lines = list(abort.events.values_list("event_type", "detail", "occurred_at"))
    assert all(at >= abort.requested_at for _, _, at in lines)
    return [(event_type, detail) for event_type, detail, _ in lines if event_type != "requested"]


def log_line(event: str, level: str, **fields: Any) -> dict[str, Any]:
    return {"event": f"abort.{event}", "log_level": level, "run": "r1", **fields}


SENT = {"sent_at": "then"}
ANSWERED = SENT | {"answered_at": "then"}
SETTLED = {"settled_at": "then"}
SERVER_ERROR_TEXT = "Northflank server error (500): It broke"
REFUSED_TEXT = "Northflank refused (409): It broke"


# --- Accepted -----------------------------------------------------------------------------------


def test_accepted_abort_stores_answer_and_timeline(abort: Abort) -> None:
    logs = FakeNorthflank().send(abort)
    expected = {"state": "accepted", "answer": "aborting", "answer_status": 200}
    assert stored_fields(abort) == ANSWERED | expected
    assert timeline(abort) == [("sent", ""), ("accepted", "aborting")]
    assert logs == [log_line("accepted", "info", by="manager", status="aborting")]
    run, stored = Run.objects.get(), Abort.objects.get()
    assert (run.status, run.next_detail_sync_at) == ("aborting", stored.answered_at)
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
    assert stored_fields(abort) == SENT | {"state": "unknown", "answer": reason}
    assert timeline(abort) == [("sent", ""), ("unknown", reason)]
    assert logs == [log_line("unknown", "warning", by="manager", why=reason)]
    assert Run.objects.get().status == "running"


def test_accepted_abort_of_aborted_run_is_concluded(abort: Abort) -> None:
    FakeNorthflank(abort=run_response("aborted", concluded=True)).send(abort)
    expected = {"state": "concluded", "answer": "aborted", "answer_status": 200}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"outcome": "aborted"}
    assert timeline(abort) == [("sent", ""), ("accepted", "aborted"), ("concluded", "aborted")]


def test_accepted_abort_of_successful_run_is_too_late(abort: Abort) -> None:
    FakeNorthflank(abort=run_response("success", concluded=True)).send(abort)
    expected = {"state": "too_late", "answer": "success", "answer_status": 200}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"outcome": "success"}
    assert timeline(abort) == [("sent", ""), ("too_late", "success")]


def test_accepted_abort_of_run_that_list_read_concluded_is_concluded(abort: Abort) -> None:
    def end() -> None:
        Run.objects.update(status="aborted", concluded=True, in_flight=False)

    FakeNorthflank(abort=run_response("aborted", concluded=True), during_abort=end).send(abort)
    expected = {"state": "concluded", "answer_status": 200, "outcome": "aborted"}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"answer": "aborted"}
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
    is_under_way = abort_send._record_accepted(sent, detail, request_seq=1)
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
    record = abort_send._record_not_sent if status == 429 else partial(refuse, sent.run)
    record(sent, error)
    assert (stored_fields(abort), timeline(abort)) == before


def refuse(run: Run, abort: Abort, error: NorthflankError) -> None:
    abort_send._record_refused(abort, run, error)


def settle(abort: Abort) -> None:
    Abort.objects.get(pk=abort.pk).transition(
        AbortState.UNKNOWN, EventType.NOT_ARRIVED, db_threads.now(), settled_at=db_threads.now()
    )


@pytest.mark.parametrize(
    ("answer", "detail"),
    [(run_response("running"), "running"), (error_response(409), REFUSED_TEXT)],
)
def test_answer_after_abort_is_settled_is_added_to_timeline_only(
    abort: Abort, answer: tuple[Any, ...], detail: str
) -> None:
    FakeNorthflank(abort=answer, during_abort=lambda: settle(abort)).send(abort)
    assert stored_fields(abort) == SENT | SETTLED | {"state": "unknown"}
    assert timeline(abort) == [("sent", ""), ("not_arrived", ""), ("answered_late", detail)]


# --- Not accepted -------------------------------------------------------------------------------


def test_refused_abort_stores_answer_and_error_id(abort: Abort) -> None:
    northflank = FakeNorthflank(abort=error_response(409, id="e-77"))
    logs = northflank.send(abort)
    expected = {
        "state": "refused",
        "answer": REFUSED_TEXT,
        "answer_status": 409,
        "error_id": "e-77",
    }
    assert stored_fields(abort) == ANSWERED | SETTLED | expected
    assert timeline(abort) == [("sent", ""), ("refused", REFUSED_TEXT)]
    assert logs == [
        log_line("settled", "warning", state="refused", by="manager", answer=REFUSED_TEXT)
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
        abort=error_response(409, id=7), reading=run_response("success", concluded=True)
    ).send(abort)
    expected = {"state": "too_late", "answer": REFUSED_TEXT, "answer_status": 409, "error_id": "7"}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected | {"outcome": "success"}
    assert timeline(abort) == [("sent", ""), ("too_late", "success")]
    assert logs == [
        log_line("settled", "warning", state="too_late", by="manager", answer=REFUSED_TEXT)
    ]


def test_abort_of_removed_run_is_too_late(abort: Abort) -> None:
    text = "Not found on Northflank (404): It broke"
    FakeNorthflank(abort=error_response(404), reading=error_response(404)).send(abort)
    expected = {"state": "too_late", "answer": text, "answer_status": 404}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected
    assert timeline(abort) == [("sent", ""), ("too_late", "")]


def test_rate_limited_abort_is_not_sent_with_retry_time(abort: Abort) -> None:
    headers = {
        "x-ratelimit-limit": "1000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "90",
    }  # fmt: skip
    text = "Northflank rate limit reached (429): It broke"
    northflank = FakeNorthflank(abort=error_response(429), headers=headers)
    northflank.send(abort)
    expected = {"state": "not_sent", "answer": text, "answer_status": 429, "retry_at": "then"}
    assert stored_fields(abort) == ANSWERED | SETTLED | expected
    assert timeline(abort) == [("sent", ""), ("not_sent", text)]
    stored = Abort.objects.get()
    assert stored.retry_at - stored.settled_at == timedelta(seconds=90)
    assert northflank.methods == ["POST"]


def test_rate_limited_abort_without_headers_has_no_retry_time(abort: Abort) -> None:
    FakeNorthflank(abort=error_response(429)).send(abort)
    assert Abort.objects.get().retry_at is None


# --- Unknown ------------------------------------------------------------------------------------


def test_failed_abort_is_unknown_and_run_is_read(abort: Abort) -> None:
    northflank = FakeNorthflank(abort=error_response(500, id="e-77"))
    logs = northflank.send(abort)
    expected = {"state": "unknown", "answer": SERVER_ERROR_TEXT, "error_id": "e-77"}
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
        abort_send.mark_unknown(abort, "Nobody knows.", "e-77")
    assert Run.objects.get().next_detail_sync_at == due_at
    assert (abort.state, abort.answer, abort.error_id) == ("unknown", "Nobody knows.", "e-77")
    assert timeline(abort) == [("unknown", "Nobody knows.")]


def test_unknown_abort_is_accepted_once_run_is_aborting(abort: Abort) -> None:
    FakeNorthflank(abort=error_response(500), reading=run_response("aborting")).send(abort)
    assert stored_fields(abort) == SENT | {"state": "accepted", "answer": SERVER_ERROR_TEXT}
    assert timeline(abort)[1:] == [("unknown", SERVER_ERROR_TEXT), ("aborting", "")]


def test_unknown_abort_is_concluded_once_run_is_read_aborted(abort: Abort) -> None:
    FakeNorthflank(abort=error_response(500), reading=run_response("aborted", concluded=True)).send(
        abort
    )
    expected = {"state": "concluded", "answer": SERVER_ERROR_TEXT, "outcome": "aborted"}
    assert stored_fields(abort) == SENT | SETTLED | expected
    assert timeline(abort)[1:] == [("unknown", SERVER_ERROR_TEXT), ("concluded", "aborted")]


def test_unknown_abort_of_run_that_list_read_concluded_is_concluded(abort: Abort) -> None:
    def end() -> None:
        Run.objects.update(status="aborted", concluded=True, in_flight=False)

    concluded = run_response("aborted", concluded=True)
    FakeNorthflank(abort=error_response(500), reading=concluded, during_abort=end).send(abort)
    expected = {"state": "concluded", "answer": SERVER_ERROR_TEXT, "outcome": "aborted"}
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
        abort_send.settle_resolved_aborts(db_threads.now())
    assert timeline(abort) == ([("not_arrived", "Already sent 5 times.")] if is_lost else [])
    assert logs == ([log_line("not_arrived", "warning", by="manager")] if is_lost else [])
    assert ("settled_at" in stored_fields(abort)) is is_lost
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
    abort_send.settle_resolved_aborts(db_threads.now())
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
    other = aborts.request_abort(factories.run(abort.run.stage), AbortRequest(manager, "Stuck"))
    Abort.objects.filter(pk=abort.pk).update(state="accepted")

    async def wait(_: Connection) -> None:
        joined = aborts.AbortResult(abort, is_new=False)
        assert await asyncio.wait_for(aborts.wait_for_answer(joined), 10) == abort

    northflank = FakeNorthflank()
    northflank.run_with_connection(wait)
    assert Abort.objects.get(pk=other.abort.pk).state == "requested"
    assert northflank.methods == []


# --- Not sent -----------------------------------------------------------------------------------


def test_settled_abort_is_not_sent(abort: Abort) -> None:
    settle(abort)
    northflank = FakeNorthflank()
    northflank.send(abort)
    assert northflank.methods == []


@pytest.mark.parametrize("fields", [{"sent_at": T0}, {"state": "accepted"}])
def test_sent_abort_is_not_sent_twice(abort: Abort, fields: dict[str, Any]) -> None:
    Abort.objects.update(**fields)
    northflank = FakeNorthflank()
    northflank.send(abort)
    assert northflank.methods == []


def test_abort_after_permission_is_revoked_is_not_sent(abort: Abort, manager: User) -> None:
    manager.groups.clear()
    northflank = FakeNorthflank()
    logs = northflank.send(abort)
    reason = "Only members of the group “Release managers” can abort runs here."
    assert stored_fields(abort) == SETTLED | {"state": "not_sent", "answer": reason}
    assert timeline(abort) == [("not_sent", reason)]
    assert logs == [log_line("cancelled", "warning", by="manager", why=reason)]
    assert northflank.methods == []


def test_abort_after_account_is_deleted_is_not_sent(abort: Abort, manager: User) -> None:
    manager.delete()
    FakeNorthflank().send(abort)
    assert stored_fields(abort)["answer"] == "The requesting account was deleted."


@pytest.mark.parametrize(("seconds_late", "state"), [(0, "accepted"), (1, "not_sent")])
def test_abort_past_send_deadline_is_not_sent(
    run: Run, manager: User, seconds_late: int, state: str
) -> None:
    with time_machine.travel(T0, tick=False):
        abort = aborts.request_abort(run, AbortRequest(manager, "Stuck")).abort
    with time_machine.travel(T0 + SEND_DEADLINE + timedelta(seconds=seconds_late), tick=False):
        assert abort_send.cancel_if_unwanted(abort) is (state == "not_sent")
    answer = "Sending timed out." if seconds_late else ""
    assert Abort.objects.get().answer == answer


# --- Retried, or aborted elsewhere --------------------------------------------------------------


def create_retry(abort: Abort, manager: User) -> Abort:
    """An abort that retries another."""
    settle(abort)
    unsent = {"sent_at": None, "answered_at": None}
    return factories.abort(abort.run, manager, "requested", retry_of=abort, **unsent)


def test_retry_reads_run_before_sending(abort: Abort, manager: User) -> None:
    second = create_retry(abort, manager)
    northflank = FakeNorthflank()
    northflank.send(second)
    assert northflank.methods == ["GET", "POST"]


def test_abort_of_aborting_run_reads_run_before_sending(abort: Abort) -> None:
    Run.objects.update(status="aborting")
    northflank = FakeNorthflank()
    northflank.send(abort)
    assert northflank.methods == ["GET", "POST"]


def test_retry_with_failed_run_read_is_sent(abort: Abort, manager: User) -> None:
    second = create_retry(abort, manager)
    logs = FakeNorthflank(reading=error_response(403)).send(second)
    assert logs[0] == log_line("run_read_failed", "info", cause="forbidden")
    assert logs[1]["event"] == "abort.accepted"


@pytest.mark.parametrize(
    ("reading", "outcome"),
    [(run_response("aborted", concluded=True), {"outcome": "aborted"}), (error_response(404), {})],
)
def test_retry_for_concluded_run_is_too_late(
    abort: Abort, manager: User, reading: tuple[Any, ...], outcome: dict[str, str]
) -> None:
    second = create_retry(abort, manager)
    northflank = FakeNorthflank(reading=reading)
    logs = northflank.send(second)
    assert stored_fields(second) == SETTLED | {"state": "too_late"} | outcome
    assert northflank.methods == ["GET"]
    assert logs == [log_line("settled", "warning", state="too_late", by="manager", answer="")]


# --- Adopted from an ended process --------------------------------------------------------------


@pytest.fixture
def abort_with_expired_lease(abort: Abort) -> Abort:
    """An abort whose lease has expired."""
    Abort.objects.update(claimed_at=abort.claimed_at - timedelta(seconds=16))
    return Abort.objects.get()


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
    assert northflank.methods == ["GET"]
    assert timeline(abort_with_expired_lease) == [("adopted", ""), ("unknown", reason)]
    stored = Abort.objects.get()
    assert (stored.state, stored.answer, stored.error_id) == ("unknown", reason, "")


def test_aborts_with_same_lease_time_are_adopted_separately(
    abort_with_expired_lease: Abort, manager: User
) -> None:
    times = {
        "claimed_at": abort_with_expired_lease.claimed_at,
        "requested_at": abort_with_expired_lease.requested_at,
    }
    run = factories.run(abort_with_expired_lease.run.stage)
    factories.abort(run, manager, "requested", sent_at=None, **times)
    accepted = factories.abort(factories.run(abort_with_expired_lease.run.stage), manager, **times)
    adopted = [line for line in FakeNorthflank().reconcile() if line["event"] == "abort.adopted"]
    assert sorted(line["run"] for line in adopted) == sorted(["r1", run.run_id])
    assert Abort.objects.get(pk=accepted.pk).claimed_at == abort_with_expired_lease.claimed_at


def test_abort_with_valid_lease_is_not_adopted(abort: Abort) -> None:
    Abort.objects.update(claimed_at=abort.claimed_at - timedelta(seconds=10))
    northflank = FakeNorthflank()
    assert northflank.reconcile() == []
    assert northflank.methods == []


def test_handed_over_abort_is_adopted_immediately(abort: Abort) -> None:
    aborts.release_lease(abort)
    assert Abort.objects.get().claimed_at == abort.requested_at - timedelta(seconds=15)
    northflank = FakeNorthflank()
    northflank.reconcile()
    assert northflank.methods == ["GET", "POST"]


@pytest.mark.parametrize(
    "fields", [{"sent_at": T0}, {"state": "accepted"}, {"state": "refused", "settled_at": T0}]
)
def test_sent_or_settled_abort_is_not_handed_over(abort: Abort, fields: dict[str, Any]) -> None:
    Abort.objects.update(**fields)
    aborts.release_lease(abort)
    assert Abort.objects.get().claimed_at == abort.claimed_at


def test_hand_over_leaves_other_leases(abort: Abort, manager: User) -> None:
    other = aborts.request_abort(
        factories.run(abort.run.stage), AbortRequest(manager, "Stuck")
    ).abort
    aborts.release_lease(abort)
    assert Abort.objects.get(pk=other.pk).claimed_at == other.claimed_at


def test_release_all_leases_expires_only_requested_aborts(abort: Abort, manager: User) -> None:
    accepted = factories.abort(factories.run(abort.run.stage), manager)
    settled = factories.abort(factories.run(abort.run.stage), manager, "requested", settled_at=T0)
    aborts.release_all_leases()
    claimed = dict(Abort.objects.values_list("pk", "claimed_at"))
    assert claimed == {
        abort.pk: abort.requested_at - timedelta(seconds=15),
        accepted.pk: accepted.claimed_at,
        settled.pk: settled.claimed_at,
    }


# --- Overdue ------------------------------------------------------------------------------------

WARN_AFTER, CRITICAL_AFTER = timedelta(seconds=180), timedelta(seconds=600)


def reconcile_at(at: datetime) -> Logs:
    """Reconcile open aborts at a given time."""
    with time_machine.travel(at, tick=False):
        return FakeNorthflank().reconcile()


def severities() -> dict[str, int]:
    return dict(Run.objects.values_list("run_id", "abort_severity"))


def test_overdue_abort_is_reported_once_per_severity(run: Run, manager: User) -> None:
    since = factories.abort(run, manager).requested_at
    reports = []
    for elapsed in (
        WARN_AFTER - timedelta(seconds=1),
        WARN_AFTER,
        WARN_AFTER,
        CRITICAL_AFTER,
        CRITICAL_AFTER,
    ):
        before = Run.objects.get().version
        logs = reconcile_at(since + elapsed)
        changed = Run.objects.get().version != before
        reports.append((severities()["r1"], changed, [line["severity"] for line in logs]))
    assert reports == [
        (0, False, []),
        (1, True, ["warning"]),
        (1, False, []),
        (2, True, ["critical"]),
        (2, False, []),
    ]


def test_overdue_abort_is_logged(run: Run, manager: User) -> None:
    since = factories.abort(run, manager).requested_at
    assert reconcile_at(since + WARN_AFTER) == [log_line("overdue", "warning", severity="warning")]


def test_abort_severity_depends_on_each_runs_abort_start(run: Run, manager: User) -> None:
    since = db_threads.now()
    others = {
        "ours, and aborting": {"status": "aborting", "status_since": since - CRITICAL_AFTER},
        "anothers": {"status": "aborting", "status_since": since - CRITICAL_AFTER},
        "anothers, amber": {"status": "aborting", "status_since": since - WARN_AFTER},
        "anothers, just begun": {"status": "aborting", "status_since": since},
        "not aborted": {"status_since": since - CRITICAL_AFTER},
        "over": {"status": "success", "abort_severity": 1},
        "aborted no more": {"abort_severity": 2},
        "ours, and told before": {"abort_severity": 2},
        "anothers, and told before": {
            "status": "aborting",
            "status_since": since,
            "abort_severity": 1,
        },
        "over, and open": {"status": "success"},
        "aborting after a refusal": {"status": "aborting", "status_since": since - CRITICAL_AFTER},
    }
    runs = {name: factories.run(run.stage, name, **fields) for name, fields in others.items()}
    factories.abort(run, manager, requested_at=since - CRITICAL_AFTER)
    for name in ("ours, and aborting", "ours, and told before"):
        factories.abort(runs[name], manager, requested_at=since)
    factories.abort(
        runs["over, and open"], manager, "requested", requested_at=since - CRITICAL_AFTER
    )
    settled = {"settled_at": since, "requested_at": since - CRITICAL_AFTER}
    factories.abort(runs["aborting after a refusal"], manager, "refused", **settled)
    factories.abort(runs["not aborted"], manager, "refused", **settled)
    versions = dict(Run.objects.values_list("run_id", "version"))
    reconcile_at(since)
    assert severities() == {
        "r1": 2,
        "ours, and aborting": 2,
        "anothers": 2,
        "anothers, amber": 1,
        "anothers, just begun": 0,
        "not aborted": 0,
        "over": 1,
        "aborted no more": 0,
        "ours, and told before": 0,
        "anothers, and told before": 0,
        "over, and open": 0,
        "aborting after a refusal": 2,
    }
    changed_run_ids = {
        run.run_id for run in Run.objects.all() if run.version != versions[run.run_id]
    }
    assert changed_run_ids == {
        "r1",
        "ours, and aborting",
        "anothers",
        "anothers, amber",
        "aborted no more",
        "ours, and told before",
        "anothers, and told before",
        "aborting after a refusal",
    }


# --- Concurrent workers -------------------------------------------------------------------------


def claim_first(claim: Callable[[], object]) -> Callable[..., Any]:
    """Let another worker claim first what this one is about to claim."""
    has_claimed = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_claimed
        if sql.startswith("UPDATE") and not has_claimed:
            has_claimed = True
            claim()
        return run(sql, *rest)

    return execute


def test_abort_leased_by_another_worker_is_not_adopted(abort_with_expired_lease: Abort) -> None:
    at = db_threads.now()
    with connection.execute_wrapper(claim_first(lambda: Abort.objects.update(claimed_at=at))):
        assert abort_reconcile._claim_unsent_expired(db_threads.now()) == []
    assert Abort.objects.get().claimed_at == at


# --- Bulk aborts of ended processes -------------------------------------------------------------


@pytest.fixture
def batch(run: Run, manager: User) -> BulkAbort:
    """A bulk abort whose lease has expired."""
    requested = aborts.request_bulk_abort([run.pk], AbortRequest(manager, "Stuck"), uuid4())
    aborts.release_all_leases()
    return requested


async def reconcile_until_done(connection: Connection) -> None:
    """Reconcile open aborts and bulk aborts, until all that were resumed have ended."""
    await aborts.reconcile_open_aborts(connection)
    await asyncio.gather(*bulk_abort._tasks.values(), return_exceptions=True)
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
    assert bulk_abort._tasks == {}


def test_failing_bulk_abort_is_logged_and_stays_open(batch: BulkAbort) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    logs = FakeNorthflank(during_abort=fail).run_with_connection(reconcile_until_done)
    failed = [line for line in logs if line["event"] == "abort.bulk_failed"]
    assert [(line["log_level"], line["bulk_abort"]) for line in failed] == [("error", batch.pk)]
    assert isinstance(failed[0]["exc_info"], ZeroDivisionError)
    assert bulk_abort._tasks == {}
    assert BulkAbort.objects.get().settled_at is None


def test_bulk_abort_skips_concluded_run_and_sends_rest_past_deadline(
    run: Run, manager: User
) -> None:
    ended_run = factories.run(run.stage)
    with time_machine.travel(T0, tick=False):  # far in the past
        batch = aborts.request_bulk_abort(
            [ended_run.pk, run.pk], AbortRequest(manager, "Stuck"), uuid4()
        )
    Run.objects.filter(pk=ended_run.pk).update(in_flight=False)
    northflank = FakeNorthflank()
    northflank.run_with_connection(
        lambda connection: bulk_abort.process_bulk_abort(connection, batch.pk)
    )
    assert northflank.methods == ["POST"]
    assert list(batch.items.values_list("result", flat=True)) == ["ended", "abort"]


def test_released_bulk_abort_stops_immediately(batch: BulkAbort) -> None:
    async def start_and_release(connection: Connection) -> None:
        await bulk_abort.adopt_bulk_aborts(connection)
        assert list(bulk_abort._tasks) == [batch.pk]
        await aborts.cancel_tasks()
        assert bulk_abort._tasks == {}

    northflank = FakeNorthflank()
    northflank.run_with_connection(start_and_release)
    assert northflank.methods == []


def test_settled_or_leased_bulk_abort_is_not_resumed(batch: BulkAbort) -> None:
    BulkAbort.objects.update(claimed_at=db_threads.now() - timedelta(seconds=40))
    assert FakeNorthflank().run_with_connection(reconcile_until_done) == []
    BulkAbort.objects.update(settled_at=db_threads.now())
    aborts.release_all_leases()
    assert BulkAbort.objects.get().claimed_at > batch.requested_at - timedelta(seconds=45)
    assert FakeNorthflank().run_with_connection(reconcile_until_done) == []


def test_bulk_abort_leased_by_another_worker_is_not_resumed(batch: BulkAbort) -> None:
    at = db_threads.now()
    with connection.execute_wrapper(claim_first(lambda: BulkAbort.objects.update(claimed_at=at))):
        assert bulk_abort._claim_expired(db_threads.now()) == []
    assert BulkAbort.objects.get().claimed_at == at
