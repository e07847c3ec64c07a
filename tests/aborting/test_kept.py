"""All that is kept of an abort, whatever Northflank answers: the act, its trail, and the log."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection, connections
from structlog.testing import capture_logs

from dashboard import aborts
from dashboard.aborts import Press
from dashboard.aborts import bulk as bulk_abort
from dashboard.aborts import reconcile as abort_reconcile
from dashboard.aborts import send as abort_send
from dashboard.db import threads as db_threads
from dashboard.models import Abort, AbortBatch, Run
from dashboard.models.aborts import AbortState, What
from dashboard.northflank import NorthflankClient
from dashboard.upstream.connection import Connection
from tests.support import factories, payloads
from tests.support.live import close_connections
from tests.support.world import T0

LATER = timedelta(minutes=5)  # an abort that was not sent by then is not sent any more
Logs = list[MutableMapping[str, Any]]


def says(status: str = "aborting", run_id: str = "r1", *, over: bool = False) -> tuple[Any, ...]:
    """Northflank's answer that tells of a run."""
    return 200, payloads.data(payloads.run(run_id, status=status, concluded=over))


def fails(status: int, **more: Any) -> tuple[Any, ...]:
    """Northflank's answer that it has failed, or will not."""
    return status, payloads.error("It broke", **more)


@dataclass
class Northflank:
    """Answers every abort, and every reading, with the same."""

    abort: tuple[Any, ...] = says()
    reading: tuple[Any, ...] = says("running")
    headers: dict[str, str] = field(default_factory=dict)
    meanwhile: Callable[[], None] = lambda: None  # while an abort is under way
    asked: list[str] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/runs"):  # asked where a run is not known
            return httpx.Response(200, json={"data": {"runs": []}})
        self.asked.append(request.method)
        status, body = self.abort if request.method == "POST" else self.reading
        if request.method == "POST":
            in_a_thread(self.meanwhile)
        return httpx.Response(status, json=body, headers=self.headers)

    def let(self, work: Callable[[Connection], Awaitable[None]]) -> Logs:
        """Have `work` ask here, and return what it logs."""

        async def run() -> None:
            to = Connection("token", "http://northflank.invalid")
            transport = httpx.MockTransport(self.answer)
            to.client = NorthflankClient("token", transport=transport, observe=to.calls.append)
            await work(to)
            await to.close()

        with capture_logs() as logs:
            asyncio.run(run())
        return [line for line in logs if line["event"].startswith("abort.")]

    def send(self, abort: Abort) -> Logs:
        return self.let(lambda to: aborts.send(to, abort.pk))

    def look_after(self) -> Logs:
        return self.let(aborts.look_after_open_aborts)


def in_a_thread(work: Callable[[], None]) -> None:
    """Do what the event loop's own thread must not: use the database."""

    def done() -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as hands:
        hands.submit(done).result()


@pytest.fixture
def run(transactional_db: None) -> Iterator[Run]:
    """A run in flight."""
    made = factories.run(factories.stage("Staging"), "r1")
    yield Run.objects.with_place().get(pk=made.pk)
    close_connections(db_threads.pool)


@pytest.fixture
def abort(run: Run, manager: User) -> Abort:
    """An abort that was just written down."""
    return aborts.request(run, Press(manager, "Stuck")).abort


def kept(abort: Abort) -> dict[str, Any]:
    """All that is kept of an act but what was asked for; any time after the press is “then”."""
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


def trail(abort: Abort) -> list[tuple[str, str]]:
    """The act's trail after the press."""
    lines = list(abort.events.values_list("what", "detail", "at"))
    assert all(at >= abort.requested_at for _, _, at in lines)
    return [(what, detail) for what, detail, _ in lines if what != "requested"]


def logged(event: str, level: str, **more: Any) -> dict[str, Any]:
    return {"event": f"abort.{event}", "log_level": level, "run": "r1", **more}


SENT = {"sent_at": "then"}
ANSWERED = SENT | {"answered_at": "then"}
SETTLED = {"settled_at": "then"}
SAID_BROKEN = "Northflank has failed (500): It broke"
SAID_NO = "Northflank refused (409): It broke"


