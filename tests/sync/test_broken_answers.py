"""No broken answer takes anything away: the trouble is said, and ends with the first good answer.

What is gone is known by Northflank's own word, and by a second look at something else.
"""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import CatalogueSweep, Pipeline, Project, Run, Stage, Upstream
from dashboard.sandbox import parse_fault
from dashboard.sync import catalogue, leases
from dashboard.sync.schedule import StageClass
from tests.support.flights import vanish
from tests.support.world import LONG_AGO, World

type Lines = Callable[[str], list[dict[str, Any]]]

BROKEN = (
    "data",  # null
    'data:"maintenance"',
    "data:7",
    'data:{"message":"maintenance"}',
    'data:{"runs":null,"projects":null,"pipelines":null}',
    "data:[null,7,{}]",
    "unreadable:1000",
    "not-json",
    "empty-body",
    "truncated",
    "502-html",
    "404-html",
    "error-string:404",  # JSON, as a proxy writes it
    "404",  # Northflank's own, contradicted by its other answers or for all that is asked
    "huge:6",
)
LEDGER = "/v1/projects/payments/pipelines/ledger"
PLACES = {
    "the projects": "@GET /v1/projects$",
    "the pipelines": "@GET /v1/projects/payments/pipelines$",
    "a flow": f"@GET {LEDGER}/release-flows/production$",
    "the runs": f"@GET {LEDGER}/release-flows/production/runs$",
    "a run": f"@GET {LEDGER}/release-flows/production/runs/",
    "everything": "",
}
# Here nothing is broken: no list of entries, and a flow that other answers contradict.
NO_MATTER = {
    ("unreadable:1000", "a flow"),
    ("unreadable:1000", "a run"),
    ("404", "a flow"),
}


def read_all(world: World, *faults: str, times: int = 1) -> None:
    """Have the catalogue, one stage with its flow, and its runs in flight read again."""
    world.sandbox.faults = [parse_fault(fault) for fault in faults]
    stage = Stage.objects.filter(pipeline__slug="ledger", name="Production")
    for _ in range(times):
        CatalogueSweep.objects.update(next_at=LONG_AGO)
        stage.update(flow_seen_at=LONG_AGO, next_sync_at=LONG_AGO, synced_at=LONG_AGO)
        Run.objects.in_flight().filter(stage__in=stage).update(next_read_at=LONG_AGO)
        Stage.objects.exclude(error="").update(next_sync_at=LONG_AGO)  # and whatever fails
        Run.objects.exclude(failures=0).update(next_read_at=LONG_AGO)
        world.live.connection.ask_at = 0
        world.live.sync(1)


def mirrored() -> list[Any]:
    """All that pages go by."""
    return [
        list(Project.objects.order_by("pk").values_list("slug", "gone_at")),
        list(Pipeline.objects.order_by("pk").values_list("slug", "gone_at")),
        list(Stage.objects.order_by("pk").values_list("pk", "has_flow", "concurrency_policy")),
        list(Run.objects.order_by("pk").values_list("run_id", "status", "in_flight", "gone_at")),
    ]


def troubles() -> list[Any]:
    """What pages say of trouble."""
    return [
        *Upstream.objects.exclude(error="").values_list("error", flat=True),
        *CatalogueSweep.objects.exclude(error="").values_list("project__slug", "error"),
        *Stage.objects.exclude(error="").values_list("pk", "error"),
        *Run.objects.exclude(failures=0).values_list("run_id", "failures"),
    ]


@pytest.mark.parametrize("place", PLACES)
def test_no_broken_answer_takes_anything_away(world: World, place: str) -> None:
    world.start()
    world.sync()
    read_all(world)
    before = mirrored()
    assert troubles() == []
    for broken in BROKEN:
        read_all(world, f"{broken}{PLACES[place]}")
        assert mirrored() == before, broken
        assert bool(troubles()) != ((broken, place) in NO_MATTER), broken
        read_all(world)
        assert mirrored() == before, broken
        assert troubles() == [], broken


def test_a_stage_is_said_to_have_no_flow_by_northflank_alone(world: World) -> None:
    world.sandbox.faults = [parse_fault("404-html@/release-flows/production")]
    world.sync()
    assert Stage.objects.get(pipeline__slug="ledger", name="Production").has_flow is None


def of_production() -> tuple[bool | None, int, int]:
    """Whether ledger's Production has a flow, and how many of its runs are in flight, and gone."""
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    flying = stage.runs.in_flight()
    return stage.has_flow, flying.count(), flying.exclude(gone_at=None).count()


