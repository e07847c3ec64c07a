"""Searches for a run by its id: lists of stages, read ahead of the plan for all who search."""

from collections import Counter
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from dashboard.models import CatalogSync, RateBudget, ReadRequest, Run, Stage
from dashboard.models.sync.read_requests import SEARCH_AHEAD
from dashboard.sync import requests, search
from dashboard.sync.requests import SearchProgress
from dashboard.upstream import budget_store
from tests.support import factories
from tests.support.live_runs import wait_until
from tests.support.world import World

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def next_stages(limit: int = 100, being_read: set[int] | None = None) -> list[str]:
    """The next stages to read for searches, by pipeline."""
    stages = search.next_stages(timezone.now(), limit, being_read or set())
    return [f"{stage.pipeline.slug} {stage.name}" for stage in stages]


def stages_read_before(*names: str, **fields: object) -> list[Stage]:
    """Stages of as many pipelines, the first read most recently, all before any search."""
    now = timezone.now()
    return [
        factories.stage(
            name,
            factories.pipeline(f"p{number}"),
            **{"synced_at": now - timedelta(minutes=1 + number), **fields},
        )
        for number, name in enumerate(names)
    ]


def ids(stages: list[Stage]) -> list[int]:
    return [stage.pk for stage in stages]


# --- Which stages are read -----------------------------------------------------------------------


def test_stages_with_runs_in_flight_come_first_then_production_then_the_oldest(db: None) -> None:
    stages = stages_read_before("Staging", "Production", "Development", "Production", "Staging")
    factories.run(stages[0])
    factories.search()
    assert next_stages() == [
        "p0 Staging", "p3 Production", "p1 Production", "p4 Staging", "p2 Development",
    ]  # fmt: skip


def test_stage_is_read_for_a_search_only_once(db: None) -> None:
    [stage] = stages_read_before("Production")
    factories.search()
    assert next_stages(being_read={stage.pk}) == []
    assert next_stages() == ["p0 Production"]
    Stage.objects.update(synced_at=timezone.now())
    assert next_stages() == []


@pytest.mark.parametrize("fields", [{"has_flow": False}, {"failures": 1}])
def test_stage_without_runs_or_with_a_backoff_is_not_read(
    db: None, fields: dict[str, object]
) -> None:
    stages_read_before("Production", **fields)
    factories.search()
    assert next_stages() == []


def test_only_the_stages_that_are_asked_for_are_read(db: None) -> None:
    first, _ = stages_read_before("Production", "Production")
    requests.search([first.pk], UNKNOWN)
    assert next_stages() == ["p0 Production"]


def test_read_counts_for_one_search_however_many_want_it(db: None) -> None:
    stages_read_before("Production", "Staging")
    for run_id in ("a", "b"):
        factories.search(run_id)
    assert len(next_stages()) == 2
    assert [row.reads for row in ReadRequest.objects.order_by("run_id")] == [2, 0]


def test_all_searches_have_300_reads_an_hour(db: None) -> None:
    stages_read_before("Production", "Staging")
    hour_ago = timezone.now() - timedelta(hours=1)
    factories.search("earlier", reads=299, answered_at=hour_ago)
    factories.search()
    assert next_stages() == ["p0 Production"]
    assert next_stages() == []
    ReadRequest.objects.filter(run_id="earlier").update(requested_at=hour_ago)
    assert len(next_stages()) == 2


# --- What people are told ------------------------------------------------------------------------


def progress_of(stages: list[Stage], run_id: str = UNKNOWN) -> SearchProgress:
    return requests.search(ids(stages), run_id)


def begun_earlier(stages: list[Stage]) -> None:
    began = timezone.now() - SEARCH_AHEAD
    factories.search(UNKNOWN, stages=ids(stages), requested_at=began)


@pytest.fixture
def reading_process(db: None) -> None:
    factories.leader()


@pytest.mark.usefixtures("reading_process")
def test_search_that_continues_as_planned_says_by_when() -> None:
    stages = stages_read_before("Production", "Staging", "Staging")
    times = [timezone.now() + timedelta(minutes=minutes) for minutes in (9, 20, 30)]
    for stage, at in zip(stages, times, strict=True):
        Stage.objects.filter(pk=stage.pk).update(next_sync_at=at)
    begun_earlier(stages)
    Stage.objects.filter(pk=stages[2].pk).update(synced_at=timezone.now())
    assert progress_of(stages) == SearchProgress(1, 3, planned_at=times[1])


@pytest.mark.usefixtures("reading_process")
def test_search_without_reads_says_by_when_it_continues() -> None:
    stages = stages_read_before("Production")
    factories.search("others", reads=300)
    assert progress_of(stages) == SearchProgress(0, 1, planned_at=stages[0].next_sync_at)


@pytest.mark.usefixtures("reading_process")
def test_search_says_when_a_failing_stage_is_tried_again() -> None:
    fields = {"error": "forbidden", "error_message": "No access.", "failures": 1}
    stages = stages_read_before("Production", **fields)
    assert progress_of(stages) == SearchProgress(0, 1, planned_at=stages[0].next_sync_at)


