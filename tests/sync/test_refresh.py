"""Refresh now: one request at a time for a page, and a share of the hour for all pages."""

from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.models import RateBudget, ReadRequest, Run, Stage
from dashboard.sync import refresh
from dashboard.texts.rich_text import ClockTime
from tests.support import factories
from tests.support.messages import keys, keys_and_params, params
from tests.support.world import World, get_run

pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def stage() -> Stage:
    """A stage that is read in an hour, while a process reads."""
    factories.leader()
    return factories.stage(next_sync_at=timezone.now() + timedelta(hours=1))


def test_refreshed_stage_is_due(stage: Stage) -> None:
    assert refresh.refresh_stage(stage) == ""
    assert Stage.objects.due(timezone.now()).get() == stage
    request = ReadRequest.objects.get()
    assert (request.kind, request.reads) == ("refresh", 1)


@pytest.mark.parametrize("due_in", [None, timedelta(hours=1)])
def test_refreshed_run_is_due(stage: Stage, due_in: timedelta | None) -> None:
    due_at = None if due_in is None else timezone.now() + due_in
    run = factories.run(stage, next_detail_sync_at=due_at)
    assert refresh.refresh_run(run) == ""
    assert Run.objects.due(timezone.now()).get() == run


def test_refresh_reads_at_once_despite_a_backoff(stage: Stage) -> None:
    Stage.objects.update(failures=3)
    refresh.refresh_stage(stage)
    assert Stage.objects.due(timezone.now()).exists()


def test_stage_without_flow_is_checked_for_one(stage: Stage) -> None:
    Stage.objects.update(has_flow=False, flow_synced_at=timezone.now())
    stage.refresh_from_db()
    refresh.refresh_stage(stage)
    assert Stage.objects.get().flow_synced_at is None


def test_page_is_read_once_in_15_seconds(stage: Stage) -> None:
    run = factories.run(stage)
    for _ in range(2):
        reasons = [refresh.refresh_stage(stage), refresh.refresh_run(run)]
    for reason in reasons:
        assert keys(reason) == "too_soon"
        assert 1 <= int(str(params(reason)["seconds"])) <= 15
    assert ReadRequest.objects.count() == 2
    past = timezone.now() - refresh.MIN_INTERVAL
    ReadRequest.objects.update(requested_at=past)
    assert refresh.refresh_stage(stage) == ""
    assert refresh.refresh_run(run) == ""


def test_all_pages_have_a_tenth_of_the_hour(stage: Stage) -> None:
    now = timezone.now()
    RateBudget.objects.create(
        limit=20, remaining=20, resets_at=now + timedelta(hours=1), synced_at=now
    )
    runs = [factories.run(stage) for _ in range(3)]
    assert [refresh.refresh_run(run) for run in runs[:2]] == ["", ""]
    first = ReadRequest.objects.earliest("requested_at")
    reason = refresh.refresh_run(runs[2])
    until = ClockTime(first.requested_at + timedelta(hours=1), None)
    assert keys_and_params(reason) == ("used_up", {"n": 2, "time": until})
    assert Run.objects.get(pk=runs[2].pk).next_detail_sync_at is None
    ReadRequest.objects.filter(pk=first.pk).update(requested_at=now - timedelta(hours=1))
    assert refresh.refresh_run(runs[2]) == ""


def test_refresh_while_nothing_is_read_says_why() -> None:
    stage = factories.stage()
    assert "Sync is not running" in str(refresh.refresh_stage(stage))
    factories.leader()
    factories.upstream_error("It fell over.")
    assert str(refresh.refresh_stage(stage)) == "No updates from Northflank."
    assert not ReadRequest.objects.exists()


def test_refresh_sends_one_request(world: World) -> None:
    world.sync(2)
    now = timezone.now()
    future = now + timedelta(hours=1)
    recent = {"synced_at": now - timedelta(seconds=1), "fresh_until": future}
    Stage.objects.update(**recent, next_sync_at=future, next_history_page=None)
    Run.objects.update(detail_synced_at=now, next_detail_sync_at=None)
    run_id = world.start()
    world.sandbox.requests.clear()
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    assert refresh.refresh_stage(stage) == ""

    async def tick() -> None:
        await world.live.worker.tick()
        await world.live.worker.wait_idle()

    world.live.run(tick)
    assert [path.split("/")[5] for path in world.requests_for("/ledger/")] == ["ledger"]
    assert get_run(run_id).stage == stage
