"""Run lists of any order and form: all runs get into the mirror."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import Run, Stage
from dashboard.northflank import NorthflankError, Page, RequestRejected
from dashboard.sandbox import parse_fault
from dashboard.sync import stage_reader
from dashboard.sync.run_reader import read_run
from dashboard.sync.stage_reader import StageReader
from tests.support.world import LONG_AGO, T0, World, api_run, get_run

ORDERS = ["newest-first", "oldest-first", "shuffled"]


@pytest.fixture(autouse=True)
def _lists_of_several_pages(world: World) -> None:
    world.restart(history_hours=72)
    world.keep_one_pipeline()


def mirrored_ids(**conditions: object) -> set[str]:
    return set(Run.objects.filter(**conditions).values_list("run_id", flat=True))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_runs_in_flight_are_mirrored_after_two_rounds_in_any_order(
    world: World, order: str
) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync(2)
    assert world.ids(in_flight=True) <= mirrored_ids(in_flight=True)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_run_history_is_mirrored_completely_in_any_order(world: World, order: str) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync(6)
    assert mirrored_ids() == world.ids()


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_run_started_later_is_mirrored_in_any_order(world: World, order: str) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync(2)
    run_id = world.start()
    world.make_due()
    world.sync()
    assert run_id in mirrored_ids(in_flight=True)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_run_that_ended_is_no_longer_in_flight_in_any_order(world: World, order: str) -> None:
    world.sandbox.choices["run-order"] = order
    world.sync()
    world.now += 1200
    for _ in range(2):  # runs no longer in the list are requested one by one
        Run.objects.update(next_detail_sync_at=None)
        world.make_due()
        world.sync()
    assert mirrored_ids(in_flight=True) == world.ids(in_flight=True)


@pytest.mark.slow
def test_complete_run_history_is_not_read_again(world: World) -> None:
    world.sync(6)
    world.sandbox.requests.clear()
    Run.objects.update(next_detail_sync_at=None)
    world.make_due()
    world.sync()
    assert len(world.requests_for("/ledger/release-flows/production/runs")) == 1


LEDGER_STAGING = "/ledger/release-flows/staging/runs"


def ledger_staging() -> Stage:
    return Stage.objects.select_related("pipeline__project").get(
        pipeline__slug="ledger", name="Staging"
    )


def read_ledger_staging(world: World) -> list[str]:
    """Read the stage and the details that are due then; return the requests for its runs."""
    Run.objects.update(next_detail_sync_at=None)
    world.sandbox.requests.clear()
    reader = StageReader(world.live.connection, world.live.reads.term)
    stage = ledger_staging()
    world.live.run(lambda: reader.read_runs(stage, with_history=False))
    Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1))
    world.live.sync(1)
    return world.requests_for(LEDGER_STAGING)


def upstream_runs(world: World) -> list[Any]:
    """The runs of the stage upstream, newest first."""
    flow = world.sandbox.world.find_flow("payments", "ledger", "staging")
    assert flow is not None
    return list(world.sandbox.world.list_runs(flow, world.now))


@pytest.mark.slow
@pytest.mark.parametrize("is_first_read", [True, False])
def test_250_runs_between_two_reads_are_mirrored_completely(
    world: World, is_first_read: bool
) -> None:
    world.sync(6)
    assert ledger_staging().next_history_page is None
    new = upstream_runs(world)[:250]
    Run.objects.filter(run_id__in=[run.id for run in new]).delete()
    if is_first_read:  # after a long outage
        two_hours_ago = timezone.now() - timedelta(hours=2)
        Stage.objects.update(synced_at=two_hours_ago, fresh_until=two_hours_ago)
        Stage.objects.update(next_sync_at=LONG_AGO)
        world.live.sync(1)
    world.sync(6)
    assert mirrored_ids() == world.ids()


@pytest.mark.slow
def test_100_new_runs_have_those_in_flight_behind_them_read(world: World) -> None:
    world.sync(6)
    stuck = upstream_runs(world)[150]
    stuck.concluded_at = world.now + 1e6
    new = [run.id for run in upstream_runs(world)[:200]]
    Run.objects.filter(run_id__in=new).delete()
    requests = read_ledger_staging(world)
    assert Run.objects.filter(run_id=stuck.id, in_flight=True).exists()
    assert len(requests) == 2


@pytest.mark.slow
def test_interrupted_read_of_100_new_runs_does_not_hide_those_behind_them(world: World) -> None:
    world.sync(6)
    new = [run.id for run in upstream_runs(world)[:200]]
    Run.objects.filter(run_id__in=new).delete()
    reader, stage = StageReader(world.live.connection, world.live.reads.term), ledger_staging()
    world.live.run(lambda: reader.read_page(stage, 1))
    stage = ledger_staging()
    assert (stage.in_flight_incomplete, stage.next_history_page) == (True, 2)


def read_in_flight(world: World, *, is_short: bool = False) -> list[str]:
    """Read the runs in flight of the stage; return the requests for them."""
    world.sandbox.requests.clear()
    reader, stage = StageReader(world.live.connection, world.live.reads.term), ledger_staging()
    world.live.run(lambda: reader.read_in_flight(stage, is_short=is_short))
    return world.requests_for(LEDGER_STAGING)


@pytest.mark.slow
def test_short_read_of_runs_in_flight_leaves_those_behind_its_page_to_a_later_one(
    world: World,
) -> None:
    for run in upstream_runs(world)[:150]:
        run.concluded_at = world.now + 1e6
    world.sync(6)
    Run.objects.update(next_detail_sync_at=None)
    assert len(read_in_flight(world, is_short=True)) == 1
    assert not Run.objects.exclude(next_detail_sync_at=None).exists()
    assert len(read_in_flight(world)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "list_requests", "detail_requests"), [(0, 1, 0), (1, 1, 1), (2, 2, 0), (20, 2, 0)]
)
def test_runs_in_flight_behind_first_page_take_one_more_request(
    world: World, count: int, list_requests: int, detail_requests: int
) -> None:
    for run in upstream_runs(world)[110 : 110 + count]:
        run.concluded_at = world.now + 1e6
    world.sync(6)
    requests = read_ledger_staging(world)
    lists = [request for request in requests if request.endswith("/runs")]
    assert (len(lists), len(requests) - len(lists)) == (list_requests, detail_requests)


@pytest.mark.slow
def test_run_behind_first_page_that_ended_is_read_again(world: World) -> None:
    runs = upstream_runs(world)[110:113]
    for run in runs:
        run.concluded_at = world.now + 1e6
    world.sync(6)
    runs[0].concluded_at = world.now - 1
    read_ledger_staging(world)
    assert [get_run(run.id).in_flight for run in runs] == [False, True, True]


@pytest.mark.parametrize(
    ("steps", "is_newest_first"),
    [((-1, -1), True), ((2, -9), True), ((1, 1), False), ((-9, 6), False), ((0, 0), True)],
)
def test_order_of_a_list_shows_on_its_first_page(
    steps: tuple[int, ...], *, is_newest_first: bool
) -> None:
    times = [T0, *(T0 + timedelta(seconds=sum(steps[: n + 1])) for n in range(len(steps)))]
    runs = tuple(api_run(f"r{n}", created_at=time) for n, time in enumerate(times))
    assert stage_reader._is_newest_first(Page(runs, has_next=True)) is is_newest_first


@pytest.fixture
def unreadable_older_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which each page but the first of all runs is refused."""
    client = world.live.connection.client
    list_runs = client.list_runs

    async def list_first_page(*args: Any, page: int, concluded: bool | None, **rest: Any) -> Any:
        if page > 1 and concluded is None:
            raise RequestRejected("No page beyond the first.", http_status=400)
        return await list_runs(*args, page=page, concluded=concluded, **rest)

    return lambda: monkeypatch.setattr(client, "list_runs", list_first_page)


