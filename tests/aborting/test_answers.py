"""What Northflank answers to an abort, and what people are told of it."""

import pytest
from django.contrib.auth.models import User

from dashboard.aborts import bulk_messages as bulk_abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts.permissions import Verdict
from dashboard.models import Abort, Budget, Run, Stage
from dashboard.models.bulk_aborts import ItemResult
from dashboard.sandbox import parse_fault
from dashboard.web.components import abort_log, run_row
from tests.support.flights import (
    SEARCH,
    in_flight,
    look_after,
    notice,
    pass_time,
    press,
    read,
    story,
    vanish,
)
from tests.support.live import Live


def test_an_abort_is_accepted_and_followed_to_its_end(live: Live, manager: User) -> None:
    run = in_flight(live)
    said = notice(press(live.person("manager"), run, reason="  wrong\n build "))
    abort = Abort.objects.get()
    assert said == story()
    assert said.startswith("Abort accepted; aborting since ")
    assert (abort.state, abort.username, abort.reason) == ("accepted", "manager", "wrong build")
    assert abort.client_address == "127.0.0.1"
    assert abort.answer_status == 200
    assert abort.requested_at <= abort.sent_at <= abort.answered_at
    assert Run.objects.get().status == "aborting"
    pass_time(live, 10)
    assert read(live, run).status == "aborted"
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("concluded", "aborted")
    assert story().startswith("Aborted after ")
    assert live.sandbox.abort_posts == {run.run_id: 1}


def test_a_run_of_a_stage_that_was_never_read_is_aborted_too(live: Live, manager: User) -> None:
    run = in_flight(live)  # found by its address, say
    Stage.objects.update(path="", has_flow=None)
    assert "accepted" in notice(press(live.person("manager"), run))
    assert read(live, run).status == "aborting"


def test_the_followed_run_is_due_at_once_and_again_soon(live: Live, manager: User) -> None:
    run = in_flight(live)
    press(live.person("manager"), run)
    abort, row = Abort.objects.get(), Run.objects.get()
    assert row.next_read_at is not None
    assert (row.next_read_at - abort.answered_at).total_seconds() < 3


def test_an_answer_that_shows_the_run_unchanged_is_no_end(live: Live, manager: User) -> None:
    live.sandbox.choices["abort-answer"] = "unchanged"
    run = in_flight(live)
    said = notice(press(live.person("manager"), run))
    assert "accepted" in said
    assert Abort.objects.get().state == "accepted"
    assert Run.objects.get().status not in {"aborting", "aborted"}
    assert read(live, run).status == "aborting"
    pass_time(live, 10)
    read(live, run)
    assert Abort.objects.get().outcome == "aborted"


def test_an_answer_that_shows_the_run_aborted_settles_it(live: Live, manager: User) -> None:
    live.sandbox.choices["abort-answer"] = "aborted"
    run = in_flight(live)
    assert notice(press(live.person("manager"), run)).startswith("Aborted after ")
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome) == ("concluded", "aborted")
    assert Run.objects.get().in_flight is False


@pytest.mark.parametrize(
    ("chances", "outcome"), [((1 / 3, 2 / 3), "success"), ((2 / 3, 1), "failure")]
)
def test_a_run_may_end_otherwise_in_spite_of_the_abort(
    live: Live, manager: User, chances: tuple[float, float], outcome: str
) -> None:
    run = in_flight(live, SEARCH, wanted=lambda chance: chances[0] < chance < chances[1])
    pass_time(live, 60)  # by now it has started, so that it can go on
    notice(press(live.person("manager"), run))
    pass_time(live, 30)
    assert read(live, run).status == outcome
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome) == ("concluded", outcome)
    assert story().startswith("Not stopped: the run ended as ")
    assert "No answer" not in story()


def test_an_abort_that_takes_minutes_stays_open(live: Live, manager: User) -> None:
    run = in_flight(live, SEARCH, wanted=lambda chance: chance < 1 / 3)
    pass_time(live, 60)
    notice(press(live.person("manager"), run))
    pass_time(live, 200)
    assert read(live, run).status == "aborting"
    assert Abort.objects.get().settled_at is None
    assert story().startswith("Abort accepted; ")


