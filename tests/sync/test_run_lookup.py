"""Run lookups of an unknown run: one request, however many users look for it."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.db.threads import run_in_db_thread
from dashboard.models import RateBudget, Run, RunLookup, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import run_lookup
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from tests.support import factories, live_runs
from tests.support.world import World, get_run

UNKNOWN = "00000000-0000-4000-8000-000000000000"


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
    connection: Connection | None = None,
    user_pk: int | None = None,
) -> list[str]:
    async def find_concurrently() -> list[str]:
        target = connection or world.live.connection
        return await asyncio.gather(
            *(
                run_lookup.find_in_stage(target, stage, run_id, user_pk=user_pk)
                for _ in range(times)
            )
        )

    return world.live.run(find_concurrently)


@pytest.fixture
def other_connection(world: World) -> Iterator[Connection]:
    """The connection of another process."""

    async def connect() -> Connection:
        return Connection(world.live.connection.token, world.live.upstream_url)

    other = world.live.run(connect)
    yield other
    world.live.run(other.close)


def set_remaining_budget(world: World, requests: int) -> None:
    """Set how many of the hour's thousand requests remain, also for the next answer."""
    RateBudget.objects.all().delete()
    now = timezone.now()
    RateBudget.objects.create(
        limit=1000, remaining=requests, resets_at=now + timedelta(minutes=30), synced_at=now
    )


def test_existing_run_is_mirrored_with_steps(world: World) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    find(world, stage, run_id)
    assert get_run(run_id).steps is not None


def test_existing_run_lookup_returns_no_message(world: World) -> None:
    stage = ledger_stage(world)
    assert find(world, stage, world.start()) == [""]


def test_run_lookup_stores_working_path_spelling(world: World) -> None:
    stage = ledger_stage(world)
    Stage.objects.update(confirmed_path_segment="")
    world.sandbox.choices["stage-spelling"] = "capitalised"
    find(world, Stage.objects.select_related("pipeline__project").get(pk=stage.pk), world.start())
    assert set(
        Stage.objects.exclude(confirmed_path_segment="").values_list(
            "confirmed_path_segment", flat=True
        )
    ) == {"Production"}
    other = Stage.objects.select_related("pipeline__project").get(
        pipeline=stage.pipeline, name="Staging"
    )
    world.sandbox.requests.clear()
    find(world, other, UNKNOWN)
    assert [request.split("/")[-3] for request in world.requests_for(UNKNOWN)] == ["Staging"]


def test_concurrent_run_lookups_share_one_request(world: World) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    find(world, stage, run_id, times=25)
    assert len(world.requests_for(run_id)) == 1


def test_mirrored_run_lookup_sends_no_request(world: World) -> None:
    run_id = world.start()
    stage = ledger_stage(world)
    find(world, stage, run_id)
    assert not world.sandbox.requests


def test_unknown_run_lookup_returns_not_found_message(world: World) -> None:
    assert find(world, ledger_stage(world), UNKNOWN) == ["Not found on Northflank either."]


def test_not_found_answer_is_stored(world: World) -> None:
    stage = ledger_stage(world)
    find(world, stage, UNKNOWN)
    find(world, stage, UNKNOWN)
    assert len(world.requests_for(UNKNOWN)) == 1


def test_not_found_answer_is_stored_per_stage(world: World) -> None:
    stage = ledger_stage(world)
    find(world, stage, UNKNOWN)
    other = Stage.objects.select_related("pipeline__project").get(
        pipeline__slug="ledger", name="Staging"
    )
    find(world, other, UNKNOWN)
    assert len(world.requests_for(UNKNOWN)) == 2


def test_failed_run_lookup_is_not_stored_as_not_found(world: World) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    world.sandbox.faults = [parse_fault("500*2")]
    find(world, stage, run_id)
    assert find(world, stage, run_id) == [""]


def test_failed_run_lookup_returns_error_message(world: World) -> None:
    stage = ledger_stage(world)
    world.sandbox.faults = [parse_fault("500")]
    assert find(world, stage, UNKNOWN)[0].startswith("Lookup on Northflank failed")


