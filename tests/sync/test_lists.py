"""Whatever the order and form of Northflank's lists, all runs end up in the mirror."""

from datetime import UTC, datetime

import pytest

from dashboard.models import Run, Stage
from dashboard.models.catalog import ListOrder
from dashboard.sync.worker import SyncWorker
from tests.support.world import LONG_AGO, World, the_run

ORDERS = ["newest-first", "oldest-first", "shuffled"]


@pytest.fixture(autouse=True)
def _lists_of_several_pages(world: World) -> None:
    world.restart(history_hours=72)


def mirrored(**only: object) -> set[str]:
    return set(Run.objects.filter(**only).values_list("run_id", flat=True))


@pytest.mark.parametrize("order", ORDERS)
def test_all_runs_in_flight_are_mirrored_soon(world: World, order: str) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync(2)
    assert world.ids(in_flight=True) <= mirrored(in_flight=True)


@pytest.mark.parametrize("order", ORDERS)
def test_the_whole_history_is_mirrored_in_the_end(world: World, order: str) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync(6)
    assert mirrored() == world.ids()


@pytest.mark.parametrize("order", ORDERS)
def test_a_run_started_later_is_mirrored(world: World, order: str) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync(2)
    run_id = world.start()
    world.make_due()
    world.sync()
    assert run_id in mirrored(in_flight=True)


@pytest.mark.parametrize("order", ORDERS)
def test_runs_that_end_are_seen_to_end(world: World, order: str) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync()
    world.now += 1200
    for _ in range(2):  # what a list shows no more is asked for one by one
        world.make_due()
        world.sync()
    assert mirrored(in_flight=True) == world.ids(in_flight=True)


@pytest.mark.parametrize(
    ("order", "observed"),
    zip(ORDERS, [ListOrder.NEWEST, ListOrder.OLDEST, ListOrder.NONE], strict=True),
)
def test_the_order_is_observed(world: World, order: str, observed: ListOrder) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync()
    assert Stage.objects.get(pipeline__slug="ledger", name="Staging").order == observed


def test_a_list_that_changes_its_order_is_noticed(world: World) -> None:
    world.sync()
    world.sandbox.choices["run-order"] = "oldest-first"
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(1)
    assert Stage.objects.get(pipeline__slug="ledger", name="Staging").order == ListOrder.OLDEST


def test_history_that_is_complete_is_not_read_again(world: World) -> None:
    world.sync(6)
    world.sandbox.requests.clear()
    Run.objects.update(next_read_at=None)
    world.make_due()
    world.sync()
    assert len(world.asked("/ledger/release-flows/production/runs")) == 1


def test_reading_what_has_not_changed_writes_no_version(world: World) -> None:
    world.sync(6)
    before = dict(Run.objects.values_list("pk", "version"))
    world.make_due()
    world.sync()
    # Now and then a success's detail is read for what is usual, and its steps are news.
    listed = dict(Run.objects.filter(detail_seen_at=None).values_list("pk", "version"))
    assert len(listed) > len(before) / 2
    assert listed.items() <= before.items()


@pytest.mark.parametrize("form", ["omitted", "null", "empty"])
def test_the_last_pages_cursor_may_take_any_form(world: World, form: str) -> None:
    world.sandbox.choices["last-cursor"] = form
    world.sync()
    assert world.ids(in_flight=True) <= mirrored(in_flight=True)


@pytest.mark.parametrize("form", ["space", "T", "no-fraction"])
def test_times_may_take_any_form(world: World, form: str) -> None:
    world.sandbox.choices["timestamps"] = form
    run_id = world.start()
    world.sync()
    assert the_run(run_id).created_at == datetime.fromtimestamp(world.now, UTC)


def test_runs_without_optional_fields_are_mirrored(world: World) -> None:
    from dashboard.sandbox import parse_fault

    world.sandbox.faults = [parse_fault("missing-fields:createdAt,name,startedAt@/runs")]
    world.sync()
    assert world.ids(in_flight=True) <= mirrored(in_flight=True)


def test_a_run_of_a_status_nobody_knows_is_mirrored(world: World) -> None:
    from dashboard.sandbox import parse_fault

    world.sandbox.faults = [parse_fault("unknown-status:dreaming@/runs")]
    world.sync()
    assert set(Run.objects.values_list("status", flat=True)) == {"dreaming"}


def test_a_run_that_vanished_is_gone(world: World) -> None:
    run_id = world.start()
    world.sync()
    world.restart()  # which loses what was started by hand
    world.make_due()
    world.sync()
    assert the_run(run_id).gone_at is not None


def test_a_watched_run_has_its_steps_read(world: World) -> None:
    from django.utils import timezone

    from dashboard.sync import watchers

    run_id = world.start()
    world.sync()
    watchers.in_run(the_run(run_id), timezone.now())
    world.sync()
    assert the_run(run_id).steps is not None


def test_a_run_that_was_watched_has_its_end_read(world: World) -> None:
    test_a_watched_run_has_its_steps_read(world)
    run = Run.objects.get(detail_seen_at__isnull=False)
    world.now += 3600
    Run.objects.update(next_read_at=None)
    for _ in range(2):
        world.make_due()
        world.sync()
    run.refresh_from_db()
    assert run.raw["concluded"] is True


def test_a_worker_that_stops_takes_its_name_away(world: World) -> None:
    import asyncio

    from dashboard.models import Worker

    worker = SyncWorker(world.live.connection)

    async def for_a_moment() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        await asyncio.sleep(0.05)
        stop.set()
        await task

    world.live.run(for_a_moment)
    assert not Worker.objects.exists()


def test_a_worker_says_that_it_is_there(world: World) -> None:
    from dashboard.models import Worker

    world.sync()
    assert Worker.objects.get().beat_at is not None


def test_runs_in_flight_are_asked_for_by_themselves_at_the_first_reading(world: World) -> None:
    # One that hangs may stand behind any number of newer ones.
    world.sync()
    first = len(world.asked("payments/pipelines/ledger/release-flows/staging/runs"))
    world.sync(2)
    later = len(world.asked("payments/pipelines/ledger/release-flows/staging/runs")) - first
    assert (first, later) == (2, 2)  # the newest, those in flight; then the newest, the past
