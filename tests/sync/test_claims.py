"""Who reads what: one at a time, and a dead worker's claim falls due again."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import time_machine
from django.db import connection, connections
from django.utils import timezone

from dashboard.db import threads as db_threads
from dashboard.db.threads import in_database
from dashboard.models import Run, Stage, Worker
from dashboard.sandbox import parse_fault
from dashboard.server import process
from dashboard.sync import leases, mirror, schedule, watchers
from dashboard.sync.leases import LEASE
from dashboard.sync.schedule import Plan
from dashboard.sync.worker import SyncWorker
from tests.support.live import PATIENCE
from tests.support.world import T0, World, api_run, at, the_run


def claim(now: float, limit: int = 4) -> list[int]:
    plan = leases.plan(10.0, at(now))
    return [stage.pk for stage in leases.stages(at(now), plan, limit)]


def test_a_due_stage_is_claimed(stage: Stage) -> None:
    assert claim(1) == [stage.pk]


def test_a_stage_that_is_not_due_is_not_claimed(stage: Stage) -> None:
    assert claim(-1) == []


def test_a_claimed_stage_is_not_claimed_again(stage: Stage) -> None:
    claim(1)
    assert claim(2) == []


def test_a_dead_workers_stage_falls_due_again(stage: Stage) -> None:
    claim(1)
    Stage.objects.update(claimed_until=at(2))
    assert claim(3) == [stage.pk]


def test_a_claim_lasts_as_long_as_its_lease(stage: Stage) -> None:
    claim(0)
    assert claim(LEASE.total_seconds()) == [stage.pk]


def test_a_claim_that_is_renewed_lasts_on(stage: Stage) -> None:
    claim(0)
    for seconds in (10, 20, 30):
        leases.renew([stage.pk], at(seconds))
    assert claim(30 + LEASE.total_seconds() - 1) == []


def test_a_claim_that_has_run_out_is_not_renewed(stage: Stage) -> None:
    claim(0)
    leases.renew([stage.pk], at(LEASE.total_seconds()))
    assert claim(LEASE.total_seconds()) == [stage.pk]


def claimed() -> list[datetime]:
    """Until when each stage is claimed that somebody reads."""
    until = Stage.objects.exclude(claimed_until=None).values_list("claimed_until", flat=True)
    return [each for each in until if each is not None]


def test_a_worker_renews_what_it_holds_with_its_sign_of_life(world: World) -> None:
    world.sync()
    world.make_due()
    world.sandbox.faults = [parse_fault("latency:0.5")]
    worker = SyncWorker(world.live.connection, beat_every=0)
    begun = timezone.now()

    async def work() -> list[datetime]:
        await worker.tick()
        assert await in_database(claimed) != []
        soon = timezone.now() + timedelta(seconds=1)
        await in_database(Stage.objects.exclude(claimed_until=None).update, claimed_until=soon)
        await worker.tick()
        renewed = await in_database(claimed)
        await worker.idle()
        return renewed

    renewed = world.live.run(work)
    assert renewed != []
    assert all(until > begun + LEASE / 2 for until in renewed)


def test_a_worker_renews_nothing_that_it_has_given_back(world: World) -> None:
    world.sync()
    world.make_due()
    worker = SyncWorker(world.live.connection, beat_every=0)
    soon = timezone.now() + LEASE / 2

    async def work() -> None:
        await worker.tick()
        assert await in_database(claimed) != []
        await worker.idle()
        assert await in_database(claimed) == []
        await in_database(Stage.objects.update, claimed_until=soon)  # others have them by now
        await worker.tick()
        await worker.idle()

    world.live.run(work)
    assert set(claimed()) == {soon}


def test_a_reading_promises_the_next(stage: Stage) -> None:
    leases.release(stage, T0, Plan(following=1, discovery=1))
    assert Stage.objects.get().promised_at == at(300)


def test_a_failed_reading_leaves_the_promise(stage: Stage) -> None:
    Stage.objects.update(promised_at=at(9), failures=1, error="server_error")
    leases.release(stage, T0, leases.plan(10.0, T0))
    assert Stage.objects.get().promised_at == at(9)


def test_a_stage_given_back_unread_is_due_behind_the_others(stage: Stage) -> None:
    other = Stage.objects.create(
        pipeline=stage.pipeline, name="Staging", has_flow=True, next_sync_at=at(1)
    )
    assert claim(2, limit=1) == [stage.pk]
    leases.give_back(stage.pk, at(3))
    assert claim(4) == [other.pk, stage.pk]


def test_a_worker_that_fell_silent_is_forgotten_after_an_hour(world: World) -> None:
    now = timezone.now()
    for name, minutes in (("gone", 61), ("missing", 59)):
        at_work = now - timedelta(minutes=minutes)
        Worker.objects.create(name=name, started_at=at_work, beat_at=at_work)
    world.sync()
    names = set(Worker.objects.values_list("name", flat=True))
    assert names == {"missing", world.live.worker.name}


def test_machines_whose_clocks_differ_go_by_the_databases(world: World) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a SQLite file has no clock of its own, and is read by one machine only")
    before = timezone.now()
    try:
        with time_machine.travel(before + timedelta(hours=1)):
            db_threads.set_clock()
            said = db_threads.now()
    finally:
        db_threads.set_clock()
    assert abs(said - before) < timedelta(minutes=1)
    assert abs(db_threads.now() - timezone.now()) < timedelta(minutes=1)


def test_a_machine_whose_clock_is_set_goes_on_by_the_databases(world: World) -> None:
    db_threads.set_clock(timedelta(hours=1))  # as measured before

    async def keep() -> None:
        keeping = asyncio.ensure_future(process.keep_time(every=0.01))
        try:
            async with asyncio.timeout(PATIENCE / 2):
                while db_threads.now() > timezone.now() + timedelta(minutes=1):
                    await asyncio.sleep(0.01)
        finally:
            keeping.cancel()

    try:
        world.live.run(keep)
    finally:
        db_threads.set_clock()
    assert abs(db_threads.now() - timezone.now()) < timedelta(minutes=1)


def test_a_stage_given_back_waits_for_its_class(stage: Stage) -> None:
    claim(1)
    plan = Plan(following=1, discovery=1)
    leases.release(stage, at(2), plan)
    assert Stage.objects.get().next_sync_at == at(2) + timedelta(seconds=300)


def test_a_stage_given_back_is_free(stage: Stage) -> None:
    claim(1)
    leases.release(stage, at(2), leases.plan(10.0, at(2)))
    assert Stage.objects.get().claimed_until is None


def test_a_stage_that_failed_rests_longer_each_time(stage: Stage) -> None:
    waits = []
    for failures in range(1, 10):
        Stage.objects.update(failures=failures)
        leases.release(stage, T0, leases.plan(10.0, T0))
        waits.append((Stage.objects.get().next_sync_at - T0).total_seconds())
    assert waits[:3] == [10, 20, 40]
    assert waits == sorted(waits)
    assert waits[-1] == 300


def test_a_small_allowance_stretches_the_wait(stage: Stage) -> None:
    leases.release(stage, T0, leases.plan(1 / 1e4, T0))
    assert Stage.objects.get().next_sync_at > at(1e4)


def flying(stage: Stage) -> Stage:
    """Another stage of the pipeline, with a run in flight."""
    other = Stage.objects.create(
        pipeline=stage.pipeline, name="Staging", has_flow=True, next_sync_at=T0, synced_at=T0
    )
    mirror.runs(other.pk, [api_run()], asked_at=T0)
    return other


def test_what_is_in_flight_is_claimed_before_the_most_overdue(stage: Stage) -> None:
    Stage.objects.update(next_sync_at=at(-86400))
    other = flying(stage)
    assert claim(1, limit=1) == [other.pk]


def test_what_somebody_looks_at_is_claimed_before_the_most_overdue(stage: Stage) -> None:
    Stage.objects.update(next_sync_at=at(-86400))
    other = flying(stage)
    Run.objects.update(in_flight=False)
    watchers.in_stage(other, at(0))
    assert claim(1, limit=1) == [other.pk]


def test_what_a_webhook_asks_for_is_claimed_before_the_most_overdue(stage: Stage) -> None:
    Stage.objects.update(next_sync_at=at(-86400))
    other = flying(stage)
    Run.objects.update(in_flight=False)
    Stage.objects.filter(pk=other.pk).update(rung_at=at(1), synced_at=at(0))
    assert claim(1, limit=1) == [other.pk]
    Stage.objects.update(claimed_until=None, synced_at=at(2))  # once it was read, it is like others
    assert claim(3, limit=1) == [stage.pk]


def test_discovery_waits_while_reading_is_ahead(stage: Stage) -> None:
    other = flying(stage)
    plan = leases.plan(10.0, at(1))
    assert [one.pk for one in leases.stages(at(1), plan, 4, followed_only=True)] == [other.pk]


def promise(stage: Stage) -> datetime | None:
    stage.refresh_from_db()
    return stage.promised_at


def test_a_poorer_plan_promises_anew_before_a_promise_is_broken(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, promised_at=at(100), next_sync_at=at(100))
    rate = 1 / 3000  # an idle stage each fifty minutes
    leases.plan(rate, at(50))
    assert promise(stage) == at(100)  # there is time
    leases.plan(rate, at(95))
    new = promise(stage)
    assert new is not None
    assert new > at(1000)
    leases.plan(rate, at(97))
    assert promise(stage) == new


def test_what_discovery_is_held_up_by_is_promised_with_it(stage: Stage) -> None:
    Stage.objects.update(synced_at=T0, promised_at=at(100), next_sync_at=at(100))
    leases.plan(10.0, at(95), held_up=timedelta(seconds=60))
    assert promise(stage) == at(160)


def test_a_promise_that_is_broken_stays_so(stage: Stage) -> None:
    Stage.objects.update(synced_at=at(-200), promised_at=at(-100), next_sync_at=at(-100))
    leases.plan(10.0, at(95))  # each hundred seconds
    assert promise(stage) == at(-100)


def test_what_is_followed_is_promised_once(stage: Stage) -> None:
    other = flying(stage)
    Stage.objects.update(synced_at=T0, promised_at=at(10))
    leases.plan(1 / 3000, at(9))
    assert promise(other) == at(10)


def test_what_a_poorer_plan_has_booked_is_made_due(stage: Stage) -> None:
    other = flying(stage)
    Stage.objects.update(next_sync_at=at(86400))
    leases.plan(0.25, at(60))
    assert [one.pk for one in Stage.objects.due(at(60))] == [other.pk]


def test_a_stage_that_fails_keeps_its_rest_under_a_richer_plan(stage: Stage) -> None:
    flying(stage)
    Stage.objects.update(next_sync_at=at(86400), failures=1)
    leases.plan(0.25, at(60))
    assert not Stage.objects.due(at(60)).exists()


def test_webhooks_leave_more_for_what_is_in_flight(stage: Stage) -> None:
    flying(stage)
    Stage.objects.update(synced_at=T0)
    alone, pushed = (leases.plan(0.1, at(1), push_alive=alive) for alive in (False, True))
    assert pushed.following < alone.following


def test_what_webhooks_add_for_each_run_is_put_aside(stage: Stage) -> None:
    other = flying(stage)
    Stage.objects.update(synced_at=T0)
    without = leases.plan(0.1, at(1), push_alive=True).following
    ended = [
        api_run(f"e{n}", status="success", concluded=True, concluded_at=at(-n)) for n in range(60)
    ]
    mirror.runs(other.pk, ended, asked_at=at(0.5))
    aside = schedule.READINGS_A_RUN * 60 / 3600
    stretched = leases.plan(0.1, at(1), push_alive=True).following
    assert stretched == pytest.approx(without * 0.1 / (0.1 - aside))


def test_a_stage_that_was_never_read_gives_discovery_more(stage: Stage) -> None:
    flying(stage)
    before = leases.plan(0.1, at(1)).discovery
    Stage.objects.update(synced_at=T0)
    assert before < leases.plan(0.1, at(1)).discovery


def test_no_stage_at_all_makes_a_plan(db: None) -> None:
    assert leases.plan(0.0, T0).discovery > 0


def test_looking_at_a_stage_with_runs_in_flight_makes_it_due(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run()], asked_at=T0)
    Stage.objects.update(synced_at=T0, next_sync_at=at(300))
    watchers.in_stage(Stage.objects.get(), at(20))
    assert claim(21) == [stage.pk]


def test_looking_at_a_stage_that_fails_leaves_it_its_rest(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run()], asked_at=T0)
    Stage.objects.update(synced_at=T0, next_sync_at=at(300), failures=1)
    watchers.in_stage(Stage.objects.get(), at(20))
    assert claim(21) == []


def test_looking_again_at_once_writes_nothing(stage: Stage) -> None:
    watchers.in_stage(stage, at(0))
    watchers.in_stage(Stage.objects.get(), at(9))
    assert Stage.objects.get().watched_at == at(0)


def test_looking_at_a_run_whose_steps_are_missing_has_them_read(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run(status="success", concluded=True)], asked_at=T0)
    watchers.in_run(the_run(), at(1))
    assert the_run().next_read_at == at(1)


def test_looking_at_a_run_whose_end_was_read_asks_for_nothing(stage: Stage) -> None:
    ended = api_run(status="success", concluded=True, concluded_at=at(-5))
    mirror.runs(stage.pk, [ended], asked_at=T0)
    Run.objects.update(detail_seen_at=T0)
    watchers.in_run(the_run(), at(1))
    assert the_run().next_read_at is None


def test_looking_at_a_gone_run_asks_for_nothing(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run()], asked_at=T0)
    mirror.gone(the_run().pk, asked_at=at(1))
    before = the_run().next_read_at
    watchers.in_run(the_run(), at(2))
    assert the_run().next_read_at == before == at(601)


def test_a_stage_whose_only_run_in_flight_is_gone_is_not_read_as_one_with_runs_in_flight(
    stage: Stage,
) -> None:
    mirror.runs(stage.pk, [api_run()], asked_at=T0)
    kinds = []
    for _ in range(2):
        kinds.append(leases.classes(Stage.objects.all(), at(9_000))[stage.pk].followed)
        mirror.gone(the_run().pk, asked_at=at(1))
    assert kinds == [True, False]


def test_a_due_run_is_claimed_once(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run()], asked_at=T0)
    Run.objects.update(next_read_at=T0)
    assert len(leases.runs(at(1), 4)) == 1
    assert len(leases.runs(at(2), 4)) == 0


def test_a_dead_workers_run_falls_due_again(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run()], asked_at=T0)
    Run.objects.update(next_read_at=T0)
    leases.runs(at(1), 4)
    assert len(leases.runs(at(1) + LEASE, 4)) == 1


def test_a_run_that_is_not_aborting_is_left_when_only_those_are_wanted(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run()], asked_at=T0)
    Run.objects.update(next_read_at=T0)
    assert leases.runs(at(1), 4, aborting_only=True) == []


def test_stages_of_a_gone_pipeline_are_not_claimed(stage: Stage) -> None:
    stage.pipeline.gone_at = T0
    stage.pipeline.save()
    assert claim(1) == []


def test_many_workers_claim_each_stage_once(transactional_db: None) -> None:
    from dashboard.models import Pipeline, Project

    project = Project.objects.create(slug="shop", seen_at=T0)
    for number in range(8):
        pipeline = Pipeline.objects.create(project=project, slug=f"p{number}", seen_at=T0)
        Stage.objects.create(pipeline=pipeline, name="Staging", has_flow=True, next_sync_at=T0)
    together = threading.Barrier(4)

    def work(_: int) -> list[int]:
        together.wait(10)
        try:
            return [pk for _ in range(4) for pk in claim(1, 2)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        claimed = [pk for pks in pool.map(work, range(4)) for pk in pks]
    assert sorted(claimed) == sorted(Stage.objects.values_list("pk", flat=True))


def test_two_workers_ask_for_each_stage_once(world: World) -> None:
    world.sync()
    world.make_due()
    Stage.objects.update(history_page=None)
    Run.objects.update(next_read_at=None)
    world.sandbox.requests.clear()
    other = SyncWorker(world.live.connection)

    async def both() -> None:
        import asyncio

        for _ in range(4):
            await asyncio.gather(world.live.worker.tick(), other.tick())
            await asyncio.gather(world.live.worker.idle(), other.idle())

    world.live.run(both)
    lists = [request for request in world.asked("/runs") if request.endswith("/runs")]
    assert len(lists) == len(set(lists)) == 5
