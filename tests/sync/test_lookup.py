"""A run nobody has seen: asked for once, whoever asks."""

import asyncio

from django.core.cache import cache
from django.utils import timezone

from dashboard import budget
from dashboard.database import in_database
from dashboard.models import Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import lookup
from tests.support.world import World, the_run

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def place(world: World) -> Stage:
    if not Stage.objects.exists():
        world.sync()
    world.sandbox.requests.clear()
    return Stage.objects.select_related("pipeline__project").get(
        pipeline__slug="ledger", name="Production"
    )


def find(world: World, stage: Stage, run_id: str, times: int = 1) -> list[str]:
    async def together() -> list[str]:
        return await asyncio.gather(
            *(lookup.find(world.live.connection, stage, run_id) for _ in range(times))
        )

    return world.live.run(together)


def test_a_run_that_northflank_knows_is_mirrored(world: World) -> None:
    stage = place(world)
    run_id = world.start()
    find(world, stage, run_id)
    assert the_run(run_id).steps is not None


def test_a_run_that_was_found_needs_no_word(world: World) -> None:
    stage = place(world)
    assert find(world, stage, world.start()) == [""]


def test_many_who_ask_at_the_same_time_share_one_question(world: World) -> None:
    stage = place(world)
    run_id = world.start()
    find(world, stage, run_id, times=25)
    assert len(world.asked(run_id)) == 1


def test_a_run_that_is_mirrored_is_not_asked_for(world: World) -> None:
    run_id = world.start()
    stage = place(world)
    find(world, stage, run_id)
    assert not world.sandbox.requests


def test_what_nobody_knows_is_said_so(world: World) -> None:
    assert find(world, place(world), UNKNOWN) == ["Northflank does not know it either."]


def test_a_no_is_remembered(world: World) -> None:
    stage = place(world)
    find(world, stage, UNKNOWN)
    find(world, stage, UNKNOWN)
    assert len(world.asked(UNKNOWN)) == 1


def test_a_no_is_remembered_for_one_stage_only(world: World) -> None:
    stage = place(world)
    find(world, stage, UNKNOWN)
    other = Stage.objects.select_related("pipeline__project").get(
        pipeline__slug="ledger", name="Staging"
    )
    find(world, other, UNKNOWN)
    assert len(world.asked(UNKNOWN)) == 2


def test_trouble_is_no_no(world: World) -> None:
    stage = place(world)
    run_id = world.start()
    world.sandbox.faults = [parse_fault("500*2")]
    find(world, stage, run_id)
    assert find(world, stage, run_id) == [""]


def test_trouble_is_told(world: World) -> None:
    stage = place(world)
    world.sandbox.faults = [parse_fault("500")]
    assert find(world, stage, UNKNOWN)[0].startswith("Northflank could not be asked for it")


def test_an_hour_allows_so_many_questions(world: World) -> None:
    stage = place(world)
    cache.set(f"lookups:{timezone.now():%Y%m%d%H}", lookup.AN_HOUR - 1)
    find(world, stage, UNKNOWN)
    assert find(world, stage, UNKNOWN[:-1] + "1")[0].startswith("Too many")


def test_what_is_over_the_allowance_is_not_asked(world: World) -> None:
    stage = place(world)
    cache.set(f"lookups:{timezone.now():%Y%m%d%H}", lookup.AN_HOUR)
    find(world, stage, UNKNOWN)
    assert not world.sandbox.requests


def test_nothing_is_asked_while_reading_is_refused(world: World) -> None:
    stage = place(world)

    async def refuse() -> None:
        await in_database(budget.refuse, 60, timezone.now())

    world.live.run(refuse)
    find(world, stage, UNKNOWN)
    assert not world.sandbox.requests


def test_nothing_hostile_reaches_another_address(world: World) -> None:
    stage = place(world)
    for run_id in ("..", ".", "a/../../b", "%2e%2e", "x\x00y", "💥" * 90):
        find(world, stage, run_id)
    assert {path.count("/") for _, path in world.sandbox.requests} <= {9}


def test_what_was_not_found_leaves_no_row(world: World) -> None:
    before = Run.objects.count()
    stage = place(world)
    after = Run.objects.count()
    find(world, stage, UNKNOWN)
    assert Run.objects.count() == after > before