@pytest.mark.parametrize("answered", ["200", "400", "404", "409"])
def test_a_run_that_had_ended_was_aborted_too_late(
    live: Live, manager: User, answered: str
) -> None:
    live.sandbox.choices["abort-concluded"] = answered
    run = in_flight(live, wanted=None)
    life = live.sandbox.world.run(
        live.sandbox.world.flow("payments", "ledger", "Staging"), run.run_id, live.sandbox.clock()
    )
    pass_time(live, life.concluded - live.sandbox.clock() + 1)
    said = notice(press(live.person("manager"), run))
    row, abort = Run.objects.get(), Abort.objects.get()
    assert row.concluded
    assert (abort.state, abort.outcome) == ("too_late", row.status)
    assert abort.answer_status == int(answered)
    assert said.startswith("Finished before the abort arrived: the run had ended as ")
    assert abort.settled_at is not None


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("forbidden:payments@/abort", 403, "lacks the permission"),
        ("bad-token@/abort", 401, "does not accept the API token"),
        ("feature-401@/abort", 401, "has not enabled this for the account"),
        ("error-without-wrapper:400@/abort", 400, "It broke"),
        ("404@/abort", 404, "Not found"),
        ("error-string:409@/abort", 409, "It broke"),
        ("error-string:422@/abort", 422, "It broke"),
    ],
)
def test_a_refusal_is_told_in_northflanks_words(
    live: Live, manager: User, fault: str, status: int, words: str
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault(fault)]
    said = notice(press(live.person("manager"), run))
    abort = Abort.objects.get()
    assert (abort.state, abort.answer_status) == ("refused", status)
    assert said.startswith("Northflank refused")
    assert words in said
    assert abort.settled_at is not None
    assert ("GET", api_path(run)) in live.sandbox.requests  # read again before anything is said
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_a_refusal_by_a_northflank_that_refuses_everything_is_told_too(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("bad-token")]
    assert "refused" in notice(press(live.person("manager"), run))
    assert Run.objects.get().in_flight


def test_an_abort_of_a_run_that_northflank_no_longer_knows_is_too_late(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    vanish(live, run.run_id)
    notice(press(live.person("manager"), run))
    assert Abort.objects.get().state == "too_late"
    assert story() == "Northflank knew the run no more when the abort arrived."
    row = Run.objects.with_place().get()
    assert row.gone_at is not None
    assert row.in_flight  # until somebody dismisses it
    # The same in all places: no word of a run that goes on, or of one that had ended.
    act = Abort.objects.get()
    assert run_row.row(row, Verdict(True), act).word == "Gone"
    assert abort_log.KINDS[abort_log.kind(act)].word == "Gone from Northflank"
    assert bulk_abort_messages.of(ItemResult.ABORT, row, act, "").word == "Gone from Northflank"
    told = [line.text for line in abort_timeline.lines(act, act.events.all())]
    assert told[-1] == "Northflank knew the run no more."


def test_after_a_refusal_a_new_press_is_sent(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    live.sandbox.faults = [parse_fault("error-string:409*1@/abort")]
    press(person, run)
    assert "accepted" in notice(press(person, run))
    assert sorted(Abort.objects.values_list("state", flat=True)) == ["accepted", "refused"]


def test_a_used_up_rate_limit_is_told_with_its_end(live: Live, manager: User) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("rate-limited@/abort")]
    said = notice(press(live.person("manager"), run))
    abort = Abort.objects.get()
    assert abort.state == "not_sent"
    assert abort.retry_at is not None
    assert said.startswith("Not sent: Northflank asked for a pause until ")
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_a_429_without_a_time_promises_none(live: Live, manager: User) -> None:
    live.sandbox.choices["rate-limit-headers"] = "absent"
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("rate-limited@/abort")]
    assert "until" not in notice(press(live.person("manager"), run))
    assert Abort.objects.get().retry_at is None


def test_a_budget_at_its_reserve_lets_an_abort_out(live: Live, manager: User) -> None:
    run = in_flight(live)
    Budget.objects.update(remaining=1, limit=1000)
    assert "accepted" in notice(press(live.person("manager"), run))
    pass_time(live, 10)
    Run.objects.update(next_read_at=Abort.objects.get().answered_at)
    Budget.objects.update(remaining=60, limit=1000)  # below the reserve of 100
    live.run(live.worker.tick)
    live.run(live.worker.idle)
    assert Abort.objects.get().outcome == "aborted"


@pytest.mark.parametrize("fault", ["not-json", "empty-body", "missing-fields:status,concluded"])
def test_a_2xx_that_cannot_be_read_is_accepted_once_the_run_says_so(
    live: Live, manager: User, fault: str
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault(f"{fault}@/abort"), parse_fault("503@GET")]
    said = notice(press(live.person("manager"), run))
    assert said.startswith("The abort may not have arrived. Northflank's answer ")
    abort = Abort.objects.get()
    assert (abort.state, abort.answer_status) == ("unknown", None)
    live.sandbox.faults = []
    assert read(live, run).status == "aborting"
    assert Abort.objects.get().state == "accepted"
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_an_accepted_run_that_vanishes_is_not_left_open(live: Live, manager: User) -> None:
    run = in_flight(live)
    press(live.person("manager"), run)
    vanish(live, run.run_id)
    read(live, run)
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome) == ("concluded", "")
    assert "knows the run no more" in story()
    assert "borted" not in story()


def test_looking_after_settled_aborts_asks_northflank_nothing(live: Live, manager: User) -> None:
    live.sandbox.choices["abort-answer"] = "aborted"
    run = in_flight(live)
    press(live.person("manager"), run)
    asked = len(live.sandbox.requests)
    look_after(live)
    assert len(live.sandbox.requests) == asked


def api_path(run: Run) -> str:
    stage = run.stage
    return (
        f"/v1/projects/{stage.pipeline.project.slug}/pipelines/{stage.pipeline.slug}"
        f"/release-flows/{stage.path}/runs/{run.run_id}"
    )
