"""A clock that is set forward or back: nothing untrue is shown, and reading goes on."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard import aborts
from dashboard.db import threads as db_threads
from dashboard.models import (
    Abort,
    ApiToken,
    Budget,
    QuestionCounter,
    Run,
    Stage,
    Upstream,
    Worker,
)
from dashboard.models.api_tokens import Scope
from dashboard.models.catalog import StageQuerySet
from dashboard.northflank import RateLimit
from dashboard.sandbox import parse_fault
from dashboard.sync import clock_correction, leases, mirror
from dashboard.sync.worker import SyncWorker
from dashboard.upstream import budget_store
from dashboard.web.components import run_row
from tests.support import factories
from tests.support.flights import in_flight, notice, press, read
from tests.support.live import Live
from tests.support.world import World, api_run, at, detail, the_run

type Lines = Callable[[str], list[dict[str, Any]]]

HOUR = timedelta(hours=1)
EITHER_WAY = pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forward", "back"])


def go_by(ahead: timedelta) -> None:
    """Have this process go by a clock that is so far ahead."""
    db_threads.set_clock(ahead)


# --- which answer is newer -----------------------------------------------------------------------


@EITHER_WAY
def test_what_was_asked_later_is_believed_whatever_the_clock_says(
    stage: Stage, by: timedelta
) -> None:
    asked = at(0)
    mirror.runs(stage.pk, [api_run(status="running")], asked_at=asked)
    mirror.detail(stage.pk, detail(status="aborting"), asked_at=asked + by)
    assert the_run().status == "aborting"
    assert the_run().seen_at == the_run().detail_seen_at == asked + by
    mirror.gone(the_run().pk, asked_at=asked)
    assert the_run().gone_at == asked


@EITHER_WAY
def test_an_abort_that_is_accepted_after_the_clock_was_set_reads_so(
    live: Live, manager: User, by: timedelta
) -> None:
    go_by(-by)
    run = in_flight(live)
    read(live, run)
    go_by(timedelta())
    assert "accepted" in notice(press(live.person("manager"), run)).lower()
    assert Run.objects.get(pk=run.pk).status == "aborting"
    assert read(live, run).status in {"aborting", "aborted"}


@EITHER_WAY
def test_trouble_ends_with_the_next_answer_whatever_the_clock_says(
    world: World, by: timedelta
) -> None:
    world.sync()
    world.sandbox.faults = [parse_fault("500")]
    go_by(-by)
    world.sync(2)
    assert Upstream.objects.get().error
    go_by(timedelta())
    world.sandbox.faults = []
    world.live.connection.ask_at = 0
    world.live.run(lambda: world.live.connection.ask(lambda nf: nf.auth()))
    assert Upstream.objects.get().error == ""


def test_of_two_acts_the_later_one_is_told_though_it_was_asked_for_by_an_earlier_clock(
    place: Stage, manager: User
) -> None:
    run = factories.run(place)
    now = timezone.now()
    factories.abort(run, manager, "refused", requested_at=now, settled_at=now)
    later = factories.abort(run, manager, requested_at=now - HOUR)
    assert run_row.latest_aborts([run]) == {run.pk: later}


# --- what is booked ------------------------------------------------------------------------------


def worker(world: World) -> tuple[SyncWorker, list[timedelta]]:
    """A worker that measures its clock at each look, and what it finds: the last of these."""
    clock = [timedelta()]
    made = SyncWorker(
        world.live.connection,
        chores=[aborts.look_after_open_aborts],
        beat_every=0,
        measure=lambda: db_threads.set_clock(clock[-1]),
    )
    return made, clock


def booked_far_ahead() -> StageQuerySet:
    # One without a release flow is looked at again after hours.
    return Stage.objects.filter(has_flow=True, next_sync_at__gt=timezone.now() + HOUR / 2)


def work(world: World, by: SyncWorker, rounds: int = 20) -> None:
    async def tick() -> None:
        for _ in range(rounds):
            await by.tick()
            await by.idle()

    world.live.run(tick)


def test_reading_goes_on_after_the_clock_was_set_back(world: World, said: Lines) -> None:
    world.sync()  # what there is is known
    reader, clock = worker(world)
    clock.append(HOUR)
    work(world, reader)  # all is due, and booked by this clock
    assert booked_far_ahead().exists()
    clock.append(timedelta())
    work(world, reader, rounds=1)
    assert not booked_far_ahead().exists()
    assert not Stage.objects.filter(claimed_until__gt=timezone.now() + leases.LEASE).exists()
    told = said("clock.set_back")
    assert [round(line["seconds"], -2) for line in told] == [3600]


def test_reading_goes_on_after_a_restart_by_a_clock_that_was_set_back(
    world: World, said: Lines
) -> None:
    world.sync()
    reader, clock = worker(world)
    clock.append(HOUR)
    work(world, reader)
    Worker.objects.all().delete()  # it has ended as it should
    db_threads.set_clock(timedelta())
    anew, _ = worker(world)
    work(world, anew, rounds=1)
    assert len(said("clock.set_back")) == 1
    assert not booked_far_ahead().exists()


def test_reading_goes_on_after_the_clock_was_set_forward_and_right_again(
    world: World, said: Lines
) -> None:
    world.sync()
    reader, clock = worker(world)
    for ahead in (timedelta(), HOUR, timedelta()):
        clock.append(ahead)
        run_id = world.start()
        Stage.objects.update(next_sync_at=timezone.now() - HOUR)  # their time has come
        work(world, reader)
        assert Run.objects.filter(run_id=run_id).exists()
    assert len(said("clock.set_back")) == 1


def test_one_of_several_workers_does_it(place: Stage, said: Lines) -> None:
    now = timezone.now()
    factories.worker("a", beat_at=now + HOUR)
    Stage.objects.update(next_sync_at=now + HOUR + timedelta(seconds=90))
    done = [clock_correction.rebook(now), clock_correction.rebook(now)]
    assert done == [HOUR, timedelta()]
    assert Stage.objects.get().next_sync_at == now + timedelta(seconds=90)
    assert len(said("clock.set_back")) == 1


def test_clocks_that_differ_as_machines_do_move_nothing(place: Stage) -> None:
    now = timezone.now()
    factories.worker("a", beat_at=now + timedelta(seconds=4))
    Stage.objects.update(next_sync_at=now + HOUR)
    assert clock_correction.rebook(now) == timedelta()
    assert Stage.objects.get().next_sync_at == now + HOUR


def test_a_refusal_and_a_window_end_when_they_would_have(db: None) -> None:
    now = timezone.now()
    then = now + HOUR
    budget_store.record(RateLimit(limit=1000, remaining=900, reset_seconds=1200), then)
    Budget.objects.update(refused_until=then + timedelta(minutes=5))
    clock_correction.rebook(now)
    known = Budget.objects.get()
    assert known.seen_at == now
    assert known.resets_at == now + timedelta(minutes=20)
    assert known.refused_until == now + timedelta(minutes=5)


def test_what_a_dead_process_held_is_adopted_after_its_lease(
    place: Stage, manager: User, said: Lines
) -> None:
    now = timezone.now()
    factories.worker("dead", beat_at=now + HOUR)
    run = factories.run(place)
    abort = factories.abort(run, manager, "requested", claimed_at=now + HOUR, requested_at=now)
    settled = factories.abort(
        factories.run(place), manager, "refused", claimed_at=now + HOUR, settled_at=now
    )
    clock_correction.rebook(now)
    assert Abort.objects.get(pk=abort.pk).claimed_at == now
    assert Abort.objects.get(pk=settled.pk).claimed_at == now + HOUR  # it is kept as it was


def test_a_token_whose_minute_began_by_the_old_clock_is_let_in(manager: User) -> None:
    now = timezone.now()
    token, _ = ApiToken.make(manager, "runbook", Scope.READ, now)
    ApiToken.objects.update(window_at=now + HOUR, window_used=10_000)
    factories.worker("a", beat_at=now + HOUR)
    clock_correction.rebook(now)
    token.refresh_from_db()
    assert token.take_turn(now + timedelta(minutes=1)) == timedelta()


def test_a_run_in_flight_is_told_by_the_clock_as_it_is(place: Stage) -> None:
    now = timezone.now()
    factories.worker("a", beat_at=now + HOUR)
    run = factories.run(place, status_since=now + HOUR - timedelta(minutes=2), seen_at=now + HOUR)
    ended = factories.run(place, status="success", seen_at=now + HOUR)
    clock_correction.rebook(now)
    assert Run.objects.get(pk=ended.pk).seen_at == now + HOUR
    before, run = run, Run.objects.get(pk=run.pk)
    assert run.status_since == now - timedelta(minutes=2)
    assert run.seen_at == now
    assert run.version > before.version


def test_a_question_costs_one_statement_for_its_number(world: World) -> None:
    QuestionCounter.take()
    with CaptureQueriesContext(connection) as queries:
        taken = [QuestionCounter.take() for _ in range(3)]
    assert taken == [taken[0], taken[0] + 1, taken[0] + 2]
    assert len(queries) == 3
    assert QuestionCounter.latest() == taken[-1]