@pytest.mark.parametrize("order", ORDERS)
def test_unreadable_page_of_older_runs_does_not_stop_reads_of_newer_ones(
    world: World, unreadable_older_pages: Callable[[], None], order: str
) -> None:
    """The stage failed at each read, since each tried that page again."""
    world.sandbox.choices["run-order"] = order
    world.sync()
    unreadable_older_pages()
    run_id = world.start("payments/ledger/staging")
    Stage.objects.update(synced_at=LONG_AGO, next_history_page=2)
    errors = []
    for _ in range(3):  # without older runs after the first
        Stage.objects.update(next_sync_at=LONG_AGO)
        world.live.sync(1)
        errors.append(ledger_staging().error)
    assert errors == ["rejected", "", ""]
    assert run_id in mirrored_ids(in_flight=True)


def test_unreadable_page_of_older_runs_does_not_stop_the_first_read_after_a_failure(
    world: World, unreadable_older_pages: Callable[[], None]
) -> None:
    world.sandbox.choices["run-order"] = "oldest-first"
    world.sync()
    unreadable_older_pages()
    Stage.objects.update(
        synced_at=None, failures=1, error="timeout", next_history_page=2, next_sync_at=LONG_AGO
    )
    world.live.sync(1)
    stage = ledger_staging()
    assert (stage.error, stage.synced_at is None) == ("", False)


@pytest.mark.slow
def test_unchanged_runs_keep_their_versions(world: World) -> None:
    world.sync(6)
    before = dict(Run.objects.values_list("pk", "version"))
    world.make_due()
    world.sync()
    # At times a success's detail is read for the baseline, and its steps are a change.
    list_versions = dict(Run.objects.filter(detail_synced_at=None).values_list("pk", "version"))
    assert len(list_versions) > len(before) / 2
    assert list_versions.items() <= before.items()