# --- It was accepted ----------------------------------------------------------------------------


def test_what_is_accepted(abort: Abort) -> None:
    logs = Northflank().send(abort)
    expected = {"state": "accepted", "answer": "aborting", "answer_status": 200}
    assert kept(abort) == ANSWERED | expected
    assert trail(abort) == [("sent", ""), ("accepted", "aborting")]
    assert logs == [logged("accepted", "info", by="manager", status="aborting")]
    run, told = Run.objects.get(), Abort.objects.get()
    assert (run.status, run.next_read_at) == ("aborting", told.answered_at)
    assert told.claimed_at == told.sent_at


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, {"data": {}}), "Northflank's answer tells nothing of the run."),
        (says("aborted", "r2", over=True), "Northflank answered with another run."),
    ],
)
def test_what_is_answered_without_a_word_of_its_run_is_not_accepted(
    abort: Abort, answer: tuple[Any, ...], why: str
) -> None:
    logs = Northflank(abort=answer).send(abort)
    assert kept(abort) == SENT | {"state": "unknown", "answer": why}
    assert trail(abort) == [("sent", ""), ("unknown", why)]
    assert logs == [logged("unknown", "warning", by="manager", why=why)]
    assert Run.objects.get().status == "running"


def test_what_is_accepted_and_over(abort: Abort) -> None:
    Northflank(abort=says("aborted", over=True)).send(abort)
    expected = {"state": "concluded", "answer": "aborted", "answer_status": 200}
    assert kept(abort) == ANSWERED | SETTLED | expected | {"outcome": "aborted"}
    assert trail(abort) == [("sent", ""), ("accepted", "aborted"), ("concluded", "aborted")]


def test_what_is_accepted_in_name_only(abort: Abort) -> None:
    Northflank(abort=says("success", over=True)).send(abort)
    expected = {"state": "too_late", "answer": "success", "answer_status": 200}
    assert kept(abort) == ANSWERED | SETTLED | expected | {"outcome": "success"}
    assert trail(abort) == [("sent", ""), ("too_late", "success")]


def test_what_is_accepted_after_a_list_has_told_its_end(abort: Abort) -> None:
    def end() -> None:
        Run.objects.update(status="aborted", concluded=True, in_flight=False)

    Northflank(abort=says("aborted", over=True), meanwhile=end).send(abort)
    expected = {"state": "concluded", "answer_status": 200, "outcome": "aborted"}
    assert kept(abort) == ANSWERED | SETTLED | expected | {"answer": "aborted"}
    assert trail(abort) == [("sent", ""), ("accepted", "aborted"), ("concluded", "aborted")]


def settle(abort: Abort) -> None:
    Abort.objects.get(pk=abort.pk).move(
        AbortState.UNKNOWN, What.NOT_ARRIVED, db_threads.now(), settled_at=db_threads.now()
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [(says("running"), "running"), (fails(409), SAID_NO)],
)
def test_an_answer_that_comes_after_all_was_settled_is_kept_in_the_trail_only(
    abort: Abort, answer: tuple[Any, ...], told: str
) -> None:
    Northflank(abort=answer, meanwhile=lambda: settle(abort)).send(abort)
    assert kept(abort) == SENT | SETTLED | {"state": "unknown"}
    assert trail(abort) == [("sent", ""), ("not_arrived", ""), ("answered_late", told)]


# --- It was not ---------------------------------------------------------------------------------


def test_what_is_refused(abort: Abort) -> None:
    northflank = Northflank(abort=fails(409, id="e-77"))
    logs = northflank.send(abort)
    expected = {"state": "refused", "answer": SAID_NO, "answer_status": 409, "error_id": "e-77"}
    assert kept(abort) == ANSWERED | SETTLED | expected
    assert trail(abort) == [("sent", ""), ("refused", SAID_NO)]
    assert logs == [logged("settled", "warning", state="refused", by="manager", answer=SAID_NO)]
    assert northflank.asked == ["POST", "GET"]


