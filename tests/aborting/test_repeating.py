"""Aborts that may not have arrived: sent again by themselves, within limits, and told."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection

from dashboard import aborts
from dashboard.aborts import Press, resend_policy
from dashboard.aborts import bulk as bulk_abort
from dashboard.aborts import reconcile as abort_reconcile
from dashboard.aborts import resend as abort_resend
from dashboard.aborts import send as abort_send
from dashboard.aborts.request import LEASE
from dashboard.db import threads as db_threads
from dashboard.db.threads import now
from dashboard.models import Abort, Budget, Run
from dashboard.models.aborts import What
from dashboard.northflank import NorthflankClient
from dashboard.sandbox import parse_fault
from dashboard.web.components import run_row
from tests.support import factories
from tests.support.flights import (
    ask_with,
    impatient,
    in_flight,
    long_ago,
    look_after,
    notice,
    path,
    press,
    read,
    story,
    unguarded,
)
from tests.support.live import Live


def lost(live: Live, manager: User, fault: str = "503*1@/abort") -> Run:
    """A run whose abort was sent once, and of which nobody knows whether it arrived."""
    run = in_flight(live)
    live.sandbox.faults = [parse_fault(fault)]
    press(live.person("manager"), run)
    assert Abort.objects.get().state == "unknown"
    return run


def rested(seconds: float = 20) -> None:
    """Have so much time pass for the acts in doubt, by which none of them has been settled."""
    for abort in Abort.objects.open().filter(state="unknown"):
        long_ago(abort, claimed_at=seconds)


def sendings() -> list[str]:
    return [str(number or 1) for number in lines(What.SENT)]


def lines(what: What) -> list[str]:
    found = Abort.objects.latest("pk").events.filter(what=what)
    return list(found.values_list("detail", flat=True))


@pytest.mark.parametrize("fault", ["503*1@/abort", "reset*1@/abort", "502-html*1@/abort"])
def test_an_abort_that_did_not_arrive_is_sent_again_by_itself(
    live: Live, manager: User, fault: str
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault(fault), parse_fault("503@GET")]
    press(live.person("manager"), run)
    live.sandbox.faults = []
    rested()
    look_after(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.sendings) == ("accepted", 2)
    assert sendings() == ["1", "2"]
    assert live.sandbox.abort_posts[run.run_id] == 2
    assert Run.objects.get().status == "aborting"


def test_it_rests_before_it_is_sent_again(live: Live, manager: User) -> None:
    run = lost(live, manager)
    look_after(live)
    assert live.sandbox.abort_posts[run.run_id] == 1


@pytest.mark.parametrize(("number", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (9, 8)])
def test_each_rest_is_longer_up_to_the_last(number: int, seconds: int) -> None:
    assert resend_policy.pause(number) == timedelta(seconds=seconds)


def test_it_is_not_sent_again_where_the_run_is_aborting_after_all(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("reset-after*1@/abort"), parse_fault("503*3@GET")]
    press(live.person("manager"), run)
    live.sandbox.faults = []
    rested()
    look_after(live)
    assert Abort.objects.get().state == "accepted"
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_it_is_not_sent_again_while_the_run_cannot_be_read(live: Live, manager: User) -> None:
    run = lost(live, manager)
    live.sandbox.faults = [parse_fault("503@GET")]
    rested()
    look_after(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.sendings) == ("unknown", 1)
    assert now() - abort.claimed_at < timedelta(seconds=10)  # it rests again
    assert live.sandbox.abort_posts[run.run_id] == 1


def fruitless(live: Live, run: Run, times: int) -> None:
    """Look after an abort that never arrives, so many times."""
    live.sandbox.faults = [parse_fault("503@/abort")]
    for _ in range(times):
        rested()
        look_after(live)


def test_it_is_sent_five_times_and_then_needs_attention(live: Live, manager: User) -> None:
    run = lost(live, manager)
    fruitless(live, run, 7)
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at, abort.sendings) == ("unknown", None, 5)
    assert sendings() == ["1", "2", "3", "4", "5"]
    assert live.sandbox.abort_posts[run.run_id] == 5
    long_ago(abort, sent_at=25)
    row = read(live, run)
    abort.refresh_from_db()
    assert abort.settled_at is not None
    assert lines(What.NOT_ARRIVED) == ["It was sent 5 times."]
    assert story() == (
        "The abort was sent 5 times, and the run went on: it seems not to have arrived. "
        "You can try again."
    )
    assert row.aborting_level == 2
    look_after(live)
    assert Run.objects.get().aborting_level == 2  # until somebody sees to it


def test_a_new_press_makes_it_calm_and_begins_anew(live: Live, manager: User) -> None:
    run = lost(live, manager)
    Abort.objects.update(sendings=5)
    long_ago(Abort.objects.get(), sent_at=25)
    read(live, run)
    assert Run.objects.get().aborting_level == 2
    live.sandbox.faults = []
    assert "accepted" in notice(press(live.person("manager"), run))
    look_after(live)
    assert Run.objects.get().aborting_level == 0
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_a_run_that_is_aborting_after_all_needs_no_attention(live: Live, manager: User) -> None:
    run = lost(live, manager)
    Abort.objects.update(sendings=5)
    long_ago(Abort.objects.get(), sent_at=25)
    assert read(live, run).aborting_level == 2
    Run.objects.update(status="aborting", status_since=now())
    look_after(live)
    assert Run.objects.get().aborting_level == 0


def aged(seconds: float) -> None:
    """Have the open act have been sent for the first time so long ago."""
    abort = Abort.objects.get()
    by = timedelta(seconds=seconds)
    with unguarded():
        for event in abort.events.all():
            type(event).objects.filter(pk=event.pk).update(at=event.at - by)
    long_ago(abort, requested_at=seconds, sent_at=seconds, claimed_at=seconds)


@pytest.mark.parametrize(("seconds", "again"), [(100, True), (121, False)])
def test_it_is_sent_again_within_two_minutes(
    live: Live, manager: User, seconds: float, again: bool
) -> None:
    run = lost(live, manager)
    aged(seconds)
    read(live, run)
    assert live.sandbox.abort_posts[run.run_id] == (2 if again else 1)
    if not again:
        assert lines(What.NOT_ARRIVED) == ["Too much time has passed."]


def test_after_two_minutes_without_a_word_of_the_run_somebody_is_wanted(
    live: Live, manager: User
) -> None:
    run = lost(live, manager)
    live.sandbox.faults = [parse_fault("503")]
    Run.objects.update(seen_at=now() - timedelta(seconds=200))
    aged(125)
    look_after(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert Run.objects.get().aborting_level == 2
    assert story().endswith("It is not sent again by itself. You can try again.")
    assert aborts.may_try_again(abort, now())
    live.sandbox.faults = []
    again = aborts.request(Run.objects.with_place().get(), Press(manager), again=abort.pk)
    assert again.made
    live.run(lambda: aborts.answered(again))
    assert Abort.objects.get(pk=again.abort.pk).state == "accepted"
    assert live.sandbox.abort_posts[run.run_id] == 2


# --- Whoever may no more ------------------------------------------------------------------------


@pytest.mark.parametrize("switch", [{"READ_ONLY": True}, {"ABORTS_ENABLED": False}])
def test_switches_are_looked_at_before_each_sending(
    live: Live, manager: User, settings: Any, switch: dict[str, bool]
) -> None:
    run = lost(live, manager)
    for name, value in switch.items():
        setattr(settings, name, value)
    never_again(live, run)


def test_rights_are_looked_at_before_each_sending(live: Live, manager: User) -> None:
    run = lost(live, manager)
    manager.groups.clear()
    never_again(live, run)


def test_an_account_that_is_not_active_any_more_sends_nothing(live: Live, manager: User) -> None:
    run = lost(live, manager)
    User.objects.update(is_active=False)
    never_again(live, run)
    assert lines(What.NOT_ARRIVED) == ["The account that asked for it is not active any more."]


def never_again(live: Live, run: Run) -> None:
    rested()
    look_after(live)
    assert live.sandbox.abort_posts[run.run_id] == 1
    long_ago(Abort.objects.get(), sent_at=25)
    read(live, run)
    abort = Abort.objects.get()
    assert (abort.state, abort.sendings) == ("unknown", 1)
    assert abort.settled_at is not None
    assert len(lines(What.NOT_ARRIVED)) == 1


def test_an_account_that_is_not_active_any_more_sends_not_even_once(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    pressed = aborts.request(run, Press(manager))
    User.objects.update(is_active=False)
    live.run(lambda: aborts.answered(pressed))
    assert Abort.objects.get().state == "not_sent"
    assert live.sandbox.abort_posts[run.run_id] == 0


# --- What the hour has left ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "sent"),
    [(26, 2), (25, 1)],  # of a reserve of 100 the last quarter is for single aborts
)
def test_a_bulk_act_repeats_only_down_to_the_bulks_floor(
    live: Live, manager: User, remaining: int, sent: int
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("503*1@/abort")]
    frozen = aborts.request_many([run.pk], Press(manager, "Stuck"), uuid4())
    live.run(lambda: bulk_abort.work_through(live.connection, frozen.pk))
    assert Abort.objects.get().state == "unknown"
    Budget.objects.update(remaining=remaining, limit=1000)
    rested()
    look_after(live)
    assert live.sandbox.abort_posts[run.run_id] == sent


def test_a_single_act_repeats_whatever_is_left(live: Live, manager: User) -> None:
    run = lost(live, manager)
    Budget.objects.update(remaining=2, limit=1000)
    rested()
    look_after(live)
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_nothing_is_sent_again_while_northflank_takes_no_requests(
    live: Live, manager: User
) -> None:
    run = lost(live, manager)
    Budget.objects.update(refused_until=now() + timedelta(seconds=30))
    rested()
    look_after(live)
    assert live.sandbox.abort_posts[run.run_id] == 1


# --- What is answered to a later sending --------------------------------------------------------


@pytest.mark.parametrize("fault", ["rate-limited@/abort", "503@/abort"])
def test_one_that_may_have_arrived_is_never_said_not_to_have_been_sent(
    live: Live, manager: User, fault: str
) -> None:
    lost(live, manager)
    live.sandbox.faults = [parse_fault(fault)]
    rested()
    look_after(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at, abort.sendings) == ("unknown", None, 2)


def test_a_later_connection_that_is_never_made_leaves_the_doubt(live: Live, manager: User) -> None:
    run = lost(live, manager)
    rested()
    claimed = abort_resend.due(now())[0]
    ask_with(live, NorthflankClient("sandbox", base_url="http://127.0.0.1:9"))
    live.run(lambda: abort_send.deliver(live.connection, claimed))
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at, abort.sendings) == ("unknown", None, 2)
    assert live.sandbox.abort_posts[run.run_id] == 1


def refuses_as(live: Live, status: str, *, concluded: bool) -> Callable[[], None]:
    """Have the run be aborting, or over, between its reading and the next sending."""

    def change() -> None:
        run = Run.objects.get()
        flow = live.sandbox.world.flow("payments", "ledger", "Staging")
        assert flow is not None
        live.sandbox.world.abort(flow, run.run_id, live.sandbox.clock(), at_once=concluded)

    return change


@pytest.mark.parametrize(
    ("at_once", "state", "outcome"), [(False, "accepted", ""), (True, "concluded", "aborted")]
)
def test_a_later_sending_that_is_refused_because_the_goal_is_reached_has_reached_it(
    live: Live, manager: User, at_once: bool, state: str, outcome: str
) -> None:
    run = lost(live, manager)
    rested()
    claimed = abort_resend.due(now())[0]
    refuses_as(live, "", concluded=at_once)()
    live.sandbox.faults = [parse_fault("error-string:409@/abort")]
    live.run(lambda: abort_send.deliver(live.connection, claimed))
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome, abort.answer_status) == (state, outcome, 409)
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_a_first_sending_that_is_refused_as_aborting_already_has_reached_its_goal(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    refuses_as(live, "", concluded=False)()
    live.sandbox.faults = [parse_fault("error-string:409@/abort")]
    said = notice(press(live.person("manager"), run))
    assert said.startswith("The run was being aborted already, since ")
    assert Abort.objects.get().state == "accepted"


def test_one_that_tries_another_again_is_said_to_be_sent_again(live: Live, manager: User) -> None:
    lost(live, manager)
    Run.objects.update(aborting_level=2)
    abort = Abort.objects.get()
    abort.begun_at = now() - timedelta(minutes=20)
    assert story(abort).endswith("It is sent again if the run goes on: sent 1 of at most 5 times.")


# --- Whoever presses, and whichever process sends -----------------------------------------------


def test_a_press_meanwhile_is_told_what_is_under_way_and_hurries_it(
    live: Live, manager: User
) -> None:
    run = lost(live, manager)
    row = Run.objects.with_place().get()
    assert run_row.row(row, run_row.Verdict(True), Abort.objects.get()).abortable
    said = notice(press(live.person("manager"), run))
    assert said.endswith("It is sent again if the run goes on: sent 1 of at most 5 times.")
    assert live.sandbox.abort_posts[run.run_id] == 1
    look_after(live)  # without a rest
    assert live.sandbox.abort_posts[run.run_id] == 2
    assert Abort.objects.count() == 1


def test_whoever_presses_meanwhile_is_asked_as_ever_and_sees_what_is_under_way(
    live: Live, manager: User
) -> None:
    run = lost(live, manager)
    asked = live.person("manager").get(path(run)).text
    assert "The abort may not have arrived." in asked
    assert 'method="post"' in asked
    assert 'name="again"' not in asked


def test_a_press_while_somebody_reads_the_run_takes_nothing_from_him(
    live: Live, manager: User
) -> None:
    run = lost(live, manager)
    rested()
    claimed = abort_resend.due(now())[0]
    aborts.request(Run.objects.with_place().get(), Press(manager))
    assert abort_resend.due(now()) == []
    live.run(lambda: abort_resend.repeat(live.connection, claimed))
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_of_several_workers_one_sends_again(live: Live, manager: User) -> None:
    run = lost(live, manager)
    rested()

    async def all_look() -> None:
        chores = (aborts.look_after_open_aborts(live.connection) for _ in range(4))
        await asyncio.gather(*chores)

    live.run(all_look)
    assert live.sandbox.abort_posts[run.run_id] == 2
    assert sendings() == ["1", "2"]


def test_of_two_that_have_read_the_run_one_sends(live: Live, manager: User) -> None:
    run = lost(live, manager)
    rested()
    first = abort_resend.due(now())[0]
    rested(60)  # it has stood still for longer than it may
    second = abort_resend.due(now())[0]
    for claimed in (second, first):
        live.run(lambda claimed=claimed: abort_resend.repeat(live.connection, claimed))
    assert live.sandbox.abort_posts[run.run_id] == 2
    assert sendings() == ["1", "2"]


def test_a_process_that_stood_still_past_its_claim_sends_nothing(live: Live, manager: User) -> None:
    run = lost(live, manager)
    rested()
    claimed = abort_resend.due(now())[0]
    db_threads.set_clock(timedelta(seconds=30))
    try:
        live.run(lambda: abort_resend.repeat(live.connection, claimed))
    finally:
        db_threads.set_clock(timedelta())
    assert live.sandbox.abort_posts[run.run_id] == 1


@pytest.mark.parametrize("state", ["unknown", "requested"])
def test_a_clock_that_was_set_back_holds_up_nothing(live: Live, manager: User, state: str) -> None:
    run = lost(live, manager)
    Abort.objects.update(state=state, claimed_at=now() + timedelta(hours=1))
    look_after(live)
    rested()
    look_after(live)
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_a_process_that_stood_still_before_its_first_sending_sends_nothing(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    pressed = aborts.request(run, Press(manager))
    db_threads.set_clock(LEASE)
    try:
        live.run(lambda: aborts.send(live.connection, pressed.abort.pk))
    finally:
        db_threads.set_clock(timedelta())
    assert Abort.objects.get().state == "requested"
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_a_process_that_stood_still_after_it_marked_an_act_as_sent_sends_nothing(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    act = aborts.request(run, Press(manager)).abort
    all_of_it_has_passed = -1.0
    live.run(lambda: abort_send.deliver(live.connection, act, within=all_of_it_has_passed))
    abort = Abort.objects.get()
    assert (abort.state, abort.sendings) == ("unknown", 1)  # and it is sent again
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_what_came_of_an_earlier_sending_is_of_no_account_for_a_later_one(
    live: Live, manager: User
) -> None:
    lost(live, manager)
    earlier = Abort.objects.get()
    Abort.objects.update(state="requested", sendings=2)
    abort_send.unknown(earlier, "Too late.")
    assert Abort.objects.get().state == "requested"


def test_another_worker_that_is_faster_claims_it(db: None, manager: User) -> None:
    abort = factories.abort(factories.run(factories.stage("Staging")), manager, "unknown")
    Abort.objects.update(sendings=1)
    at = now() + timedelta(seconds=60)

    def faster(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            with connection.execute_wrapper(lambda run, sql, *rest: run(sql, *rest)):
                run(f"UPDATE dashboard_abort SET claimed_at = '{later(at)}'", None, *rest[1:])
        return run(sql, *rest)

    with connection.execute_wrapper(faster):
        assert abort_resend.due(now() + timedelta(seconds=30)) == []
    assert Abort.objects.get(pk=abort.pk).state == "unknown"


def later(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S.%f}"


# --- The person is told soon --------------------------------------------------------------------


def test_whoever_waits_is_told_of_a_failure_though_the_run_cannot_be_read(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    impatient(live, 30)
    live.sandbox.faults = [parse_fault("503@/abort"), parse_fault("latency:20@GET")]
    said = notice(press(live.person("manager"), run))  # which waits for less than that
    assert said.startswith("The abort may not have arrived. ")


def test_one_that_waits_for_northflank_holds_up_no_other(live: Live, manager: User) -> None:
    slow, quick = in_flight(live), in_flight(live)
    live.sandbox.faults = [parse_fault("503*2@/abort")]
    for run in (slow, quick):
        press(live.person("manager"), run)
    live.sandbox.faults = [parse_fault(f"latency:8@{slow.run_id}")]
    rested()

    async def look_twice() -> None:
        doubtful = Abort.objects.open().filter(state="unknown", run=quick)
        await db_threads.in_database(doubtful.update, claimed_at=now())  # its rest is not over
        await aborts.keep_looking(live.connection, 0.2)
        long_before = now() - timedelta(seconds=20)
        await db_threads.in_database(doubtful.update, claimed_at=long_before)
        await aborts.keep_looking(live.connection, 5)
        await aborts.let_go()

    live.run(look_twice)
    assert live.sandbox.abort_posts == {slow.run_id: 1, quick.run_id: 2}
    assert abort_reconcile._looks == set()
