"""A run nobody has seen: asked for once, whoever asks."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.db.threads import in_database
from dashboard.models import Budget, Run, RunLookup, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import run_lookup
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from tests.support import factories, flights
from tests.support.world import World, the_run

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def place(world: World) -> Stage:
    if not Stage.objects.exists():
        world.sync()
    world.sandbox.requests.clear()
    return Stage.objects.select_related("pipeline__project").get(
        pipeline__slug="ledger", name="Production"
    )


def find(
    world: World,
    stage: Stage,
    run_id: str,
    times: int = 1,
    *,
    to: Connection | None = None,
    person: int | None = None,
) -> list[str]:
    async def together() -> list[str]:
        asked = to or world.live.connection
        return await asyncio.gather(
            *(run_lookup.find(asked, stage, run_id, person=person) for _ in range(times))
        )

    return world.live.run(together)


@pytest.fixture
def another(world: World) -> Iterator[Connection]:
    """Another process's connection, which is all by which two processes are told apart here."""

    async def connect() -> Connection:
        return Connection(world.live.connection.token, world.live.upstream_url)

    connection = world.live.run(connect)
    yield connection
    world.live.run(connection.close)


def left(world: World, requests: int) -> None:
    """So many of the hour's thousand requests are left, by the next answer too."""
    Budget.objects.all().delete()
    now = timezone.now()
    Budget.objects.create(
        limit=1000, remaining=requests, resets_at=now + timedelta(minutes=30), seen_at=now
    )


def test_a_run_that_northflank_knows_is_mirrored(world: World) -> None:
    stage = place(world)
    run_id = world.start()
    find(world, stage, run_id)
    assert the_run(run_id).steps is not None


def test_a_run_that_was_found_needs_no_word(world: World) -> None:
    stage = place(world)
    assert find(world, stage, world.start()) == [""]


def test_a_spelling_that_has_worked_is_kept(world: World) -> None:
    stage = place(world)
    Stage.objects.update(path="")
    world.sandbox.choices["stage-spelling"] = "capitalised"
    find(world, Stage.objects.select_related("pipeline__project").get(pk=stage.pk), world.start())
    assert set(Stage.objects.exclude(path="").values_list("path", flat=True)) == {"Production"}
    other = Stage.objects.select_related("pipeline__project").get(
        pipeline=stage.pipeline, name="Staging"
    )
    world.sandbox.requests.clear()
    find(world, other, UNKNOWN)
    assert [request.split("/")[-3] for request in world.asked(UNKNOWN)] == ["Staging"]


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


def test_what_searches_have_used_is_no_matter(world: World) -> None:
    stage = place(world)
    factories.searched(10_000, of=stage)
    assert find(world, stage, world.start()) == [""]


def test_the_reserve_is_left_alone(world: World) -> None:
    stage = place(world)
    left(world, 100)  # all of it is reserved
    assert find(world, stage, UNKNOWN)[0].endswith("this hour's requests are spent.")
    left(world, 101)
    assert find(world, stage, UNKNOWN) == ["Northflank does not know it either."]
    assert len(world.asked(UNKNOWN)) == 1


def test_one_person_with_a_broken_machine_locks_out_nobody_else(
    world: World, viewer: User, manager: User
) -> None:
    stage = place(world)
    now = timezone.now()
    RunLookup.objects.bulk_create(
        RunLookup(run_id=f"r{n}", stage=stage, requests=1, asked_at=now, person=viewer)
        for n in range(run_lookup.A_PERSON)
    )
    assert find(world, stage, UNKNOWN, person=viewer.pk)[0].endswith(
        "used their 120 requests this hour."
    )
    assert not world.asked(UNKNOWN)
    assert find(world, stage, UNKNOWN, person=manager.pk) == ["Northflank does not know it either."]


def test_an_address_that_goes_on_failing_counts_each_time(world: World, viewer: User) -> None:
    stage = place(world)
    world.sandbox.faults = [parse_fault(f"forbidden:payments@/runs/{UNKNOWN}")]
    now = timezone.now()
    RunLookup.objects.create(
        run_id=UNKNOWN,
        stage=stage,
        requests=run_lookup.A_PERSON - 1,
        asked_at=now,
        person=viewer,
        error="No access.",
    )
    find(world, stage, UNKNOWN, person=viewer.pk)
    find(world, stage, UNKNOWN, person=viewer.pk)
    assert len(world.asked(UNKNOWN)) == 1