def test_what_is_refused_without_an_id_of_the_error(abort: Abort) -> None:
    Northflank(abort=fails(403)).send(abort)
    assert "error_id" not in kept(abort)


def test_what_is_refused_while_the_run_cannot_be_read(abort: Abort) -> None:
    logs = Northflank(abort=fails(409), reading=fails(403)).send(abort)
    assert kept(abort)["state"] == "refused"
    assert logs[0] == logged("reading_failed", "info", cause="forbidden")


def test_what_is_refused_because_the_run_has_ended(abort: Abort) -> None:
    logs = Northflank(abort=fails(409, id=7), reading=says("success", over=True)).send(abort)
    expected = {"state": "too_late", "answer": SAID_NO, "answer_status": 409, "error_id": "7"}
    assert kept(abort) == ANSWERED | SETTLED | expected | {"outcome": "success"}
    assert trail(abort) == [("sent", ""), ("too_late", "success")]
    assert logs == [logged("settled", "warning", state="too_late", by="manager", answer=SAID_NO)]


def test_what_northflank_knows_no_more(abort: Abort) -> None:
    said = "Northflank knows no such thing (404): It broke"
    Northflank(abort=fails(404), reading=fails(404)).send(abort)
    expected = {"state": "too_late", "answer": said, "answer_status": 404}
    assert kept(abort) == ANSWERED | SETTLED | expected
    assert trail(abort) == [("sent", ""), ("too_late", "")]


def test_what_comes_back_for_the_rate(abort: Abort) -> None:
    headers = {
        "x-ratelimit-limit": "1000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "90",
    }  # fmt: skip
    said = "Northflank refuses requests for now (429): It broke"
    northflank = Northflank(abort=fails(429), headers=headers)
    northflank.send(abort)
    expected = {"state": "not_sent", "answer": said, "answer_status": 429, "retry_at": "then"}
    assert kept(abort) == ANSWERED | SETTLED | expected
    assert trail(abort) == [("sent", ""), ("not_sent", said)]
    told = Abort.objects.get()
    assert told.retry_at - told.settled_at == timedelta(seconds=90)
    assert northflank.asked == ["POST"]


def test_what_comes_back_for_the_rate_without_a_time(abort: Abort) -> None:
    Northflank(abort=fails(429)).send(abort)
    assert Abort.objects.get().retry_at is None


# --- Nobody knows -------------------------------------------------------------------------------


def test_what_nobody_knows_of(abort: Abort) -> None:
    northflank = Northflank(abort=fails(500, id="e-77"))
    logs = northflank.send(abort)
    expected = {"state": "unknown", "answer": SAID_BROKEN, "error_id": "e-77"}
    assert kept(abort) == SENT | expected
    assert trail(abort) == [("sent", ""), ("unknown", SAID_BROKEN)]
    assert logs == [logged("unknown", "warning", by="manager", why=SAID_BROKEN)]
    assert northflank.asked[-1] == "GET"


def test_what_nobody_knows_of_is_read_again_at_once(abort: Abort) -> None:
    logs = Northflank(abort=fails(500), reading=fails(403)).send(abort)
    assert Run.objects.get().failures == 1  # the reading was tried
    assert [line["event"] for line in logs] == ["abort.unknown", "abort.reading_failed"]
    assert logs[1] == logged("reading_failed", "info", cause="forbidden")


def test_a_run_of_whose_abort_nobody_knows_is_due(abort: Abort) -> None:
    soon = abort.requested_at + timedelta(seconds=1)
    with time_machine.travel(soon, tick=False):
        abort_send.unknown(abort, "Nobody knows.", "e-77")
    assert Run.objects.get().next_read_at == soon
    assert (abort.state, abort.answer, abort.error_id) == ("unknown", "Nobody knows.", "e-77")
    assert trail(abort) == [("unknown", "Nobody knows.")]


