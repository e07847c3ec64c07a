"""What nobody knows of comes first: a new database, and the end of a long outage."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.models import Budget, CatalogueSweep, Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import catalogue, leases, schedule
from dashboard.sync.schedule import Gap, Place
from dashboard.sync.worker import FIRST_AT_ONCE, MOST_AT_ONCE
from tests.support.world import T0, World, at

# Which gap


@pytest.mark.parametrize(
    ("known", "later", "gap"),
    [
        ({"synced_at": None}, 0, Gap.RUNS),
        ({"synced_at": None, "has_flow": False}, 0, Gap.RUNS),
        ({}, 0, None),
        ({"promised_at": at(400)}, 800, None),  # twice what it was promised
        ({"promised_at": at(400)}, 801, Gap.RUNS),
        ({"promised_at": at(5)}, 300, None),  # however short that is
        ({"promised_at": at(5)}, 301, Gap.RUNS),
        ({"promised_at": at(400), "has_flow": False}, 9999, None),
        ({"promised_at": None}, 9999, None),
        ({"in_flight_unread": True}, 0, Gap.OLDER),
        ({"in_flight_unread": True, "promised_at": at(400)}, 801, Gap.RUNS),
    ],
)
def test_what_nobody_knows_of_a_stage(
    known: dict[str, object], later: float, gap: Gap | None
) -> None:
    usual = {"has_flow": True, "synced_at": T0, "promised_at": at(400)}
    assert schedule.gap(Stage(**usual | known), at(later)) is gap


# In which order


def order(*places: tuple[str, int, Gap | None]) -> list[int]:
    """The order of stages by their numbers, from 0, each with its name and project."""
    return schedule.first_reads(
        (Place(key, name, project), gap) for key, (name, project, gap) in enumerate(places)
    )


NEVER, OLDER = Gap.RUNS, Gap.OLDER


def test_production_comes_first_and_development_last() -> None:
    assert order(("Development", 1, NEVER), ("Staging", 1, NEVER), ("Production", 1, NEVER)) == [
        2,
        1,
        0,
    ]


def test_projects_take_turns() -> None:
    production = "Production"
    assert order(
        (production, 1, NEVER), (production, 1, NEVER), (production, 1, NEVER),
        (production, 2, NEVER), (production, 2, NEVER),
    ) == [0, 3, 1, 4, 2]  # fmt: skip


def test_stages_that_were_read_have_had_their_projects_turn() -> None:
    production = "Production"
    assert order((production, 1, None), (production, 1, NEVER), (production, 2, NEVER)) == [2, 1]


def test_older_runs_come_after_all_newest() -> None:
    assert order(("Production", 1, OLDER), ("Development", 1, NEVER)) == [1, 0]


def test_what_is_known_is_no_first_read() -> None:
    assert order(("Production", 1, None)) == []


# What is asked


def asked(world: World) -> list[str]:
    """What was asked of stages, in order: "definition" or "runs" after their names."""
    found = []
    for _, path in world.sandbox.requests:
        if "/release-flows/" in path:
            stage, _, rest = path.partition("/release-flows/")[2].partition("/")
            found.append(f"{stage} {rest or 'definition'}")
    return found


def test_of_a_new_database_runs_are_listed_before_any_definition(everything: World) -> None:
    everything.sync()
    kinds = [what.split()[1] for what in asked(everything)]
    stages = Stage.objects.count()
    assert "definition" in kinds
    assert "definition" not in kinds[:stages]


def test_production_is_asked_for_first(everything: World) -> None:
    everything.sync()
    names = [what.split()[0] for what in asked(everything)][: Stage.objects.count()]
    firsts = [names.index(name) for name in ("production", "staging", "development")]
    assert firsts == sorted(firsts)
    lasts = [
        max(n for n, each in enumerate(names) if each == name)
        for name in ("production", "staging", "development")
    ]
    assert lasts == sorted(lasts)


def test_one_question_a_stage_tells_all_that_is_in_flight(everything: World) -> None:
    everything.sync()
    flying = Run.objects.in_flight().count()
    world = everything.sandbox.world
    running = [
        run
        for flow in world.flows()
        for run in world.runs(flow, everything.now)
        if everything.now < run.concluded
    ]
    assert flying == len(running) > 0
    assert all(stage.flow_seen_at for stage in Stage.objects.all())


def test_a_stage_without_a_release_flow_is_asked_for_once(everything: World) -> None:
    everything.sync()
    without = Stage.objects.filter(has_flow=False)
    assert without.exists()
    for stage in without:
        path = f"{stage.pipeline.slug}/release-flows/{stage.name}".lower()
        said = [r for r in everything.sandbox.requests if path in r[1].lower()]
        assert len(said) <= 4  # the spelling is not known at once
    assert sum("runs" in what for what in asked(everything)) < 2 * Stage.objects.count()


@pytest.mark.parametrize("spelling", ["lower", "capitalised"])
def test_whichever_spelling_it_takes_all_is_read(world: World, spelling: str) -> None:
    world.sandbox.choices["stage-spelling"] = spelling
    world.sync()
    assert world.ids(in_flight=True) == set(
        Run.objects.in_flight().values_list("run_id", flat=True)
    )


def test_an_empty_list_may_be_that_of_a_stage_without_a_flow(world: World) -> None:
    world.sandbox.choices["stage-without-flow"] = "empty-list"
    world.sync()
    assert not Stage.objects.filter(has_flow=None).exists()
    assert Stage.objects.filter(has_flow=False).exists()


@pytest.fixture
def long_lists(world: World) -> World:
    world.restart(history_hours=72)
    return world


def test_a_run_behind_the_newest_hundred_is_asked_for_too(long_lists: World) -> None:
    flow = "payments/ledger/production"
    hangs = long_lists.start(flow)
    found = long_lists.sandbox.world.flow(*flow.split("/"))
    assert found is not None
    [run] = [run for run in long_lists.sandbox.world.runs(found, long_lists.now) if run.id == hangs]
    run.concluded = long_lists.now + 1e6
    assert not Run.objects.exists()
    long_lists.sync()
    assert Run.objects.filter(run_id=hangs, in_flight=True).exists()
    assert not Stage.objects.filter(in_flight_unread=True).exists()
    listed = [path for _, path in long_lists.sandbox.requests if path.endswith("/runs")]
    busy = {path for path in listed if listed.count(path) > 1}
    assert busy  # its newest, and what is in flight


def test_a_full_visit_closes_the_gap_that_a_first_read_left(long_lists: World) -> None:
    long_lists.sync()
    production = Stage.objects.filter(pipeline__slug="ledger", name="Production")
    production.update(in_flight_unread=True)
    long_lists.sandbox.requests.clear()
    plan = schedule.Plan(1, 1)
    [stage] = production.select_related("pipeline__project")
    long_lists.live.run(lambda: long_lists.live.worker.read_stage(stage, plan))
    assert len(long_lists.asked("/ledger/release-flows/production/runs")) == 2
    assert not production.get().in_flight_unread


def test_a_stage_that_has_lost_its_flow_meanwhile_rests(place: Stage) -> None:
    Stage.objects.update(in_flight_unread=True)
    catalogue.release_flow(place.pk, None, now=T0)
    leases.release(Stage.objects.get(), T0, schedule.Plan(1, 1))
    assert Stage.objects.get().next_sync_at > T0


# After an outage


@pytest.fixture
def lost(everything: World) -> World:
    """All was read two hours ago, and promised five minutes later."""
    everything.sync()
    ago = timezone.now() - timedelta(hours=2)
    Stage.objects.update(
        synced_at=ago, promised_at=ago + timedelta(minutes=5), next_sync_at=ago,
        flow_seen_at=timezone.now(),
    )  # fmt: skip
    everything.sandbox.requests.clear()
    return everything


def test_after_a_long_outage_each_stage_is_listed_once_at_once(lost: World) -> None:
    lost.sandbox.window.limit = 120
    lost.sandbox.window.opened = None
    Budget.objects.all().delete()
    lost.live.worker._plan = None  # what it planned hours ago
    lost.live.sync(1)
    flows = Stage.objects.exclude(has_flow=False)
    assert not any(schedule.gap(stage, timezone.now()) for stage in flows)
    lists = [what for what in asked(lost) if what.endswith("runs")]
    assert flows.count() <= len(lists) < 1.5 * flows.count()


# How many at once


def test_first_reads_go_side_by_side_as_long_as_answers_are_quick(everything: World) -> None:
    everything.sync()
    assert everything.live.worker._first_at_once == MOST_AT_ONCE


def test_failures_leave_fewer_hands(everything: World) -> None:
    everything.sandbox.faults = [parse_fault("500@/runs")]
    everything.sync()
    assert everything.live.worker._first_at_once < FIRST_AT_ONCE


def test_a_stage_that_fails_rests_and_holds_up_no_other(
    world: World, said: Callable[[str], list[object]]
) -> None:
    world.sandbox.faults = [parse_fault("500@/ledger/")]
    world.sync()
    failing = Stage.objects.filter(pipeline__slug="ledger")
    assert not failing.exclude(synced_at=None).filter(failures=0).exists()
    others = Stage.objects.exclude(pipeline__slug="ledger")
    assert others.exists()
    assert not others.filter(synced_at=None).exists()
    assert said("stage.trouble")


def test_two_workers_claim_no_stage_twice(everything: World) -> None:
    everything.sync()
    now = timezone.now()
    Stage.objects.update(synced_at=None, next_sync_at=now)
    one, other = (leases.first(now, 5) for _ in range(2))
    assert len(one) == len(other) == 5
    assert not {stage.pk for stage in one} & {stage.pk for stage in other}


def test_the_catalogue_is_listed_side_by_side(everything: World) -> None:
    everything.sync()
    CatalogueSweep.objects.exclude(project=None).update(swept_at=None, next_at=timezone.now())
    worker = everything.live.worker
    worker._plan = None

    async def tick() -> int:
        await worker.tick()
        under_way = len(worker.under_way)
        await worker.idle()
        return under_way

    everything.sandbox.faults = [parse_fault("latency:0.3")]
    assert everything.live.run(tick) >= 4
