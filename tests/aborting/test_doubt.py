"""Aborts whose answer never came: the truth at once, and in the end."""

import socket

import pytest
from django.contrib.auth.models import User

from dashboard.models import Abort, Run
from dashboard.northflank import NorthflankClient
from dashboard.sandbox import parse_fault
from tests.support.flights import (
    ask_with,
    impatient,
    in_flight,
    long_ago,
    look_after,
    notice,
    pass_time,
    press,
    read,
    story,
)
from tests.support.live import Live


def test_a_timeout_of_an_abort_that_arrived_ends_as_accepted(live: Live, manager: User) -> None:
    run = in_flight(live)
    impatient(live)
    live.sandbox.faults = [parse_fault("abort-timeout:5")]
    said = notice(press(live.person("manager"), run))
    abort = Abort.objects.get()
    assert abort.state == "accepted"
    assert abort.answered_at is None
    assert said.startswith("Abort accepted; aborting since ")
    pass_time(live, 10)
    read(live, run)
    assert Abort.objects.get().outcome == "aborted"
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_a_timeout_of_an_abort_that_was_lost_is_checked_and_then_told(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    impatient(live)
    live.sandbox.faults = [parse_fault("abort-lost:5")]
    person = live.person("manager")
    said = notice(press(person, run))
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert said == (
        "The abort may not have arrived. Northflank did not answer within 0.4 seconds. "
        "It is sent again if the run goes on: sent 1 of at most 5 times."
    )
    assert "is sent again" in notice(press(person, run))
    Abort.objects.update(sendings=5)
    long_ago(abort, requested_at=70, claimed_at=70, sent_at=70)
    read(live, run)
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("unknown", "")
    assert abort.settled_at is not None
    assert "seems not to have arrived" in story()
    assert live.sandbox.abort_posts[run.run_id] == 1
    live.sandbox.faults = []
    assert "accepted" in notice(press(person, run))
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_an_abort_is_not_given_up_while_northflank_says_nothing_of_the_run(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    impatient(live)
    live.sandbox.faults = [parse_fault("abort-lost:5"), parse_fault("503@GET")]
    press(live.person("manager"), run)
    abort = Abort.objects.get()
    # A minute has passed, and all that was heard of the run is from just after the abort.
    long_ago(abort, requested_at=70, claimed_at=70, sent_at=70)
    Run.objects.update(seen_at=Abort.objects.get().sent_at)
    look_after(live)
    abort.refresh_from_db()
    assert (abort.state, abort.settled_at) == ("unknown", None)


def test_an_unanswered_abort_whose_run_ends_is_told_with_its_end(live: Live, manager: User) -> None:
    run = in_flight(live)
    impatient(live)
    live.sandbox.faults = [parse_fault("abort-lost:5")]
    press(live.person("manager"), run)
    pass_time(live, 3600)
    row = read(live, run)
    assert row.concluded
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome) == ("concluded", row.status)
    assert "No answer to the abort had come back." in story() or row.status == "aborted"


@pytest.mark.parametrize("fault", ["reset-after*1@/abort", "truncated*1@/abort"])
def test_a_connection_that_breaks_after_the_abort_arrived_ends_as_accepted(
    live: Live, manager: User, fault: str
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault(fault)]
    assert "accepted" in notice(press(live.person("manager"), run))
    assert live.sandbox.abort_posts[run.run_id] == 1
    assert Run.objects.get().status == "aborting"


@pytest.mark.parametrize(
    "fault", ["reset@/abort", "500@/abort", "503@/abort", "502-html@/abort", "error-string@/abort"]
)
def test_a_failure_of_which_nobody_knows_what_it_did_is_in_doubt(
    live: Live, manager: User, fault: str
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault(fault)]
    said = notice(press(live.person("manager"), run))
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert said.startswith("The abort may not have arrived. ")
    assert "<" not in said
    look_after(live)
    assert Abort.objects.get().settled_at is None
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_a_refused_connection_certainly_sent_nothing(live: Live, manager: User) -> None:
    run = in_flight(live)
    with socket.create_server(("127.0.0.1", 0)) as place:
        nobody = f"http://127.0.0.1:{place.getsockname()[1]}"
    ask_with(live, NorthflankClient("sandbox", base_url=nobody))
    said = notice(press(live.person("manager"), run))
    abort = Abort.objects.get()
    assert (abort.state, abort.retry_at) == ("not_sent", None)
    assert abort.settled_at is not None
    assert said == "Not sent: Northflank cannot be reached."
    assert live.sandbox.abort_posts[run.run_id] == 0