def test_what_has_arrived_after_all(abort: Abort) -> None:
    Northflank(abort=fails(500), reading=says("aborting")).send(abort)
    assert kept(abort) == SENT | {"state": "accepted", "answer": SAID_BROKEN}
    assert trail(abort)[1:] == [("unknown", SAID_BROKEN), ("aborting", "")]


def test_what_has_ended_before_anybody_knew(abort: Abort) -> None:
    Northflank(abort=fails(500), reading=says("aborted", over=True)).send(abort)
    expected = {"state": "concluded", "answer": SAID_BROKEN, "outcome": "aborted"}
    assert kept(abort) == SENT | SETTLED | expected
    assert trail(abort)[1:] == [("unknown", SAID_BROKEN), ("concluded", "aborted")]


def test_what_had_ended_by_a_list_before_anybody_knew(abort: Abort) -> None:
    def end() -> None:
        Run.objects.update(status="aborted", concluded=True, in_flight=False)

    over = says("aborted", over=True)
    Northflank(abort=fails(500), reading=over, meanwhile=end).send(abort)
    expected = {"state": "concluded", "answer": SAID_BROKEN, "outcome": "aborted"}
    assert kept(abort) == SENT | SETTLED | expected
    assert trail(abort)[1:] == [("unknown", SAID_BROKEN), ("concluded", "aborted")]


def in_doubt(abort: Abort, *, seen: float, sent: float | None = 0) -> None:
    """Have an abort be in doubt, and its run be seen so many seconds after the press."""
    then = abort.requested_at
    Run.objects.update(seen_at=then + timedelta(seconds=seen))
    sent_at = None if sent is None else then + timedelta(seconds=sent)
    Abort.objects.update(state="unknown", sent_at=sent_at, sendings=5)


@pytest.mark.parametrize(
    ("seen", "sent", "lost"),
    [(20, 0, False), (20.1, 0, True), (29, 10, False), (31, 10, True), (21, None, True)],
)
def test_what_did_not_arrive_is_known_soon_after_the_last_sending(
    abort: Abort, seen: float, sent: float | None, lost: bool
) -> None:
    in_doubt(abort, seen=seen, sent=sent)
    with capture_logs() as logs:
        abort_send.review(db_threads.now())
    assert trail(abort) == ([("not_arrived", "It was sent 5 times.")] if lost else [])
    assert logs == ([logged("did_not_arrive", "warning", by="manager")] if lost else [])
    assert ("settled_at" in kept(abort)) is lost
    assert kept(abort)["state"] == "unknown"


def test_a_review_leaves_what_is_clear_and_goes_on(run: Run, abort: Abort, manager: User) -> None:
    in_doubt(abort, seen=61)
    others = [
        factories.abort(factories.run(run.stage, status=status), manager, state)
        for status, state in [("running", "accepted"), ("running", "requested")]
    ]
    ended = factories.abort(factories.run(run.stage, status="success"), manager)
    gone = factories.abort(factories.run(run.stage, in_flight=False), manager)
    arrived = factories.abort(factories.run(run.stage, status="aborting"), manager, "unknown")
    abort_send.review(db_threads.now())
    assert [Abort.objects.get(pk=one.pk).state for one in others] == ["accepted", "requested"]
    outcomes = [Abort.objects.get(pk=one.pk).outcome for one in (ended, gone)]
    assert outcomes == ["success", ""]
    assert list(ended.events.values_list("what", "detail")) == [("concluded", "success")]
    assert Abort.objects.get(pk=arrived.pk).state == "accepted"
    assert list(arrived.events.values_list("what", "detail")) == [("aborting", "")]
    assert Abort.objects.get(pk=abort.pk).settled_at is not None


def test_whoever_waits_for_another_process_waits_for_that_abort_only(
    abort: Abort, manager: User
) -> None:
    other = aborts.request(factories.run(abort.run.stage), Press(manager, "Stuck"))
    Abort.objects.filter(pk=abort.pk).update(state="accepted")

    async def wait(_: Connection) -> None:
        joined = aborts.Pressed(abort, made=False)
        assert await asyncio.wait_for(aborts.answered(joined), 10) == abort.pk

    northflank = Northflank()
    northflank.let(wait)
    assert Abort.objects.get(pk=other.abort.pk).state == "requested"
    assert northflank.asked == []