@pytest.mark.parametrize("form", ["space", "T", "no-fraction"])
def test_timestamps_in_any_form_are_decoded(world: World, form: str) -> None:
    world.sandbox.choices["timestamps"] = form
    run_id = world.start()
    world.sync()
    assert get_run(run_id).created_at == datetime.fromtimestamp(world.now, UTC)


def test_runs_without_optional_fields_are_mirrored(world: World) -> None:
    from dashboard.sandbox import parse_fault

    world.sandbox.faults = [parse_fault("missing-fields:createdAt,name,startedAt@/runs")]
    world.sync()
    assert world.ids(in_flight=True) <= mirrored_ids(in_flight=True)


def test_run_of_unknown_status_is_mirrored(world: World) -> None:
    from dashboard.sandbox import parse_fault

    world.sandbox.faults = [parse_fault('field:status="dreaming"@/runs')]
    world.sync()
    assert set(Run.objects.values_list("status", flat=True)) == {"dreaming"}


def test_run_no_longer_found_is_removed(world: World) -> None:
    run_id = world.start()
    world.sync()
    world.restart()  # which drops runs started by requests
    world.make_due()
    world.sync()
    assert get_run(run_id).removed_at is not None


def read_unfound_run(world: World, run_id: str) -> list[str]:
    """Read a run whose detail is answered with a 404; return the requests for its stage."""
    world.sandbox.faults.append(
        parse_fault(f"404@GET /v1/projects/payments/pipelines{LEDGER_STAGING}/{run_id}$")
    )
    world.sandbox.requests.clear()
    run = Run.objects.select_related("stage__pipeline__project").get(run_id=run_id)
    with contextlib.suppress(NorthflankError):
        world.live.run(lambda: read_run(world.live.connection, run))
    return world.requests_for(LEDGER_STAGING)


@pytest.mark.slow
@pytest.mark.parametrize(("in_flight", "is_removed"), [(50, True), (150, False)])
def test_run_behind_many_in_flight_is_removed_if_one_page_has_them(
    world: World, in_flight: int, *, is_removed: bool
) -> None:
    runs = upstream_runs(world)
    for run in runs[:in_flight]:
        run.concluded_at = world.now + 1e6
    world.sync(6)
    runs[10].concluded_at = world.now - 1  # no longer in the list of those in flight
    requests = read_unfound_run(world, runs[10].id)
    assert (get_run(runs[10].id).removed_at is not None) == is_removed
    assert len([request for request in requests if request.endswith("/runs")]) == 1


@pytest.mark.slow
def test_run_in_flight_is_kept_if_the_list_has_all_runs(world: World) -> None:
    runs = upstream_runs(world)[:150]  # two pages
    for run in runs:
        run.concluded_at = world.now + 1e6
    world.sync(6)
    listed = [{"id": run.id, "status": "success", "concluded": True} for run in runs[:100]]
    data = json.dumps({"runs": listed})
    world.sandbox.faults = [
        parse_fault(f"data:{data}@GET /v1/projects/payments/pipelines{LEDGER_STAGING}$")
    ]
    read_unfound_run(world, runs[140].id)
    run_row = get_run(runs[140].id)
    assert (run_row.removed_at, run_row.failures) == (None, 1)


@pytest.mark.slow
def test_concluded_run_is_removed_if_the_newest_runs_lack_it(world: World) -> None:
    world.sync(6)
    run = upstream_runs(world)[150]
    requests = read_unfound_run(world, run.id)
    assert get_run(run.id).removed_at is not None
    assert len([request for request in requests if request.endswith("/runs")]) == 1


@pytest.mark.slow
def test_run_on_the_third_page_of_those_in_flight_is_kept_despite_a_404(world: World) -> None:
    runs = upstream_runs(world)[:250]
    for run in runs:
        run.concluded_at = world.now + 1e6
    world.sync(6)
    read_unfound_run(world, runs[240].id)
    run = get_run(runs[240].id)
    assert (run.removed_at, run.failures) == (None, 1)


def test_watched_run_has_its_steps_read(world: World) -> None:
    from django.utils import timezone

    from dashboard.sync import watchers

    run_id = world.start()
    world.sync()
    watchers.watch_run(get_run(run_id), timezone.now())
    world.sync()
    assert get_run(run_id).steps is not None


@pytest.mark.slow
def test_watched_run_has_its_end_read(world: World) -> None:
    test_watched_run_has_its_steps_read(world)
    run = Run.objects.get(last_viewed_at__isnull=False)
    first_read = run.detail_request_seq
    world.now += 3600
    Run.objects.update(next_detail_sync_at=None)
    for _ in range(2):
        world.make_due()
        world.sync()
    run.refresh_from_db()
    assert run.concluded
    assert run.detail_request_seq > first_read
