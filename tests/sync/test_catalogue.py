"""Projects, pipelines and stages: found, followed, and gone without their history."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from pytest_django import Settings

from dashboard.models import CatalogueSweep, Pipeline, Project, Run, Stage
from dashboard.northflank import Project as ApiProject
from dashboard.sync import catalogue
from tests.sync.conftest import LONG_AGO, T0, World, at


def sweep_again(world: World) -> None:
    CatalogueSweep.objects.update(next_at=LONG_AGO)
    world.sync()


def test_the_whole_catalogue_is_found(everything: World) -> None:
    everything.sync()
    assert (Project.objects.count(), Pipeline.objects.count()) == (6, 9)


def test_every_pipeline_has_its_three_stages(world: World) -> None:
    world.sync()
    stages = Stage.objects.filter(pipeline__slug="ledger").values_list("name", flat=True)
    assert set(stages) == {"Development", "Staging", "Production"}


def test_a_stage_without_release_flow_is_known_as_such(world: World) -> None:
    world.sync()
    assert Stage.objects.get(has_flow=False).pipeline.slug == "ledger"


def test_every_stage_has_been_asked_for_its_flow(world: World) -> None:
    world.sync()
    assert not Stage.objects.filter(has_flow=None).exists()


def test_a_stages_policy_is_kept(world: World) -> None:
    world.sync()
    stage = Stage.objects.get(pipeline__slug="billing-api", name="Staging")
    assert stage.concurrency_policy == "forbid"


def test_only_the_projects_of_the_setting_are_read(world: World) -> None:
    world.sync()
    assert [project.slug for project in Project.objects.all()] == ["payments"]


def test_nothing_is_asked_of_other_projects(world: World) -> None:
    world.sync()
    assert not world.asked("/projects/shop")


def test_a_project_of_the_setting_that_is_not_listed_is_logged(
    world: World, settings: Settings, said: Callable[[str], list[dict[str, str]]]
) -> None:
    settings.NORTHFLANK_PROJECTS = ["payments", "payment"]
    world.sync()
    assert said("catalogue.project_not_listed")[0]["project"] == "payment"


def test_a_deleted_project_is_gone(world: World) -> None:
    world.sync()
    world.hide("payments")
    sweep_again(world)
    assert Project.objects.get().gone_at is not None


def test_a_deleted_project_keeps_its_runs(world: World) -> None:
    world.sync()
    before = Run.objects.count()
    world.hide("payments")
    sweep_again(world)
    assert Run.objects.count() == before > 0


def test_nothing_more_is_asked_of_a_deleted_project(world: World) -> None:
    world.sync()
    world.hide("payments")
    sweep_again(world)
    world.sandbox.requests.clear()
    Run.objects.update(next_read_at=None)
    world.make_due()
    world.sync()
    assert not world.asked("/payments")


def test_runs_of_a_deleted_project_do_not_stay_in_flight(world: World) -> None:
    world.sync()
    world.hide("payments")
    sweep_again(world)
    assert not Run.objects.in_flight().exists()


def test_a_project_that_is_listed_again_is_back(world: World) -> None:
    world.sync()
    bring_back = world.hide("payments")
    sweep_again(world)
    bring_back()
    sweep_again(world)
    assert Project.objects.get().gone_at is None


def test_runs_of_a_project_that_is_back_are_in_flight_again(world: World) -> None:
    world.sync()
    bring_back = world.hide("payments")
    sweep_again(world)
    bring_back()
    world.make_due()
    sweep_again(world)
    assert {run.run_id for run in Run.objects.in_flight()} == world.ids(in_flight=True)


def test_a_deleted_pipeline_is_gone(world: World) -> None:
    world.sync()
    payments = world.sandbox.world.project("payments")
    assert payments is not None
    object.__setattr__(payments, "pipelines", payments.pipelines[:1])
    sweep_again(world)
    assert Pipeline.objects.get(slug="ledger").gone_at is not None


def test_a_pipeline_that_is_listed_again_is_back(world: World) -> None:
    world.sync()
    payments = world.sandbox.world.project("payments")
    assert payments is not None
    both = payments.pipelines
    object.__setattr__(payments, "pipelines", both[:1])
    sweep_again(world)
    object.__setattr__(payments, "pipelines", both)
    sweep_again(world)
    assert Pipeline.objects.get(slug="ledger").gone_at is None


def test_a_pipeline_that_is_back_has_three_stages_still(world: World) -> None:
    test_a_pipeline_that_is_listed_again_is_back(world)
    assert Pipeline.objects.get(slug="ledger").stages.count() == 3


@pytest.mark.parametrize(
    ("spelling", "path"),
    [("any", "production"), ("lower", "production"), ("capitalised", "Production")],
)
def test_the_spelling_that_works_is_kept(world: World, spelling: str, path: str) -> None:
    world.sandbox.choices["stage-spelling"] = spelling
    world.sync()
    paths = Stage.objects.filter(name="Production").values_list("path", flat=True)
    assert set(paths) == {path}


def test_a_spelling_that_works_is_tried_first_from_then_on(world: World) -> None:
    world.sandbox.choices["stage-spelling"] = "capitalised"
    world.sync()
    world.sandbox.requests.clear()
    Stage.objects.filter(has_flow=True).update(flow_seen_at=None)
    world.make_due()
    world.sync()
    assert not world.asked("/release-flows/production")


def test_a_stage_without_flow_whose_list_is_empty_has_none(world: World) -> None:
    world.sandbox.choices["stage-without-flow"] = "empty-list"
    world.sync()
    assert Stage.objects.filter(has_flow=False).count() == 1


def test_a_stage_that_lost_its_flow_is_found_out(world: World) -> None:
    world.sync()
    pipeline = world.sandbox.world.pipeline("payments", "ledger")
    assert pipeline is not None
    object.__setattr__(
        pipeline, "flows", {k: v for k, v in pipeline.flows.items() if k != "Staging"}
    )
    for _ in range(2):
        Stage.objects.update(failures=0)
        world.make_due()
        world.sync()
    assert Stage.objects.get(pipeline__slug="ledger", name="Staging").has_flow is False


def test_a_project_that_has_no_name_is_called_by_its_id(db: None) -> None:
    catalogue.projects([ApiProject("x", "", None, None)], now=T0)
    assert str(Project.objects.get()) == "x"


def test_the_first_sweep_is_due_at_once(db: None) -> None:
    catalogue.begin(T0)
    assert catalogue.claim_due(T0) is not None


def test_a_claimed_sweep_is_not_claimed_again(db: None) -> None:
    catalogue.begin(T0)
    catalogue.claim_due(T0)
    assert catalogue.claim_due(at(1)) is None


def test_a_sweep_whose_holder_died_falls_due_again(db: None) -> None:
    catalogue.begin(T0)
    catalogue.claim_due(T0)
    assert catalogue.claim_due(T0 + catalogue.LEASE) is not None


def booked_for_a_day(seen: float) -> CatalogueSweep:
    catalogue.begin(T0)
    CatalogueSweep.objects.update(swept_at=at(seen), next_at=at(86400))
    return CatalogueSweep.objects.get()


def test_a_sweep_booked_under_a_poorer_plan_is_made_due(db: None) -> None:
    booked_for_a_day(-601)
    catalogue.hurry(T0, timedelta(seconds=600))
    assert catalogue.claim_due(T0) is not None


def test_a_sweep_that_is_recent_enough_waits(db: None) -> None:
    booked_for_a_day(-599)
    catalogue.hurry(T0, timedelta(seconds=600))
    assert catalogue.claim_due(T0) is None


def test_a_sweep_under_way_is_not_made_due(db: None) -> None:
    catalogue.begin(T0)
    CatalogueSweep.objects.update(swept_at=at(-86400))
    catalogue.claim_due(T0)
    catalogue.hurry(at(1), timedelta(seconds=600))
    assert catalogue.claim_due(at(2)) is None


def test_beginning_twice_makes_one_sweep(db: None) -> None:
    catalogue.begin(T0)
    catalogue.begin(at(time.time()))
    assert CatalogueSweep.objects.count() == 1