# --- It is not sent -----------------------------------------------------------------------------


def test_what_has_settled_is_not_sent(abort: Abort) -> None:
    settle(abort)
    northflank = Northflank()
    northflank.send(abort)
    assert northflank.asked == []


@pytest.mark.parametrize("more", [{"sent_at": T0}, {"state": "accepted"}])
def test_what_was_sent_is_not_sent_again(abort: Abort, more: dict[str, Any]) -> None:
    Abort.objects.update(**more)
    northflank = Northflank()
    northflank.send(abort)
    assert northflank.asked == []


def test_what_is_not_allowed_any_more(abort: Abort, manager: User) -> None:
    manager.groups.clear()
    northflank = Northflank()
    logs = northflank.send(abort)
    why = "Only members of the group “Release managers” may abort runs here."
    assert kept(abort) == SETTLED | {"state": "not_sent", "answer": why}
    assert trail(abort) == [("not_sent", why)]
    assert logs == [logged("withdrawn", "warning", by="manager", why=why)]
    assert northflank.asked == []


def test_what_nobody_asks_for_any_more(abort: Abort, manager: User) -> None:
    manager.delete()
    Northflank().send(abort)
    assert kept(abort)["answer"] == "The account that asked for it exists no more."


@pytest.mark.parametrize(("late", "state"), [(0, "accepted"), (1, "not_sent")])
def test_what_could_not_be_sent_in_time(run: Run, manager: User, late: int, state: str) -> None:
    with time_machine.travel(T0, tick=False):
        abort = aborts.request(run, Press(manager, "Stuck")).abort
    with time_machine.travel(T0 + LATER + timedelta(seconds=late), tick=False):
        assert abort_send.withdrawn(abort) is (state == "not_sent")
    told = "It could not be sent in time." if late else ""
    assert Abort.objects.get().answer == told


# --- It is tried again, or aborted elsewhere ----------------------------------------------------


def again(abort: Abort, manager: User) -> Abort:
    """An abort that tries another again."""
    settle(abort)
    unsent = {"sent_at": None, "answered_at": None}
    return factories.abort(abort.run, manager, "requested", retry_of=abort, **unsent)


def test_what_is_tried_again_is_read_before(abort: Abort, manager: User) -> None:
    second = again(abort, manager)
    northflank = Northflank()
    northflank.send(second)
    assert northflank.asked == ["GET", "POST"]


def test_what_is_aborted_elsewhere_is_read_before(abort: Abort) -> None:
    Run.objects.update(status="aborting")
    northflank = Northflank()
    northflank.send(abort)
    assert northflank.asked == ["GET", "POST"]


def test_what_is_tried_again_does_not_need_the_reading(abort: Abort, manager: User) -> None:
    second = again(abort, manager)
    logs = Northflank(reading=fails(403)).send(second)
    assert logs[0] == logged("reading_failed", "info", cause="forbidden")
    assert logs[1]["event"] == "abort.accepted"


@pytest.mark.parametrize(
    ("reading", "outcome"),
    [(says("aborted", over=True), {"outcome": "aborted"}), (fails(404), {})],
)
def test_what_is_tried_again_too_late(
    abort: Abort, manager: User, reading: tuple[Any, ...], outcome: dict[str, str]
) -> None:
    second = again(abort, manager)
    northflank = Northflank(reading=reading)
    logs = northflank.send(second)
    assert kept(second) == SETTLED | {"state": "too_late"} | outcome
    assert northflank.asked == ["GET"]
    assert logs == [logged("settled", "warning", state="too_late", by="manager", answer="")]


# --- Its process has died -----------------------------------------------------------------------


@pytest.fixture
def stranded(abort: Abort) -> Abort:
    """An abort that nobody has been at for as long as a lease lasts."""
    Abort.objects.update(claimed_at=abort.claimed_at - timedelta(seconds=16))
    return Abort.objects.get()