def test_run_lookup_in_an_outage_sends_nothing_and_postpones_no_probe(world: World) -> None:
    """Each sent four requests, after which the end of the outage was noticed later."""
    stage = ledger_stage(world)
    world.sandbox.faults = [parse_fault("502-html")]
    world.make_due()
    world.live.sync(1)
    assert world.live.connection.outage
    retry_at = world.live.connection.retry_at
    world.sandbox.requests.clear()
    assert find(world, stage, UNKNOWN, times=3) == ["Northflank is unreachable."] * 3
    assert not world.sandbox.requests
    assert world.live.connection.retry_at == retry_at


def test_run_lookup_in_an_outage_finds_a_mirrored_run(world: World) -> None:
    run_id = world.start()
    stage = ledger_stage(world)
    world.sandbox.faults = [parse_fault("502-html")]
    world.make_due()
    world.live.sync(1)
    assert world.live.connection.outage
    assert find(world, stage, run_id) == [""]


def test_run_lookup_ignores_requests_of_searches(world: World) -> None:
    stage = ledger_stage(world)
    factories.search_lookup(10_000, parent=stage)
    assert find(world, stage, world.start()) == [""]


def test_run_lookup_does_not_use_reserve(world: World) -> None:
    stage = ledger_stage(world)
    set_remaining_budget(world, 100)  # all of it is reserved
    assert find(world, stage, UNKNOWN)[0].endswith("this hour’s requests are used up.")
    set_remaining_budget(world, 101)
    assert find(world, stage, UNKNOWN) == ["Not found on Northflank either."]
    assert len(world.requests_for(UNKNOWN)) == 1


def test_run_lookup_limit_of_one_user_does_not_affect_others(
    world: World, viewer: User, manager: User
) -> None:
    stage = ledger_stage(world)
    now = timezone.now()
    RunLookup.objects.bulk_create(
        RunLookup(run_id=f"r{n}", stage=stage, request_count=1, requested_at=now, user=viewer)
        for n in range(run_lookup.MAX_REQUESTS_PER_USER)
    )
    assert find(world, stage, UNKNOWN, user_pk=viewer.pk)[0].endswith(
        "120 lookup requests of this hour are used up, by links to runs not read yet."
    )
    assert not world.requests_for(UNKNOWN)
    assert find(world, stage, UNKNOWN, user_pk=manager.pk) == ["Not found on Northflank either."]


def test_failing_run_lookup_counts_each_request(world: World, viewer: User) -> None:
    stage = ledger_stage(world)
    world.sandbox.faults = [parse_fault(f"forbidden:payments@/runs/{UNKNOWN}")]
    now = timezone.now()
    RunLookup.objects.create(
        run_id=UNKNOWN,
        stage=stage,
        request_count=run_lookup.MAX_REQUESTS_PER_USER - 1,
        requested_at=now,
        user=viewer,
        error="No access.",
    )
    find(world, stage, UNKNOWN, user_pk=viewer.pk)
    find(world, stage, UNKNOWN, user_pk=viewer.pk)
    assert len(world.requests_for(UNKNOWN)) == 1


def test_run_search_that_is_denied_has_a_reason(world: World) -> None:
    stage = ledger_stage(world)

    def denied_reason() -> str:
        progress = world.live.run(
            lambda: run_lookup.search(world.live.connection, [stage.pk], UNKNOWN)
        )
        return progress.blocked_reason

    set_remaining_budget(world, 100)  # all of it is reserved
    assert denied_reason().endswith("this hour’s requests are used up.")
    set_remaining_budget(world, 900)

    async def refuse() -> None:
        await run_in_db_thread(budget_store.record_rate_limited, 60, timezone.now())

    world.live.run(refuse)
    assert denied_reason().endswith("rate limited by Northflank.")
    assert not world.requests_for(UNKNOWN)


def test_run_lookup_older_than_an_hour_does_not_count(world: World) -> None:
    stage = ledger_stage(world)
    two_hours_ago = timezone.now() - timedelta(hours=2)
    RunLookup.objects.create(
        run_id=UNKNOWN, stage=stage, request_count=5, from_search=True, requested_at=two_hours_ago
    )
    find(world, stage, UNKNOWN)
    row = RunLookup.objects.get(run_id=UNKNOWN)
    assert (row.request_count, row.from_search) == (1, False)


