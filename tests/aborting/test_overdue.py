"""Aborts that take too long: told in time and once, and tried again without harm."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from dashboard import aborts
from dashboard.aborts import Press
from dashboard.aborts import severity as abort_severity
from dashboard.aborts.severity import Level
from dashboard.db.threads import now
from dashboard.models import Abort, Run
from dashboard.models.aborts import What
from dashboard.sandbox import parse_fault
from tests.support.flights import (
    LEDGER,
    flow,
    in_flight,
    long_ago,
    look_after,
    mirrored,
    pass_time,
    read,
    started,
    story,
)
from tests.support.live import Live

AMBER, RED = 3 * 60, 10 * 60  # seconds, as the settings come


@pytest.mark.parametrize(
    ("seconds", "level"),
    [
        (-5, Level.CALM), (0, Level.CALM), (AMBER - 1, Level.CALM), (AMBER, Level.AMBER),
        (RED - 1, Level.AMBER), (RED, Level.RED), (30 * 24 * 3600, Level.RED),
    ],
)  # fmt: skip
def test_it_is_amber_from_three_minutes_and_red_from_ten(seconds: int, level: Level) -> None:
    assert abort_severity.level(now() - timedelta(seconds=seconds), now()) is level


def test_the_thresholds_can_be_set(settings: Any) -> None:
    settings.ABORT_AMBER_AFTER, settings.ABORT_RED_AFTER = 5, 20
    levels = [abort_severity.level(now() - timedelta(seconds=by), now()) for by in (4, 6, 21)]
    assert levels == [Level.CALM, Level.AMBER, Level.RED]


def aborting_run(live: Live, manager: User) -> tuple[Run, Abort]:
    """A run whose abort was accepted, and goes on and on."""
    live.sandbox.choices["abort-seconds"] = "10000"
    run = in_flight(live)
    pressed = aborts.request(run, Press(manager))
    live.run(lambda: aborts.answered(pressed))
    return run, Abort.objects.get()


def age(abort: Abort, seconds: float) -> None:
    """Have an act been asked for, sent and answered so many seconds ago."""
    abort.refresh_from_db()
    by = seconds - (now() - abort.requested_at).total_seconds()
    long_ago(abort, requested_at=by, claimed_at=by, sent_at=by, answered_at=by)


def told(live: Live, run: Run) -> tuple[int, bool]:
    """Look after aborts; return the run's level, and whether it got a new version."""
    before = Run.objects.get(pk=run.pk).version
    look_after(live)
    after = Run.objects.get(pk=run.pk)
    return after.aborting_level, after.version != before


def test_an_overdue_abort_is_told_once_at_each_level(live: Live, manager: User) -> None:
    run, abort = aborting_run(live, manager)
    said = []
    for seconds in (AMBER - 5, AMBER + 1, AMBER + 2, RED - 5, RED + 1, RED + 2):
        age(abort, seconds)
        said.append(told(live, run))
    assert said == [(0, False), (1, True), (1, False), (1, False), (2, True), (2, False)]


def test_the_sentence_says_how_long_it_takes(live: Live, manager: User) -> None:
    run, abort = aborting_run(live, manager)
    age(abort, RED + 1)
    told(live, run)
    assert story().endswith("It has not ended within 10 min.")


def test_an_abort_that_was_asked_for_elsewhere_is_told_as_well(live: Live) -> None:
    live.sandbox.choices["abort-seconds"] = "10000"
    live.sandbox.world.abort_seconds = (10_000, 10_000)
    run_id = started(live, LEDGER)
    live.sandbox.world.abort(flow(live, LEDGER), run_id, live.sandbox.clock())
    run = mirrored(live, LEDGER, run_id)
    assert run.status == "aborting"
    said = []
    for seconds in (AMBER - 5, AMBER + 1, AMBER + 2, RED + 1, RED + 2):
        Run.objects.update(status_since=now() - timedelta(seconds=seconds))
        said.append(told(live, run))
    assert said == [(0, False), (1, True), (1, False), (2, True), (2, False)]


def test_reading_an_aborting_run_does_not_begin_its_time_anew(live: Live) -> None:
    live.sandbox.world.abort_seconds = (10_000, 10_000)
    run_id = started(live, LEDGER)
    live.sandbox.world.abort(flow(live, LEDGER), run_id, live.sandbox.clock())
    since = mirrored(live, LEDGER, run_id).status_since
    assert mirrored(live, LEDGER, run_id).status_since == since


def test_of_several_workers_one_tells(live: Live, manager: User) -> None:
    run, abort = aborting_run(live, manager)
    age(abort, AMBER + 1)
    before = Run.objects.get(pk=run.pk).version

    async def all_look() -> None:
        chores = (aborts.look_after_open_aborts(live.connection) for _ in range(4))
        await asyncio.gather(*chores)

    live.run(all_look)
    assert Run.objects.get(pk=run.pk).version == before + 1