def test_what_was_never_sent_is_adopted_and_sent(stranded: Abort) -> None:
    northflank = Northflank()
    logs = northflank.look_after()
    assert northflank.asked == ["GET", "POST"]
    assert trail(stranded) == [("adopted", ""), ("sent", ""), ("accepted", "aborting")]
    assert logs[0] == logged("adopted", "warning", by="manager")


def test_what_was_never_sent_waits_for_its_run_to_be_read(stranded: Abort) -> None:
    northflank = Northflank(reading=fails(403))
    before = db_threads.now()
    logs = northflank.look_after()
    assert northflank.asked == ["GET"]
    assert trail(stranded) == []
    assert logs[1:] == [logged("adoption_waits", "info", cause="forbidden")]
    assert Abort.objects.get().claimed_at >= before  # nobody else is at it meanwhile


@pytest.mark.parametrize(
    ("reading", "outcome"), [(says("success", over=True), "success"), (fails(404), "")]
)
def test_what_was_never_sent_to_a_run_that_has_ended(
    stranded: Abort, reading: tuple[Any, ...], outcome: str
) -> None:
    northflank = Northflank(reading=reading)
    northflank.look_after()
    assert northflank.asked == ["GET"]
    assert trail(stranded) == [("adopted", ""), ("too_late", outcome)]


def test_what_is_not_allowed_any_more_is_not_adopted(stranded: Abort, manager: User) -> None:
    manager.groups.clear()
    northflank = Northflank()
    northflank.look_after()
    assert northflank.asked == []
    assert [what for what, _ in trail(stranded)] == ["not_sent"]


def test_what_was_sent_is_adopted_as_in_doubt(stranded: Abort) -> None:
    Abort.objects.update(sent_at=stranded.requested_at)
    northflank = Northflank()
    northflank.look_after()
    why = "The process that sent it ended before the answer."
    assert northflank.asked == ["GET"]
    assert trail(stranded) == [("adopted", ""), ("unknown", why)]
    told = Abort.objects.get()
    assert (told.state, told.answer, told.error_id) == ("unknown", why, "")


def test_what_was_left_at_the_same_moment_is_adopted_each_by_itself(
    stranded: Abort, manager: User
) -> None:
    times = {"claimed_at": stranded.claimed_at, "requested_at": stranded.requested_at}
    run = factories.run(stranded.run.stage)
    factories.abort(run, manager, "requested", sent_at=None, **times)
    accepted = factories.abort(factories.run(stranded.run.stage), manager, **times)
    adopted = [line for line in Northflank().look_after() if line["event"] == "abort.adopted"]
    assert sorted(line["run"] for line in adopted) == sorted(["r1", run.run_id])
    assert Abort.objects.get(pk=accepted.pk).claimed_at == stranded.claimed_at


def test_what_somebody_is_at_is_not_adopted(abort: Abort) -> None:
    Abort.objects.update(claimed_at=abort.claimed_at - timedelta(seconds=10))
    northflank = Northflank()
    assert northflank.look_after() == []
    assert northflank.asked == []


def test_what_a_process_hands_over_is_adopted_at_once(abort: Abort) -> None:
    aborts.hand_over(abort)
    assert Abort.objects.get().claimed_at == abort.requested_at - timedelta(seconds=15)
    northflank = Northflank()
    northflank.look_after()
    assert northflank.asked == ["GET", "POST"]


@pytest.mark.parametrize(
    "more", [{"sent_at": T0}, {"state": "accepted"}, {"state": "refused", "settled_at": T0}]
)
def test_what_is_out_of_a_processs_hands_is_not_handed_over(
    abort: Abort, more: dict[str, Any]
) -> None:
    Abort.objects.update(**more)
    aborts.hand_over(abort)
    assert Abort.objects.get().claimed_at == abort.claimed_at


def test_one_that_is_handed_over_leaves_the_others(abort: Abort, manager: User) -> None:
    other = aborts.request(factories.run(abort.run.stage), Press(manager, "Stuck")).abort
    aborts.hand_over(abort)
    assert Abort.objects.get(pk=other.pk).claimed_at == other.claimed_at