def test_search_while_no_process_reads_says_so(db: None) -> None:
    progress = progress_of(stages_read_before("Production"))
    assert progress.blocked_reason == "Sync is not running; data is not being updated."


@pytest.mark.usefixtures("reading_process")
def test_search_in_an_outage_says_so() -> None:
    factories.upstream_error("It fell over.")
    progress = progress_of(stages_read_before("Production"))
    assert progress.blocked_reason == "No updates from Northflank."


def test_search_is_over_when_all_stages_were_read_since(db: None) -> None:
    stages = stages_read_before("Production", "Staging")
    progress_of(stages)
    Stage.objects.update(synced_at=timezone.now())
    assert progress_of(stages).is_exhausted
    assert ReadRequest.objects.get().answered_at is not None


def test_search_of_fewer_stages_is_not_over_for_others(db: None) -> None:
    production, staging = stages_read_before("Production", "Staging")
    progress_of([production, staging])
    Stage.objects.filter(pk=production.pk).update(synced_at=timezone.now())
    assert progress_of([production]).is_exhausted
    assert ReadRequest.objects.get().answered_at is None


def test_search_begins_again_once_its_answer_is_too_old(db: None) -> None:
    stages = stages_read_before("Production")
    progress_of(stages)
    Stage.objects.update(synced_at=timezone.now())
    progress_of(stages)
    assert progress_of(stages).is_exhausted
    ReadRequest.objects.update(answered_at=timezone.now() - requests.ANSWER_LIFETIME)
    assert not progress_of(stages).is_exhausted


# --- What is read --------------------------------------------------------------------------------


def search_until_it_ends(world: World, *run_ids: str) -> list[SearchProgress]:
    """Search all stages of the catalog while a worker ticks; return the last progress of each."""
    stages = ids(list(Stage.objects.exclude(has_flow=False)))
    with world.live.ticking():

        def ended() -> list[SearchProgress]:
            progresses = [requests.search(stages, run_id) for run_id in run_ids]
            has_ended = all(item.is_found or item.is_exhausted for item in progresses)
            return progresses if has_ended else []

        return wait_until(ended)


@pytest.fixture
def read_world(world: World) -> World:
    """A world whose stages were read a minute ago, and are due in an hour."""
    world.sync(2)
    now = timezone.now()
    past, future = now - timedelta(minutes=1), now + timedelta(hours=1)
    Stage.objects.update(synced_at=past, next_sync_at=future, fresh_until=future)
    Run.objects.update(detail_synced_at=past, next_detail_sync_at=None)
    CatalogSync.objects.update(next_sync_at=future)
    world.sandbox.requests.clear()
    return world


def lists_read(world: World) -> Counter[str]:
    """How often the list of each stage was read."""
    return Counter(path for _, path in world.sandbox.requests if path.endswith("/runs"))


def test_search_finds_a_run_by_the_list_of_its_stage(read_world: World) -> None:
    run_id = read_world.start()
    [progress] = search_until_it_ends(read_world, run_id)
    assert progress.is_found
    assert Run.objects.get(run_id=run_id).stage.pipeline.slug == "ledger"


def test_one_read_of_each_stage_answers_all_ids_that_are_sought(read_world: World) -> None:
    progresses = search_until_it_ends(read_world, "a", "b", "c")
    assert all(progress.is_exhausted for progress in progresses)
    reads = lists_read(read_world)
    assert len(reads) == Stage.objects.exclude(has_flow=False).count()
    # All three began at once, so a stage was read at most once more for the later ones.
    assert max(reads.values()) <= 2
    search_until_it_ends(read_world, "a", "b", "c")
    assert lists_read(read_world) == reads


def test_read_for_a_search_is_that_stages_read_in_the_plan(read_world: World) -> None:
    planned = set(Stage.objects.values_list("next_sync_at", flat=True))
    search_until_it_ends(read_world, UNKNOWN)
    for stage in Stage.objects.exclude(has_flow=False):
        assert stage.next_sync_at == stage.fresh_until
        assert stage.next_sync_at not in planned


def test_reads_for_searches_do_not_count_against_the_even_rate(read_world: World) -> None:
    RateBudget.objects.update(burst=0)
    search_until_it_ends(read_world, UNKNOWN)
    assert RateBudget.objects.get().burst < 1


def test_searches_leave_the_requests_of_runs_in_flight(read_world: World) -> None:
    now: datetime = timezone.now()
    hour = now + timedelta(minutes=59)
    # Of the hour's requests as many are left as first reads leave to runs in flight.
    RateBudget.objects.update(limit=1000, remaining=330, resets_at=hour, own_requests=670)
    factories.search()

    async def tick() -> None:
        await read_world.live.worker.tick()
        await read_world.live.worker.wait_idle()

    read_world.live.run(tick)
    assert lists_read(read_world) == Counter()
    budget = budget_store.load(timezone.now())
    assert budget.requests > 200
    assert budget.first_read_requests == 0