def test_a_run_that_ends_is_overdue_no_more(live: Live, manager: User) -> None:
    run, abort = aborting_run(live, manager)
    age(abort, RED + 1)
    told(live, run)
    pass_time(live, 20_000)
    assert read(live, run).aborting_level == Level.CALM


def test_a_run_that_goes_on_without_its_abort_is_overdue_no_more(live: Live) -> None:
    run = in_flight(live)
    Run.objects.update(status="aborting", status_since=now() - timedelta(seconds=RED + 1))
    assert told(live, run) == (2, True)
    assert read(live, run).status != "aborting"
    assert (Run.objects.get().aborting_level, told(live, run)) == (0, (0, False))


@pytest.mark.parametrize("state", ["accepted", "unknown"])
def test_only_a_red_abort_may_be_tried_again(live: Live, manager: User, state: str) -> None:
    _, abort = aborting_run(live, manager)
    Abort.objects.update(state=state)
    abort = Abort.objects.get()
    at = abort.requested_at
    assert not aborts.may_try_again(abort, at + timedelta(seconds=RED - 1))
    assert aborts.may_try_again(abort, at + timedelta(seconds=RED))


@pytest.mark.parametrize("state", ["requested", "concluded", "refused", "not_sent", "tried_again"])
def test_an_abort_that_waits_for_nothing_may_not_be_tried_again(state: str) -> None:
    settled_at = None if state == "requested" else now()
    abort = Abort(state=state, requested_at=now() - timedelta(hours=1), settled_at=settled_at)
    assert not aborts.may_try_again(abort, now())


def again(live: Live, run: Run, user: User, tried: Abort) -> Abort:
    """Press “Try again”, and return the act that came of it."""
    run = Run.objects.with_place().get(pk=run.pk)
    pressed = aborts.request(run, Press(user), again=tried.pk)
    live.run(lambda: aborts.answered(pressed))
    return Abort.objects.get(pk=pressed.abort.pk)


def test_trying_again_early_joins_the_abort_under_way(live: Live, manager: User) -> None:
    run, abort = aborting_run(live, manager)
    age(abort, RED - 5)
    assert again(live, run, manager, abort) == abort
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_trying_again_settles_the_first_and_sends_once_more(live: Live, manager: User) -> None:
    run, first = aborting_run(live, manager)
    age(first, RED + 1)
    told(live, run)
    second = again(live, run, manager, first)
    first.refresh_from_db()
    assert (first.state, second.state, second.retry_of) == ("tried_again", "accepted", first)
    line = first.events.get(what=What.TRIED_AGAIN)
    assert line.detail == "manager"
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_trying_again_does_not_begin_its_time_anew(live: Live, manager: User) -> None:
    run, first = aborting_run(live, manager)
    age(first, RED + 1)
    assert told(live, run)[0] == Level.RED
    second = again(live, run, manager, first)
    first.refresh_from_db()
    assert second.begun_at == first.requested_at
    assert told(live, run) == (Level.RED, False)
    third = again(live, run, manager, second)
    assert third.begun_at == first.requested_at


def test_trying_again_reads_the_run_before_it_sends(live: Live, manager: User) -> None:
    run, first = aborting_run(live, manager)
    age(first, RED + 1)
    live.sandbox.requests.clear()
    again(live, run, manager, first)
    assert [method for method, path in live.sandbox.requests if run.run_id in path] == [
        "GET", "POST",
    ]  # fmt: skip


def test_trying_again_is_too_late_once_the_run_has_ended(live: Live, manager: User) -> None:
    run, first = aborting_run(live, manager)
    age(first, RED + 1)
    pass_time(live, 20_000)
    second = again(live, run, manager, first)
    assert (second.state, second.outcome, second.sent_at) == ("too_late", "aborted", None)
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_trying_again_does_not_need_the_reading(live: Live, manager: User) -> None:
    run, first = aborting_run(live, manager)
    age(first, RED + 1)
    live.sandbox.faults = [parse_fault("503@GET")]
    assert again(live, run, manager, first).state == "accepted"
    assert live.sandbox.abort_posts[run.run_id] == 2


def test_of_two_who_try_again_at_once_one_sends(live: Live, manager: User) -> None:
    run, first = aborting_run(live, manager)
    age(first, RED + 1)
    colleague = User.objects.create_user("colleague")
    colleague.groups.set(manager.groups.all())
    live.sandbox.faults = [parse_fault("latency:0.5@/abort")]
    with ThreadPoolExecutor(2) as hands:

        def press(user: User) -> Abort:
            try:
                return again(live, run, user, first)
            finally:
                connection.close()

        acts = list(hands.map(press, (manager, colleague)))
    assert acts[0] == acts[1]
    assert Abort.objects.filter(run=run).count() == 2
    assert live.sandbox.abort_posts[run.run_id] == 2