def test_one_look_that_finds_no_flow_anywhere_takes_nothing_away(world: World) -> None:
    world.start()
    world.sync()
    known = of_production()
    read_all(world, "404@/release-flows/", times=3)
    assert of_production() == known
    assert Stage.objects.exclude(error="").exists()
    read_all(world)
    assert (of_production(), troubles()) == (known, [])


def test_what_a_second_look_finds_no_more_is_looked_at_again_soon(world: World) -> None:
    world.start()
    world.sync()
    known = of_production()
    read_all(world, "404@/release-flows/")
    Stage.objects.exclude(missing_at=None).update(missing_at=timezone.now() - catalogue.APART)
    read_all(world, "404@/release-flows/", times=3)
    assert of_production() == (False, known[1], known[1])
    lost = Stage.objects.filter(has_flow=False).exclude(missing_at=None)
    assert set(leases.classes(lost, timezone.now()).values()) == {StageClass.IDLE}
    world.make_due()  # no other visit than its own
    world.sandbox.faults = []
    world.sync()
    assert of_production() == known


def test_a_flow_that_only_its_runs_know_stays(world: World) -> None:
    world.start()
    world.sync()
    known = of_production()
    place = "@/ledger/release-flows/"
    read_all(world, f"404{place}production$", f"404{place}Production$")
    assert (of_production(), troubles()) == (known, [])


# --- gone ----------------------------------------------------------------------------------------


def test_a_run_that_neither_its_address_nor_its_list_knows_is_gone(world: World) -> None:
    run_id = world.start()
    world.sync()
    vanish(world.live, run_id)
    Run.objects.filter(run_id=run_id).update(next_read_at=LONG_AGO)
    world.sync()
    assert list(Run.objects.exclude(gone_at=None).values_list("run_id", flat=True)) == [run_id]


def test_a_run_is_not_gone_where_its_stage_cannot_be_read_either(world: World) -> None:
    run_id = world.start()
    world.sync()
    vanish(world.live, run_id)
    world.sandbox.faults.append(parse_fault(f"404@{LEDGER}/release-flows/production/runs"))
    Run.objects.filter(run_id=run_id).update(next_read_at=LONG_AGO)
    world.sync()
    run = Run.objects.get(run_id=run_id)
    assert (run.gone_at, run.failures) == (None, 1)


def test_one_list_of_projects_that_lacks_some_takes_nothing_away(world: World) -> None:
    world.sync()
    world.hide("payments")
    read_all(world, times=2)  # with no time between
    assert Project.objects.get().gone_at is None
    assert Run.objects.in_flight().exists()


def test_a_list_that_lacks_something_is_looked_at_again_soon(world: World) -> None:
    world.sync()
    world.hide("payments")
    CatalogueSweep.objects.filter(project=None).update(next_at=LONG_AGO)
    world.live.sync(1)
    sweep = CatalogueSweep.objects.get(project=None)
    assert sweep.swept_at is not None
    assert sweep.next_at - sweep.swept_at <= catalogue.APART


def test_what_is_listed_again_was_not_missing(world: World) -> None:
    world.sync()
    bring_back = world.hide("payments")
    read_all(world)
    bring_back()
    read_all(world)
    assert Project.objects.get().missing_at is None


@pytest.mark.parametrize("fault", ["unreadable", "surplus"])
def test_a_list_that_is_not_whole_says_nothing_of_what_it_lacks(
    everything: World, fault: str
) -> None:
    everything.sync()
    everything.hide("payments")
    faults = f"{fault}@GET /v1/projects$"
    read_all(everything, faults, times=2)
    Project.objects.update(missing_at=LONG_AGO)
    read_all(everything, faults)
    assert not Project.objects.exclude(gone_at=None).exists()


def test_a_stage_whose_flow_is_gone_has_its_runs_looked_for_one_by_one(world: World) -> None:
    world.sync()
    pipeline = world.sandbox.world.pipeline("payments", "ledger")
    assert pipeline is not None
    flows = {name: flow for name, flow in pipeline.flows.items() if name != "Production"}
    object.__setattr__(pipeline, "flows", flows)
    read_all(world)
    Stage.objects.exclude(missing_at=None).update(missing_at=LONG_AGO)
    read_all(world, times=3)
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    assert stage.has_flow is False
    going = stage.runs.filter(concluded=False)
    assert going.exists()
    assert not going.filter(gone_at=None).exists()
