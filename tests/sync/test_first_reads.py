"""Unread stages come first: with a new database, and after a long outage."""

import itertools
from dataclasses import replace
from datetime import timedelta
from math import inf
from statistics import mean

import pytest
from django.utils import timezone

from dashboard.models import RateBudget, Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import catalog, due, schedule
from dashboard.sync import reads as sync_reads
from dashboard.sync.plan import Plan
from dashboard.sync.read_jobs import StageJob
from dashboard.sync.read_plan import ReadPlan
from dashboard.sync.stage_reader import IN_FLIGHT_PAGES
from tests.support import factories
from tests.support.world import T0, LoggedEvents, World, at

# Which gap


@pytest.mark.parametrize(
    ("fields", "later", "gap"),
    [
        ({"synced_at": None}, 0, "unread"),
        ({"synced_at": None, "has_flow": False}, 0, "unread"),
        ({}, 0, None),
        ({"fresh_until": at(400)}, 800, None),  # twice its planned interval
        ({"fresh_until": at(400)}, 801, "unread"),
        ({"fresh_until": at(5)}, 300, None),  # however short that is
        ({"fresh_until": at(5)}, 301, "unread"),
        ({"fresh_until": at(400), "has_flow": False}, 9999, None),
        ({"fresh_until": None}, 9999, None),
        ({"in_flight_incomplete": True}, 0, "gap"),
        ({"in_flight_incomplete": True, "fresh_until": at(400)}, 801, "unread"),
    ],
)
def test_gap_of_stage_follows_its_last_read(
    fields: dict[str, object], later: float, gap: str | None
) -> None:
    defaults = {"has_flow": True, "synced_at": T0, "fresh_until": at(400)}
    stage = Stage(**defaults | fields)
    assert schedule.is_unread(stage, at(later)) == (gap == "unread")
    assert schedule.has_gap(stage, at(later)) == (gap is not None)


# In which order


def test_first_reads_begin_with_those_never_read_and_production(db: None) -> None:
    old = {"synced_at": at(-7200), "fresh_until": at(-7000), "next_sync_at": T0}
    never = old | {"synced_at": None, "fresh_until": None}
    older = old | {"synced_at": T0, "fresh_until": at(60), "in_flight_incomplete": True}
    expected = [
        factories.stage(name, factories.pipeline(f"p-{number}"), **fields)
        for number, (name, fields) in enumerate(
            [
                *(("Production", never), ("Development", never)),
                *(("Production", old), ("Staging", old), ("Production", older)),
            ]
        )
    ]
    factories.stage(synced_at=T0, fresh_until=at(60), next_sync_at=T0)  # has no gap
    assert due.find_first_reads(T0, 9) == expected
    assert due.find_first_reads(T0, 2, {expected[0].pk}) == expected[1:3]


# Requests


def stage_requests(world: World) -> list[str]:
    """The requests for stages, in order: "definition" or "runs" after their names."""
    requests = []
    for _, path in world.sandbox.requests:
        if "/release-flows/" in path:
            stage, _, list_name = path.partition("/release-flows/")[2].partition("/")
            requests.append(f"{stage} {list_name or 'definition'}")
    return requests


def all_flows(world: World) -> set[str]:
    """The paths of all release flows."""
    return {
        f"/v1/projects/{flow.project}/pipelines/{flow.pipeline}/release-flows/{flow.stage}".lower()
        for flow in world.sandbox.world.list_flows()
    }


@pytest.mark.slow
def test_first_sync_lists_runs_before_flow_definitions(full_world: World) -> None:
    full_world.sync()
    paths = [path for _, path in full_world.sandbox.requests if "/release-flows/" in path]
    before = itertools.takewhile(lambda path: "/runs" in path, paths)
    lists = {path.removesuffix("/runs").lower() for path in before if path.endswith("/runs")}
    assert lists >= all_flows(full_world) != set()


def test_stage_found_after_plan_has_its_runs_read_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plan = sync_reads.plan_reads
    monkeypatch.setattr(  # a plan from before any stage was found
        sync_reads,
        "plan_reads",
        lambda *arguments: replace(make_plan(*arguments), has_gaps=False),
    )
    world.sync()
    kinds = [request.split()[1] for request in stage_requests(world)]
    stages = Stage.objects.exclude(has_flow=False).count()
    assert "definition" not in kinds[:stages]


@pytest.mark.slow
def test_first_sync_reads_production_first(full_world: World) -> None:
    full_world.sync()
    names = [request.split()[0] for request in stage_requests(full_world)][: Stage.objects.count()]
    # Requests run side by side, so one may overtake another; on average the order holds.
    averages = [
        mean(position for position, name in enumerate(names) if name == stage_name)
        for stage_name in ("production", "staging", "development")
    ]
    assert names[0] == "production"
    assert averages == sorted(averages)


@pytest.mark.slow
def test_first_sync_finds_all_runs_in_flight(full_world: World) -> None:
    full_world.sync()
    in_flight_count = Run.objects.in_flight().count()
    world = full_world.sandbox.world
    expected = [
        run
        for flow in world.list_flows()
        for run in world.list_runs(flow, full_world.now)
        if full_world.now < run.concluded_at
    ]
    assert in_flight_count == len(expected) > 0