def test_a_search_says_why_it_does_not_go_on(world: World) -> None:
    stage = place(world)

    def why() -> str:
        found = world.live.run(
            lambda: run_lookup.search(world.live.connection, [stage.pk], UNKNOWN)
        )
        return found.why_not

    left(world, 100)  # all of it is reserved
    assert why().endswith("this hour's requests are spent.")
    left(world, 900)

    async def refuse() -> None:
        await in_database(budget_store.refuse, 60, timezone.now())

    world.live.run(refuse)
    assert why().endswith("asks for a pause between requests.")
    assert not world.asked(UNKNOWN)


def test_what_was_asked_an_hour_ago_is_none_of_this_hours_requests(world: World) -> None:
    stage = place(world)
    ago = timezone.now() - timedelta(hours=2)
    RunLookup.objects.create(run_id=UNKNOWN, stage=stage, requests=5, by_search=True, asked_at=ago)
    find(world, stage, UNKNOWN)
    row = RunLookup.objects.get(run_id=UNKNOWN)
    assert (row.requests, row.by_search) == (1, False)


def test_an_answer_counts_for_all_processes(world: World, another: Connection) -> None:
    stage = place(world)
    find(world, stage, UNKNOWN)
    assert find(world, stage, UNKNOWN, to=another) == ["Northflank does not know it either."]
    assert len(world.asked(UNKNOWN)) == 1


def test_two_processes_that_are_asked_at_once_ask_once(world: World, another: Connection) -> None:
    stage = place(world)
    run_id = world.start()
    world.sandbox.faults = [parse_fault("latency:0.2")]

    async def together() -> list[str]:
        return await asyncio.gather(
            *(run_lookup.find(to, stage, run_id) for to in (world.live.connection, another) * 3)
        )

    assert world.live.run(together) == [""] * 6
    assert len(world.asked(run_id)) == 1


def test_where_another_process_has_died_meanwhile_it_is_asked_again(world: World) -> None:
    stage = place(world)
    run_id = world.start()
    now = timezone.now()
    died = RunLookup.objects.create(
        run_id=run_id, stage=stage, requests=1, asked_at=now, lease_until=now
    )
    assert find(world, stage, run_id) == [""]
    died.refresh_from_db()
    assert died.requests == 2


def test_the_table_stays_small(world: World) -> None:
    stage = place(world)
    factories.searched(1, of=stage, asked_at=timezone.now() - run_lookup.REMEMBERED)
    find(world, stage, UNKNOWN)
    assert [row.run_id for row in RunLookup.objects.all()] == [UNKNOWN]


def test_an_old_answer_counts_no_more(world: World) -> None:
    stage = place(world)
    find(world, stage, UNKNOWN)
    RunLookup.objects.update(asked_at=timezone.now() - run_lookup.REMEMBERED)
    find(world, stage, UNKNOWN)
    assert len(world.asked(UNKNOWN)) == 2


def test_one_can_look_again_but_not_at_once(world: World) -> None:
    stage = place(world)
    find(world, stage, UNKNOWN)
    asked_at = RunLookup.objects.get().asked_at
    assert run_lookup.look_again([stage.pk], UNKNOWN) == asked_at + run_lookup.AGAIN_AFTER
    find(world, stage, UNKNOWN)
    assert len(world.asked(UNKNOWN)) == 1
    RunLookup.objects.update(asked_at=asked_at - run_lookup.AGAIN_AFTER)
    assert run_lookup.look_again([stage.pk], UNKNOWN) is None
    find(world, stage, UNKNOWN)
    assert len(world.asked(UNKNOWN)) == 2


@pytest.mark.parametrize("spelling", ["lower", "capitalised"])
def test_a_stage_that_was_never_read_is_asked_in_both_spellings(
    world: World, spelling: str
) -> None:
    world.sandbox.choices["stage-spelling"] = spelling
    flights.stage(("payments", "ledger", "Production"))
    Stage.objects.update(path="")
    stage = place(world)
    assert find(world, stage, world.start()) == [""]


@pytest.mark.parametrize("seconds_ago", [0, 61], ids=["in the pause", "until one was answered"])
def test_nothing_is_looked_up_after_a_429(world: World, seconds_ago: int) -> None:
    stage = place(world)

    async def refuse() -> None:
        await in_database(budget_store.refuse, 60, timezone.now() - timedelta(seconds=seconds_ago))

    world.live.run(refuse)
    assert find(world, stage, UNKNOWN)[0].endswith("asks for a pause between requests.")
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