def test_not_found_answer_applies_to_all_processes(
    world: World, other_connection: Connection
) -> None:
    stage = ledger_stage(world)
    find(world, stage, UNKNOWN)
    assert find(world, stage, UNKNOWN, connection=other_connection) == [
        "Not found on Northflank either."
    ]
    assert len(world.requests_for(UNKNOWN)) == 1


def test_concurrent_run_lookups_in_two_processes_send_one_request(
    world: World, other_connection: Connection
) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    world.sandbox.faults = [parse_fault("latency:0.2")]

    async def find_concurrently() -> list[str]:
        return await asyncio.gather(
            *(
                run_lookup.find_in_stage(connection, stage, run_id)
                for connection in (world.live.connection, other_connection) * 3
            )
        )

    assert world.live.run(find_concurrently) == [""] * 6
    assert len(world.requests_for(run_id)) == 1


def test_run_lookup_with_expired_lease_is_repeated(world: World) -> None:
    stage = ledger_stage(world)
    run_id = world.start()
    now = timezone.now()
    expired = RunLookup.objects.create(
        run_id=run_id, stage=stage, request_count=1, requested_at=now, leased_until=now
    )
    assert find(world, stage, run_id) == [""]
    expired.refresh_from_db()
    assert expired.request_count == 2


def test_expired_run_lookups_are_deleted(world: World) -> None:
    stage = ledger_stage(world)
    factories.search_lookup(
        1, parent=stage, requested_at=timezone.now() - run_lookup.ANSWER_LIFETIME
    )
    find(world, stage, UNKNOWN)
    assert [row.run_id for row in RunLookup.objects.all()] == [UNKNOWN]


def test_expired_not_found_answer_is_requested_again(world: World) -> None:
    stage = ledger_stage(world)
    find(world, stage, UNKNOWN)
    RunLookup.objects.update(requested_at=timezone.now() - run_lookup.ANSWER_LIFETIME)
    find(world, stage, UNKNOWN)
    assert len(world.requests_for(UNKNOWN)) == 2


def test_repeated_run_lookup_is_possible_only_after_interval(world: World) -> None:
    stage = ledger_stage(world)
    find(world, stage, UNKNOWN)
    requested_at = RunLookup.objects.get().requested_at
    assert run_lookup.retry([stage.pk], UNKNOWN) == requested_at + run_lookup.MIN_RETRY_INTERVAL
    find(world, stage, UNKNOWN)
    assert len(world.requests_for(UNKNOWN)) == 1
    RunLookup.objects.update(requested_at=requested_at - run_lookup.MIN_RETRY_INTERVAL)
    assert run_lookup.retry([stage.pk], UNKNOWN) is None
    find(world, stage, UNKNOWN)
    assert len(world.requests_for(UNKNOWN)) == 2


@pytest.mark.parametrize("spelling", ["lower", "capitalised"])
def test_run_lookup_in_unread_stage_tries_both_path_spellings(world: World, spelling: str) -> None:
    world.sandbox.choices["stage-spelling"] = spelling
    live_runs.stage(("payments", "ledger", "Production"))
    Stage.objects.update(confirmed_path_segment="")
    stage = ledger_stage(world)
    assert find(world, stage, world.start()) == [""]


@pytest.mark.parametrize("seconds_ago", [0, 61], ids=["in the pause", "until one was answered"])
def test_run_lookup_after_429_sends_no_request(world: World, seconds_ago: int) -> None:
    stage = ledger_stage(world)

    async def refuse() -> None:
        await run_in_db_thread(
            budget_store.record_rate_limited, 60, timezone.now() - timedelta(seconds=seconds_ago)
        )

    world.live.run(refuse)
    assert find(world, stage, UNKNOWN)[0].endswith("rate limited by Northflank.")
    assert not world.sandbox.requests


def test_run_lookup_with_hostile_id_stays_within_path(world: World) -> None:
    stage = ledger_stage(world)
    for run_id in ("..", ".", "a/../../b", "%2e%2e", "x\x00y", "💥" * 90):
        find(world, stage, run_id)
    assert {path.count("/") for _, path in world.sandbox.requests} <= {9}


def test_run_lookup_not_found_creates_no_run(world: World) -> None:
    before = Run.objects.count()
    stage = ledger_stage(world)
    after = Run.objects.count()
    find(world, stage, UNKNOWN)
    assert Run.objects.count() == after > before