@pytest.mark.slow
def test_first_sync_reads_stage_without_flow_once(full_world: World) -> None:
    full_world.sync()
    stages_without_flow = Stage.objects.filter(has_flow=False)
    assert stages_without_flow.exists()
    for stage in stages_without_flow:
        path = f"{stage.pipeline.slug}/release-flows/{stage.name}".lower()
        requests_of_stage = [r for r in full_world.sandbox.requests if path in r[1].lower()]
        assert len(requests_of_stage) <= 4  # the spelling is unknown at first


@pytest.mark.parametrize("spelling", ["lower", "capitalised"])
def test_first_sync_reads_all_with_either_path_spelling(world: World, spelling: str) -> None:
    world.sandbox.choices["stage-spelling"] = spelling
    world.sync()
    assert world.ids(in_flight=True) == set(
        Run.objects.in_flight().values_list("run_id", flat=True)
    )


@pytest.fixture
def long_lists(world: World) -> World:
    world.restart(history_hours=72)
    return world


def keep_in_flight(world: World, flow: str, first: int, last: int) -> list[str]:
    """Let these runs of a list, counted from its newest, not conclude; return their ids."""
    release_flow = world.sandbox.world.find_flow(*flow.split("/"))
    assert release_flow is not None
    runs = list(world.sandbox.world.list_runs(release_flow, world.now))[first:last]
    for run in runs:
        run.concluded_at = world.now + 1e6
    return [run.id for run in runs]


def test_first_sync_finds_run_in_flight_beyond_first_page(long_lists: World) -> None:
    [run_id] = keep_in_flight(long_lists, "payments/ledger/production", 150, 151)
    long_lists.sync()
    assert Run.objects.filter(run_id=run_id, in_flight=True).exists()
    assert not Stage.objects.filter(in_flight_incomplete=True).exists()
    list_paths = [path for _, path in long_lists.sandbox.requests if path.endswith("/runs")]
    read_twice = {path for path in list_paths if list_paths.count(path) > 1}
    assert read_twice  # its newest runs, and those in flight


@pytest.mark.slow
def test_more_runs_in_flight_than_one_read_takes_are_found_by_further_reads(
    long_lists: World,
) -> None:
    run_ids = keep_in_flight(long_lists, "payments/ledger/staging", 0, 432)
    long_lists.sandbox.requests.clear()
    long_lists.sync()
    assert len(long_lists.requests_for("/ledger/release-flows/staging/runs")) == 1 + IN_FLIGHT_PAGES
    long_lists.sync(5)
    assert set(run_ids) <= set(Run.objects.in_flight().values_list("run_id", flat=True))


def test_full_read_of_stage_reads_older_runs_in_flight(long_lists: World) -> None:
    long_lists.sync()
    production = Stage.objects.filter(pipeline__slug="ledger", name="Production")
    production.update(in_flight_incomplete=True, failures=1)  # after a failure all is read
    long_lists.sandbox.requests.clear()
    plan = ReadPlan(Plan(scale=1.0, longest=3600.0), {})
    [stage] = production.select_related("pipeline__project")
    long_lists.live.run(lambda: long_lists.live.reads.read(StageJob(stage, plan)))
    assert len(long_lists.requests_for("/ledger/release-flows/production/runs")) == 2
    assert not production.get().in_flight_incomplete


def test_stage_that_lost_its_flow_is_not_due(read_stage: Stage) -> None:
    Stage.objects.update(in_flight_incomplete=True)
    catalog.mirror_release_flow(read_stage.pk, None, now=T0)
    due.record_stage(
        Stage.objects.get(), T0, started_at=T0, plan=ReadPlan(Plan(scale=1.0, longest=3600.0), {})
    )
    assert Stage.objects.get().next_sync_at > T0


# After an outage


@pytest.fixture
def after_outage(full_world: World) -> World:
    """All stages were read two hours ago, and planned five minutes later."""
    full_world.sync()
    two_hours_ago = timezone.now() - timedelta(hours=2)
    Stage.objects.update(
        synced_at=two_hours_ago,
        fresh_until=two_hours_ago + timedelta(minutes=5),
        next_sync_at=two_hours_ago,
        flow_synced_at=timezone.now(),
    )
    full_world.sandbox.requests.clear()
    return full_world


@pytest.mark.slow
def test_sync_after_long_outage_lists_each_stage_once(after_outage: World) -> None:
    after_outage.sandbox.rate_limit_window.limit = 120
    after_outage.sandbox.rate_limit_window.opened_at = -inf
    RateBudget.objects.all().delete()
    after_outage.live.reads.plan_again()  # its plan of hours ago
    after_outage.live.sync(1)
    flows = Stage.objects.exclude(has_flow=False)
    assert not any(schedule.has_gap(stage, timezone.now()) for stage in flows)
    lists = [request for request in stage_requests(after_outage) if request.endswith("runs")]
    assert flows.count() <= len(lists) < 1.5 * flows.count()


def test_failing_stage_does_not_delay_other_first_reads(
    world: World, logged_events: LoggedEvents
) -> None:
    world.sandbox.faults = [parse_fault("500@/ledger/")]
    world.sync()
    failing = Stage.objects.filter(pipeline__slug="ledger")
    assert not failing.exclude(synced_at=None).filter(failures=0).exists()
    others = Stage.objects.exclude(pipeline__slug="ledger")
    assert others.exists()
    assert not others.filter(synced_at=None).exists()
    assert logged_events("stage.read_failed")
