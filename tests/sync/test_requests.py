"""Links to runs that were never read: one request, however many users open them."""

import asyncio
from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.db.threads import run_in_db_thread
from dashboard.models import RateBudget, ReadRequest, Run, Stage
from dashboard.models.sync.read_requests import LINK_WAIT
from dashboard.sandbox import parse_fault
from dashboard.sync import requests
from dashboard.upstream import budget_store
from tests.support import factories, live_runs
from tests.support.world import World, get_run

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOT_FOUND = "Not found on Northflank either."


def ledger_stage(world: World) -> Stage:
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
    seconds: float = 10,
) -> list[str]:
    """Open a link several times while a worker ticks."""

    async def find_concurrently() -> list[str]:
        return await asyncio.gather(
            *(requests.find_in_stage(stage, run_id, seconds=seconds) for _ in range(times))
        )

    with world.live.ticking():
        return world.live.run(find_concurrently)


def link(stage: Stage, run_id: str = UNKNOWN, **fields: object) -> ReadRequest:
    """Record a link that was opened just now."""
    defaults = {"requested_at": timezone.now(), "reads": 1}
    kind = ReadRequest.Kind.LINK
    return ReadRequest.objects.create(
        kind=kind, run_id=run_id, stage=stage, **{**defaults, **fields}
    )


def set_remaining_budget(world: World, requests: int) -> None:
    """Set how many of the hour's thousand requests remain, also for the next answer."""
    RateBudget.objects.all().delete()
    now = timezone.now()
    RateBudget.objects.create(
        limit=1000, remaining=requests, resets_at=now + timedelta(minutes=30), synced_at=now
    )


def begin_outage(world: World) -> None:
    world.sandbox.faults = [parse_fault("502-html")]
    world.make_due()
    world.live.sync(1)
    assert world.live.connection.outage
    world.sandbox.requests.clear()


def test_existing_run_is_mirrored_with_steps(world: World) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    assert find(world, stage, run_id) == [""]
    assert get_run(run_id).steps is not None


@pytest.mark.parametrize("spelling", ["lower", "capitalised"])
def test_link_to_unread_stage_tries_both_path_spellings(world: World, spelling: str) -> None:
    world.sandbox.choices["stage-spelling"] = spelling
    live_runs.stage(("payments", "ledger", "Production"))
    stage = ledger_stage(world)
    assert find(world, stage, world.start()) == [""]


def test_concurrent_links_share_one_request(world: World) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    assert find(world, stage, run_id, times=25) == [""] * 25
    assert len(world.requests_for(run_id)) == 1


def test_link_to_mirrored_run_sends_no_request(world: World) -> None:
    run_id = world.start()
    stage = ledger_stage(world)
    assert find(world, stage, run_id) == [""]
    assert not ReadRequest.objects.exists()


def test_not_found_answer_is_stored_for_its_stage(world: World) -> None:
    stage = ledger_stage(world)
    assert find(world, stage, UNKNOWN) == [NOT_FOUND]
    assert find(world, stage, UNKNOWN) == [NOT_FOUND]
    assert len(world.requests_for(UNKNOWN)) == 1
    other = Stage.objects.select_related("pipeline__project").get(
        pipeline__slug="ledger", name="Staging"
    )
    find(world, other, UNKNOWN)
    assert len(world.requests_for(UNKNOWN)) == 2


def test_run_that_is_not_found_creates_no_run(world: World) -> None:
    stage = ledger_stage(world)
    find(world, stage, UNKNOWN)
    assert not Run.objects.filter(run_id=UNKNOWN).exists()


def test_failed_request_is_told_and_sent_again_with_the_next_link(world: World) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    world.sandbox.faults = [parse_fault(f"403@/runs/{run_id}")]
    assert find(world, stage, run_id)[0].startswith("The search on Northflank failed")
    world.sandbox.faults = []
    assert find(world, stage, run_id) == [""]


def test_link_in_an_outage_sends_nothing_and_postpones_no_probe(world: World) -> None:
    stage = ledger_stage(world)
    begin_outage(world)
    retry_at = world.live.connection.retry_at = world.live.connection.retry_at + 3600
    assert find(world, stage, UNKNOWN, times=3) == ["No updates from Northflank."] * 3
    assert not world.sandbox.requests
    assert world.live.connection.retry_at == retry_at


