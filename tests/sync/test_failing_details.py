"""Details of runs that cannot be read: tried less and less often, and given up in the end."""

from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.models import Run, Stage, Upstream
from dashboard.sandbox import parse_fault
from tests.support.world import LONG_AGO, LoggedEvents, World


@pytest.mark.parametrize(("fault", "delays"), [("403", [60, 120, 240]), ("500", [10, 20, 40])])
def test_failing_run_backs_off_longer_each_time(
    world: World, fault: str, delays: list[int]
) -> None:
    run_id = world.start()
    world.sync()
    world.sandbox.faults = [parse_fault(f"{fault}@{run_id}")]
    intervals = []
    for _ in delays:
        Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
        before = timezone.now()
        world.live.sync(1)
        next_detail_sync_at = Run.objects.get(run_id=run_id).next_detail_sync_at
        assert next_detail_sync_at is not None
        intervals.append(round((next_detail_sync_at - before).total_seconds(), -1))
    assert intervals == delays


def test_failing_run_is_logged_once_at_start_and_end(
    world: World, logged_events: LoggedEvents
) -> None:
    run_id = world.start()
    world.sync()
    world.sandbox.faults = [parse_fault(f"500@{run_id}")]
    for _ in range(3):
        Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
        world.live.sync(1)
    assert [line["run"] for line in logged_events("run.read_failed")] == [run_id]
    world.sandbox.faults = []
    # It may have ended meanwhile, and is read a last time.
    Run.objects.filter(run_id=run_id).update(
        next_detail_sync_at=LONG_AGO, in_flight=False, last_viewed_at=LONG_AGO
    )
    world.live.sync(1)
    assert [line["run"] for line in logged_events("run.recovered")] == [run_id]


def end_unread(world: World, fault: str) -> str:
    """End a run whose steps are known while Northflank has this fault; return the run's id."""
    run_id = world.start()
    world.sync()
    Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1))
    Run.objects.update(next_detail_sync_at=None)
    Run.objects.filter(run_id=run_id).update(
        in_flight=False, concluded=True, detail_synced_at=LONG_AGO, last_viewed_at=LONG_AGO
    )
    world.sandbox.faults = [parse_fault(fault.format(run_id))]
    return run_id


def read_until_given_up(world: World, run_id: str) -> None:
    """Read the run whenever it is due, as if the time until then had passed."""
    run = Run.objects.filter(run_id=run_id)
    run.update(next_detail_sync_at=LONG_AGO)
    for _ in range(9):
        run.exclude(next_detail_sync_at=None).update(next_detail_sync_at=LONG_AGO)
        world.live.connection.retry_at = 0
        world.live.sync(1)


@pytest.mark.slow
def test_outage_of_northflank_takes_no_try_of_an_ended_run(world: World) -> None:
    run_id = end_unread(world, "502-html")
    read_until_given_up(world, run_id)
    assert Upstream.objects.get().error == "server_error"
    run = Run.objects.get(run_id=run_id)
    assert (run.failures, run.next_detail_sync_at is None) == (0, False)
    world.sandbox.faults = []
    for _ in range(2):  # the first answer ends the outage
        world.live.connection.retry_at = 0
        world.live.sync(1)
    assert Run.objects.get(run_id=run_id).next_detail_sync_at is None
    assert world.requests_for(run_id)