def test_all_that_is_under_way_is_orphaned_and_nothing_else(abort: Abort, manager: User) -> None:
    accepted = factories.abort(factories.run(abort.run.stage), manager)
    settled = factories.abort(factories.run(abort.run.stage), manager, "requested", settled_at=T0)
    aborts.orphan_all()
    claimed = dict(Abort.objects.values_list("pk", "claimed_at"))
    assert claimed == {
        abort.pk: abort.requested_at - timedelta(seconds=15),
        accepted.pk: accepted.claimed_at,
        settled.pk: settled.claimed_at,
    }


# --- It takes too long --------------------------------------------------------------------------

AMBER, RED = timedelta(seconds=180), timedelta(seconds=600)


def looked_after(at: datetime) -> Logs:
    """Look after open aborts at a moment at which all else stands still."""
    with time_machine.travel(at, tick=False):
        return Northflank().look_after()


def levels() -> dict[str, int]:
    return dict(Run.objects.values_list("run_id", "aborting_level"))


def test_an_abort_is_told_once_at_each_level(run: Run, manager: User) -> None:
    since = factories.abort(run, manager).requested_at
    told = []
    for passed in (AMBER - timedelta(seconds=1), AMBER, AMBER, RED, RED):
        before = Run.objects.get().version
        logs = looked_after(since + passed)
        changed = Run.objects.get().version != before
        told.append((levels()["r1"], changed, [line["tone"] for line in logs]))
    assert told == [
        (0, False, []),
        (1, True, ["amber"]),
        (1, False, []),
        (2, True, ["red"]),
        (2, False, []),
    ]


def test_an_abort_that_takes_too_long_is_logged(run: Run, manager: User) -> None:
    since = factories.abort(run, manager).requested_at
    assert looked_after(since + AMBER) == [logged("overdue", "warning", tone="amber")]