@pytest.mark.parametrize(
    ("heartbeat_age", "text"),
    [
        (None, "Sync is not running; data is not being updated."),
        (31, "Sync stopped: no sign of life."),
        (-60, "The database’s clock was set back: updates paused."),
    ],
)
def test_link_while_no_process_reads_says_so_at_once(
    world: World, heartbeat_age: float | None, text: str
) -> None:
    stage = factories.stage()
    if heartbeat_age is not None:
        factories.leader(renewed_at=timezone.now() - timedelta(seconds=heartbeat_age))
    answer = world.live.run(lambda: requests.find_in_stage(stage, UNKNOWN))
    assert answer == text
    assert not ReadRequest.objects.exists()


def test_link_without_an_answer_asks_to_reload_and_is_asked_for_again(world: World) -> None:
    stage = factories.stage()
    factories.leader()  # which reads nothing
    for waiting in (timedelta(), LINK_WAIT):
        ReadRequest.objects.update(requested_at=timezone.now() - waiting)
        answer = world.live.run(lambda: requests.find_in_stage(stage, UNKNOWN, seconds=0.2))
        assert answer == "The search for this run is under way. Reload the page."
    assert ReadRequest.objects.get().reads == 2


def test_link_that_nobody_waits_for_any_more_is_not_answered(world: World) -> None:
    stage = ledger_stage(world)
    link(stage, requested_at=timezone.now() - LINK_WAIT)
    world.live.sync(1)
    assert not world.requests_for(UNKNOWN)


def test_link_does_not_use_reserve(world: World) -> None:
    stage = ledger_stage(world)
    set_remaining_budget(world, 100)  # all of it is reserved
    answer = world.live.run(lambda: requests.find_in_stage(stage, UNKNOWN))
    assert answer.endswith("this hour’s API requests are used up.")
    set_remaining_budget(world, 101)
    assert find(world, stage, UNKNOWN) == [NOT_FOUND]


@pytest.mark.parametrize("seconds_ago", [0, 61], ids=["in the pause", "until one was answered"])
def test_link_after_429_sends_no_request(world: World, seconds_ago: int) -> None:
    stage = ledger_stage(world)

    async def refuse() -> None:
        await run_in_db_thread(
            budget_store.record_rate_limited, 60, timezone.now() - timedelta(seconds=seconds_ago)
        )

    world.live.run(refuse)
    answer = world.live.run(lambda: requests.find_in_stage(stage, UNKNOWN))
    assert "requests" in answer
    assert not world.sandbox.requests


def test_requests_for_links_do_not_count_against_the_even_rate(world: World) -> None:
    stage = ledger_stage(world)
    RateBudget.objects.update(burst=0)
    find(world, stage, UNKNOWN)
    assert RateBudget.objects.get().burst < 1


def test_links_have_a_limit(world: World) -> None:
    stage = ledger_stage(world)
    link(stage, "others", reads=requests.MAX_LINKS)
    assert find(world, stage, UNKNOWN) == [
        "You have reached this hour’s limit for opening new runs. Try again later."
    ]
    assert not world.requests_for(UNKNOWN)


def test_old_answer_is_asked_for_again(world: World) -> None:
    stage = ledger_stage(world)
    find(world, stage, UNKNOWN)
    ReadRequest.objects.update(answered_at=timezone.now() - requests.ANSWER_LIFETIME)
    find(world, stage, UNKNOWN)
    assert len(world.requests_for(UNKNOWN)) == 2


def test_old_requests_are_deleted_with_the_next(world: World) -> None:
    stage = ledger_stage(world)
    factories.search(requested_at=timezone.now() - requests.KEPT_FOR)
    find(world, stage, UNKNOWN)
    assert ReadRequest.objects.get().stage == stage


def test_link_with_hostile_id_stays_within_path(world: World) -> None:
    stage = ledger_stage(world)
    for run_id in ("..", ".", "a/../../b", "%2e%2e", "x\x00y", "💥" * 90):
        find(world, stage, run_id)
    assert {path.count("/") for _, path in world.sandbox.requests if "/runs/" in path} <= {9}
