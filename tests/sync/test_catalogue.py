"""Projects, pipelines and stages: found, followed, and gone without their history."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from dashboard.models import CatalogueSweep, Pipeline, Project, Run, Stage
from dashboard.northflank import Page
from dashboard.northflank import Project as ApiProject
from dashboard.sandbox import parse_fault
from dashboard.sync import catalogue, schedule
from tests.support.world import LONG_AGO, T0, World, at


def sweep_again(world: World) -> None:
    CatalogueSweep.objects.update(next_at=LONG_AGO)
    world.sync()


def sweep_until_gone(world: World) -> None:
    """Have the lists read twice, with some time between."""
    sweep_again(world)
    for lacking in (Project.objects.all(), Pipeline.objects.all()):
        lacking.exclude(missing_at=None).update(missing_at=LONG_AGO)
    sweep_again(world)


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
    sweep_until_gone(world)
    assert Project.objects.get().gone_at is not None


def test_a_deleted_project_keeps_its_runs(world: World) -> None:
    world.sync()
    before = Run.objects.count()
    world.hide("payments")
    sweep_until_gone(world)
    assert Run.objects.count() == before > 0


def test_nothing_more_is_asked_of_a_deleted_project(world: World) -> None:
    world.sync()
    world.hide("payments")
    sweep_until_gone(world)
    world.sandbox.requests.clear()
    Run.objects.update(next_read_at=None)
    world.make_due()
    world.sync()
    assert not world.asked("/payments")


def test_runs_of_a_deleted_project_stay_in_flight_marked_as_gone(world: World) -> None:
    world.sync()
    before = Run.objects.in_flight().count()
    world.hide("payments")
    sweep_until_gone(world)
    assert Run.objects.in_flight().exclude(gone_at=None).count() == before > 0


def test_runs_of_a_project_that_the_settings_no_longer_name_are_not_in_flight(
    world: World, settings: Settings
) -> None:
    world.sync()
    settings.NORTHFLANK_PROJECTS = ["shop"]
    sweep_again(world)
    assert not Run.objects.in_flight().filter(stage__pipeline__project__slug="payments").exists()


def test_a_project_that_is_listed_again_is_back(world: World) -> None:
    world.sync()
    bring_back = world.hide("payments")
    sweep_until_gone(world)
    bring_back()
    sweep_again(world)
    assert Project.objects.get().gone_at is None


def test_runs_of_a_project_that_is_back_are_in_flight_again(world: World) -> None:
    world.sync()
    bring_back = world.hide("payments")
    sweep_until_gone(world)
    bring_back()
    world.make_due()
    sweep_again(world)
    assert {run.run_id for run in Run.objects.in_flight()} == world.ids(in_flight=True)


def test_a_deleted_pipeline_is_gone(world: World) -> None:
    world.sync()
    payments = world.sandbox.world.project("payments")
    assert payments is not None
    object.__setattr__(payments, "pipelines", payments.pipelines[:1])
    sweep_until_gone(world)
    assert Pipeline.objects.get(slug="ledger").gone_at is not None


def test_a_pipeline_that_is_listed_again_is_back(world: World) -> None:
    world.sync()
    payments = world.sandbox.world.project("payments")
    assert payments is not None
    both = payments.pipelines
    object.__setattr__(payments, "pipelines", both[:1])
    sweep_until_gone(world)
    object.__setattr__(payments, "pipelines", both)
    sweep_again(world)
    assert Pipeline.objects.get(slug="ledger").gone_at is None


def test_a_pipeline_that_is_back_has_three_stages_still(world: World) -> None:
    test_a_pipeline_that_is_listed_again_is_back(world)
    assert Pipeline.objects.get(slug="ledger").stages.count() == 3


def test_a_new_pipeline_appears_with_its_runs(world: World) -> None:
    payments = world.sandbox.world.project("payments")
    assert payments is not None
    both = payments.pipelines
    object.__setattr__(payments, "pipelines", both[:1])
    world.sync()
    object.__setattr__(payments, "pipelines", both)
    sweep_again(world)
    new = Pipeline.objects.latest("pk")
    assert new.slug == both[1].id
    assert Run.objects.filter(stage__pipeline=new).exists()


def test_a_deleted_pipelines_history_is_still_shown(world: World, client: Client) -> None:
    world.sync()
    payments = world.sandbox.world.project("payments")
    assert payments is not None
    object.__setattr__(payments, "pipelines", payments.pipelines[:1])
    sweep_until_gone(world)
    client.force_login(User.objects.create_user("viewer"))
    run = Run.objects.filter(stage__pipeline__slug="ledger").latest("created_at")
    place = f"/projects/payments/pipelines/ledger/release-flows/{run.stage.name.lower()}/"
    for address in (place, f"{place}runs/{run.run_id}/"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert run.run_id in answer.content.decode()


@pytest.mark.parametrize("no_access", ["403", "404"])
def test_a_withdrawn_right_keeps_what_was_read_and_says_so(world: World, no_access: str) -> None:
    world.sync()
    before = Run.objects.in_flight().count()
    world.sandbox.choices["no-access"] = no_access
    world.sandbox.faults = [parse_fault("forbidden:payments")]
    for _ in range(3):
        world.make_due()
        sweep_again(world)
    sweep = CatalogueSweep.objects.get(project__slug="payments")
    assert sweep.error == {"403": "forbidden", "404": "not_found"}[no_access]
    assert Pipeline.objects.filter(gone_at=None).count() == 2
    assert Stage.objects.filter(has_flow=True).exclude(error="").count() == 5
    assert Run.objects.in_flight().count() == before > 0


@pytest.mark.parametrize("no_access", ["403", "404"])
def test_a_right_that_is_given_back_is_noticed(
    world: World, no_access: str, said: Callable[[str], list[dict[str, str]]]
) -> None:
    test_a_withdrawn_right_keeps_what_was_read_and_says_so(world, no_access)
    world.sandbox.faults = []
    for _ in range(2):
        world.make_due()
        sweep_again(world)
    assert CatalogueSweep.objects.get(project__slug="payments").error == ""
    assert not Stage.objects.exclude(error="").exists()
    assert Stage.objects.filter(has_flow=True).count() == 5
    assert {run.run_id for run in Run.objects.in_flight()} == world.ids(in_flight=True)
    assert [len(said(f"catalogue.{event}")) for event in ("trouble", "recovered")] == [1, 1]


def test_a_list_that_was_read_is_read_again_after_its_interval(world: World) -> None:
    world.sync()
    for sweep in CatalogueSweep.objects.all():
        assert sweep.swept_at is not None
        assert sweep.next_at - sweep.swept_at >= schedule.CATALOGUE_EVERY / 3


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
    for _ in range(3):  # its list is not found, its flow is not, and is not some time later
        Stage.objects.update(failures=0)
        Stage.objects.exclude(missing_at=None).update(missing_at=LONG_AGO)
        world.make_due()
        world.sync()
    assert Stage.objects.get(pipeline__slug="ledger", name="Staging").has_flow is False


def test_a_flow_that_is_looked_for_and_not_gone_is_missed_no_more(place: Stage) -> None:
    assert not catalogue.miss_flow(place.pk, T0)
    catalogue.flow_was_looked_for(place.pk, T0)
    assert Stage.objects.get().missing_at is None
    assert catalogue.claim_first(T0, 0) == []


def test_a_project_that_has_no_name_is_called_by_its_id(db: None) -> None:
    catalogue.projects(Page((ApiProject("x", "", None, None),), False, None), now=T0)
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