def test_each_run_is_told_by_its_own_time(run: Run, manager: User) -> None:
    since = db_threads.now()
    others = {
        "ours, and aborting": {"status": "aborting", "status_since": since - RED},
        "anothers": {"status": "aborting", "status_since": since - RED},
        "anothers, amber": {"status": "aborting", "status_since": since - AMBER},
        "anothers, just begun": {"status": "aborting", "status_since": since},
        "not aborted": {"status_since": since - RED},
        "over": {"status": "success", "aborting_level": 1},
        "aborted no more": {"aborting_level": 2},
        "ours, and told before": {"aborting_level": 2},
        "anothers, and told before": {
            "status": "aborting",
            "status_since": since,
            "aborting_level": 1,
        },
        "over, and open": {"status": "success"},
        "aborting after a refusal": {"status": "aborting", "status_since": since - RED},
    }
    runs = {name: factories.run(run.stage, name, **more) for name, more in others.items()}
    factories.abort(run, manager, requested_at=since - RED)
    for name in ("ours, and aborting", "ours, and told before"):
        factories.abort(runs[name], manager, requested_at=since)
    factories.abort(runs["over, and open"], manager, "requested", requested_at=since - RED)
    settled = {"settled_at": since, "requested_at": since - RED}
    factories.abort(runs["aborting after a refusal"], manager, "refused", **settled)
    factories.abort(runs["not aborted"], manager, "refused", **settled)
    versions = dict(Run.objects.values_list("run_id", "version"))
    looked_after(since)
    assert levels() == {
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
    told = {run.run_id for run in Run.objects.all() if run.version != versions[run.run_id]}
    assert told == {
        "r1",
        "ours, and aborting",
        "anothers",
        "anothers, amber",
        "aborted no more",
        "ours, and told before",
        "anothers, and told before",
        "aborting after a refusal",
    }


# --- Another worker is faster -------------------------------------------------------------------


def faster(claim: Callable[[], object]) -> Callable[..., Any]:
    """Have another worker claim what this one is about to claim."""
    claimed = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal claimed
        if sql.startswith("UPDATE") and not claimed:
            claimed = True
            claim()
        return run(sql, *rest)

    return execute


def test_what_another_worker_has_claimed_is_not_adopted(stranded: Abort) -> None:
    at = db_threads.now()
    with connection.execute_wrapper(faster(lambda: Abort.objects.update(claimed_at=at))):
        assert abort_reconcile._adoptable(db_threads.now()) == []
    assert Abort.objects.get().claimed_at == at


# --- Lists whose process has died ---------------------------------------------------------------


@pytest.fixture
def batch(run: Run, manager: User) -> AbortBatch:
    """A list that nobody has been at for as long as a lease lasts."""
    frozen = aborts.request_many([run.pk], Press(manager, "Stuck"), uuid4())
    aborts.orphan_all()
    return frozen


async def gone_on_with(to: Connection) -> None:
    """Look after open aborts and lists, until all that are gone on with are over."""
    await aborts.look_after_open_aborts(to)
    await asyncio.gather(*bulk_abort._working.values(), return_exceptions=True)
    await asyncio.sleep(0)


def test_a_list_whose_process_has_died_is_gone_on_with(batch: AbortBatch) -> None:
    claimed = AbortBatch.objects.get().claimed_at
    assert claimed == batch.requested_at - timedelta(seconds=45)
    northflank = Northflank()
    logs = northflank.let(gone_on_with)
    assert northflank.asked == ["POST"]
    assert logs[0] == {"event": "abort.many_adopted", "log_level": "warning", "batch": batch.pk}
    assert AbortBatch.objects.get().settled_at is not None
    assert bulk_abort._working == {}


def test_a_list_that_fails_is_logged_and_left_to_whoever_comes_next(batch: AbortBatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    logs = Northflank(meanwhile=fail).let(gone_on_with)
    failed = [line for line in logs if line["event"] == "abort.many_failed"]
    assert [(line["log_level"], line["batch"]) for line in failed] == [("error", batch.pk)]
    assert isinstance(failed[0]["exc_info"], ZeroDivisionError)
    assert bulk_abort._working == {}
    assert AbortBatch.objects.get().settled_at is None


def test_a_list_without_a_pause_is_sent_though_much_later_whatever_needs_no_sending(
    run: Run, manager: User
) -> None:
    ended = factories.run(run.stage)
    with time_machine.travel(T0, tick=False):  # long ago
        frozen = aborts.request_many([ended.pk, run.pk], Press(manager, "Stuck"), uuid4())
    Run.objects.filter(pk=ended.pk).update(in_flight=False)
    northflank = Northflank()
    northflank.let(lambda to: bulk_abort.work_through(to, frozen.pk))
    assert northflank.asked == ["POST"]
    assert list(frozen.items.values_list("result", flat=True)) == ["ended", "abort"]


def test_a_list_that_is_let_go_is_let_go_at_once(batch: AbortBatch) -> None:
    async def begun_and_let_go(to: Connection) -> None:
        await bulk_abort.adopt_batches(to)
        assert list(bulk_abort._working) == [batch.pk]
        await aborts.let_go()
        assert bulk_abort._working == {}

    northflank = Northflank()
    northflank.let(begun_and_let_go)
    assert northflank.asked == []


def test_a_list_that_is_settled_or_claimed_is_left_alone(batch: AbortBatch) -> None:
    AbortBatch.objects.update(claimed_at=db_threads.now() - timedelta(seconds=40))
    assert Northflank().let(gone_on_with) == []
    AbortBatch.objects.update(settled_at=db_threads.now())
    aborts.orphan_all()
    assert AbortBatch.objects.get().claimed_at > batch.requested_at - timedelta(seconds=45)
    assert Northflank().let(gone_on_with) == []


def test_a_list_that_another_worker_has_claimed_is_not_gone_on_with(batch: AbortBatch) -> None:
    at = db_threads.now()
    with connection.execute_wrapper(faster(lambda: AbortBatch.objects.update(claimed_at=at))):
        assert bulk_abort._adoptable(db_threads.now()) == []
    assert AbortBatch.objects.get().claimed_at == at
