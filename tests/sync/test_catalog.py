"""Projects, pipelines and stages: discovered, updated, and removed without losing their history."""

import time
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage
from dashboard.northflank import Page, ReleaseFlow
from dashboard.northflank import Pipeline as ApiPipeline
from dashboard.northflank import Project as ApiProject
from dashboard.runs import dismissals
from dashboard.sandbox import parse_fault
from dashboard.sync import catalog, due, read_plan, schedule
from tests.support import factories
from tests.support.world import LONG_AGO, T0, LoggedEvents, World, at


def read_catalog_again(world: World) -> None:
    CatalogSync.objects.update(next_sync_at=LONG_AGO)
    world.sync()


def read_catalog_until_removed(world: World) -> None:
    """Read the lists twice, with some time in between."""
    read_catalog_again(world)
    for queryset in (Project.objects.all(), Pipeline.objects.all()):
        queryset.exclude(missing_since=None).update(missing_since=LONG_AGO)
    read_catalog_again(world)


@pytest.mark.slow
def test_sync_finds_whole_catalog(full_world: World) -> None:
    full_world.sync()
    assert (Project.objects.count(), Pipeline.objects.count()) == (6, 9)


def test_stage_without_release_flow_has_no_flow(world: World) -> None:
    world.sync()
    assert Stage.objects.get(has_flow=False).pipeline.slug == "ledger"


def test_sync_stores_concurrency_policy(world: World) -> None:
    world.sync(2)  # its runs come first
    stage = Stage.objects.get(pipeline__slug="billing-api", name="Staging")
    assert stage.concurrency_policy == "forbid"


def test_sync_reads_only_projects_of_setting(world: World) -> None:
    world.sync()
    assert [project.slug for project in Project.objects.all()] == ["payments"]


def test_sync_sends_no_requests_for_other_projects(world: World) -> None:
    world.sync()
    assert not world.requests_for("/projects/shop")


def test_project_of_setting_not_listed_is_logged(
    world: World, settings: Settings, logged_events: LoggedEvents
) -> None:
    settings.NORTHFLANK_PROJECTS = ["payments", "payment"]
    world.sync()
    assert logged_events("catalog.project_not_listed")[0]["project"] == "payment"


def test_deleted_project_is_removed(world: World) -> None:
    world.sync()
    world.delete_projects("payments")
    read_catalog_until_removed(world)
    assert Project.objects.get().removed_at is not None


def test_deleted_project_keeps_its_runs(world: World) -> None:
    world.sync()
    before = Run.objects.count()
    world.delete_projects("payments")
    read_catalog_until_removed(world)
    assert Run.objects.count() == before > 0


def test_deleted_project_is_not_requested_again(world: World) -> None:
    world.sync()
    world.delete_projects("payments")
    read_catalog_until_removed(world)
    world.sandbox.requests.clear()
    Run.objects.update(next_detail_sync_at=None)
    world.make_due()
    world.sync()
    assert not world.requests_for("/payments")


def test_runs_of_deleted_project_stay_in_flight_as_removed(world: World) -> None:
    world.sync()
    before = Run.objects.in_flight().count()
    world.delete_projects("payments")
    read_catalog_until_removed(world)
    assert Run.objects.in_flight().exclude(removed_at=None).count() == before > 0


@pytest.mark.slow
def test_runs_of_project_dropped_from_setting_are_not_in_flight(
    world: World, settings: Settings
) -> None:
    world.sync()
    settings.NORTHFLANK_PROJECTS = ["shop"]
    read_catalog_again(world)
    assert not Run.objects.in_flight().filter(stage__pipeline__project__slug="payments").exists()


def test_runs_of_project_listed_again_are_in_flight(world: World) -> None:
    world.sync()
    restore = world.delete_projects("payments")
    read_catalog_until_removed(world)
    restore()
    world.make_due()
    read_catalog_again(world)
    assert {run.run_id for run in Run.objects.in_flight()} == world.ids(in_flight=True)


def test_deleted_pipeline_is_removed(world: World) -> None:
    world.sync()
    payments = world.sandbox.world.find_project("payments")
    assert payments is not None
    object.__setattr__(payments, "pipelines", payments.pipelines[:1])
    read_catalog_until_removed(world)
    assert Pipeline.objects.get(slug="ledger").removed_at is not None


def test_pipeline_listed_again_is_not_removed(world: World) -> None:
    world.sync()
    payments = world.sandbox.world.find_project("payments")
    assert payments is not None
    pipelines = payments.pipelines
    object.__setattr__(payments, "pipelines", pipelines[:1])
    read_catalog_until_removed(world)
    object.__setattr__(payments, "pipelines", pipelines)
    read_catalog_again(world)
    assert Pipeline.objects.get(slug="ledger").removed_at is None


def test_new_pipeline_is_read_with_its_runs(world: World) -> None:
    payments = world.sandbox.world.find_project("payments")
    assert payments is not None
    pipelines = payments.pipelines
    object.__setattr__(payments, "pipelines", pipelines[:1])
    world.sync()
    object.__setattr__(payments, "pipelines", pipelines)
    read_catalog_again(world)
    new_pipeline = Pipeline.objects.latest("pk")
    assert new_pipeline.slug == pipelines[1].id
    assert Run.objects.filter(stage__pipeline=new_pipeline).exists()


@pytest.mark.slow
@pytest.mark.parametrize("status", ["403", "404"])
def test_forbidden_project_keeps_rows_and_reports_error(world: World, status: str) -> None:
    world.sync()
    before = Run.objects.in_flight().count()
    world.sandbox.choices["no-access"] = status
    world.sandbox.faults = [parse_fault("403@/projects/payments")]
    for _ in range(3):
        world.make_due()
        read_catalog_again(world)
    catalog_list = CatalogSync.objects.get(project__slug="payments")
    assert catalog_list.error == {"403": "forbidden", "404": "not_found"}[status]
    assert Pipeline.objects.filter(removed_at=None).count() == 2
    assert Stage.objects.filter(has_flow=True).exclude(error="").count() == 5
    assert Run.objects.in_flight().count() == before > 0


def test_catalog_list_is_due_after_its_interval(world: World) -> None:
    world.sync()
    for catalog_list in CatalogSync.objects.all():
        assert catalog_list.synced_at is not None
        interval = catalog_list.next_sync_at - catalog_list.synced_at
        assert interval >= read_plan.MIN_LISTS_INTERVAL


def test_working_path_spelling_is_tried_first_later(world: World) -> None:
    world.sandbox.choices["stage-spelling"] = "capitalised"
    world.sync()
    world.sandbox.requests.clear()
    Stage.objects.filter(has_flow=True).update(flow_synced_at=None)
    world.make_due()
    world.sync()
    assert not world.requests_for("/release-flows/production")


@pytest.mark.slow
def test_stage_that_lost_its_flow_is_detected(world: World) -> None:
    world.sync()
    pipeline = world.sandbox.world.find_pipeline("payments", "ledger")
    assert pipeline is not None
    object.__setattr__(
        pipeline, "flows", {k: v for k, v in pipeline.flows.items() if k != "Staging"}
    )
    for _ in range(3):  # its list is missing, then its flow, then its flow some time later
        Stage.objects.update(failures=0)
        Stage.objects.exclude(missing_since=None).update(missing_since=LONG_AGO)
        world.make_due()
        world.sync()
    assert Stage.objects.get(pipeline__slug="ledger", name="Staging").has_flow is False


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["404", "empty-list"])
def test_flow_that_is_added_to_a_new_pipeline_is_looked_for_like_idle_runs(
    world: World, answer: str
) -> None:
    world.sandbox.choices["stage-without-flow"] = answer
    pipeline = world.sandbox.world.find_pipeline("payments", "ledger")
    assert pipeline is not None
    flows = pipeline.flows
    object.__setattr__(pipeline, "flows", {k: v for k, v in flows.items() if k != "Staging"})
    world.sync(2)
    stage = Stage.objects.get(pipeline__slug="ledger", name="Staging")
    assert stage.has_flow is False
    assert not schedule.is_idle_without_flow(False, stage.missing_since, timezone.now())
    object.__setattr__(pipeline, "flows", flows)
    world.make_due()
    world.sync()
    stage.refresh_from_db()
    assert (stage.has_flow, stage.missing_since) == (True, None)


def test_flow_found_again_is_no_longer_missing(read_stage: Stage) -> None:
    assert not catalog.mark_flow_missing(read_stage.pk, T0)
    catalog.mark_flow_checked(read_stage.pk, T0)
    assert Stage.objects.get().missing_since is None


def test_unchanged_list_takes_as_many_statements_whatever_its_length(db: None) -> None:
    counts = []
    for length in (2, 20):
        ids = [f"project-{number}" for number in range(length)]
        listed = Page(tuple(ApiProject(id_, id_) for id_ in ids), False)
        catalog.mirror_projects(listed, now=T0)
        project = Project.objects.get(slug="project-0")
        pipelines = Page(tuple(ApiPipeline(id_, id_, "") for id_ in ids), False)
        catalog.mirror_pipelines(project, pipelines, now=T0)
        with CaptureQueriesContext(connection) as queries:
            catalog.mirror_projects(listed, now=at(600))
            catalog.mirror_pipelines(project, pipelines, now=at(600))
        counts.append(len(queries))
        assert not Project.objects.exclude(synced_at=at(600)).exists()
        assert not Pipeline.objects.exclude(synced_at=at(600)).exists()
    assert counts[0] == counts[1]


def test_renamed_entries_have_their_new_names(db: None) -> None:
    def mirror_names(suffix: str) -> None:
        projects = (ApiProject("x", f"X{suffix}"), ApiProject("y", "Y"))
        catalog.mirror_projects(Page(projects, False), now=T0)
        pipelines = (ApiPipeline("p", f"P{suffix}", "Pays"), ApiPipeline("q", "Q", suffix))
        catalog.mirror_pipelines(Project.objects.get(slug="x"), Page(pipelines, False), now=T0)

    mirror_names("1")
    mirror_names("2")
    assert list(Project.objects.order_by("slug").values_list("name", flat=True)) == ["X2", "Y"]
    described = Pipeline.objects.order_by("slug").values_list("name", "description")
    assert list(described) == [("P2", "Pays"), ("Q", "2")]


def test_project_without_name_is_shown_by_id(db: None) -> None:
    catalog.mirror_projects(Page((ApiProject("x", None),), False), now=T0)
    assert str(Project.objects.get()) == "x"


def test_name_and_policy_that_an_answer_lacks_stay_as_known(read_stage: Stage) -> None:
    pipeline = read_stage.pipeline
    Stage.objects.update(concurrency_policy="forbid", paused=True)
    Pipeline.objects.update(description="Pays")
    project_id, pipeline_id = pipeline.project.slug, pipeline.slug
    catalog.mirror_projects(Page((ApiProject(project_id, None),), False), now=T0)
    listed = Page((ApiPipeline(pipeline_id, None, None),), False)
    catalog.mirror_pipelines(pipeline.project, listed, now=T0)
    flow = ReleaseFlow(paused=None, concurrency_policy=None)
    catalog.mirror_release_flow(read_stage.pk, flow, now=T0)
    stage = Stage.objects.select_related("pipeline__project").get()
    assert (stage.concurrency_policy, stage.paused) == ("forbid", True)
    assert (stage.pipeline.name, stage.pipeline.description) == (pipeline.name, "Pays")
    assert stage.pipeline.project.name == pipeline.project.name


def test_check_of_a_stage_without_flow_reads_no_dismissed_run_again(
    read_stage: Stage, manager: User
) -> None:
    """Each check had all runs of the stage read that were removed and dismissed."""
    dismissed = factories.run(read_stage, removed_at=T0)
    dismissals.dismiss(dismissed, manager)
    in_flight = factories.run(read_stage)  # which no list shows any more
    for moment in (T0, at(21600)):
        Run.objects.update(next_detail_sync_at=None)
        catalog.mirror_release_flow(read_stage.pk, None, now=moment)
        dismissed.refresh_from_db()
        in_flight.refresh_from_db()
        assert (dismissed.next_detail_sync_at, in_flight.next_detail_sync_at) == (None, moment)


def create_list_due_in_a_day(synced_seconds: float) -> CatalogSync:
    catalog.start(T0)
    CatalogSync.objects.update(synced_at=at(synced_seconds), next_sync_at=at(86400))
    return CatalogSync.objects.get()


def test_old_catalog_read_is_due_after_refresh(db: None) -> None:
    create_list_due_in_a_day(-601)
    catalog.refresh_now(T0, timedelta(seconds=600))
    assert due.find_lists(T0, 1)


def test_recent_catalog_read_is_not_due_after_refresh(db: None) -> None:
    create_list_due_in_a_day(-599)
    catalog.refresh_now(T0, timedelta(seconds=600))
    assert due.find_lists(T0, 1) == []


def test_catalog_started_twice_is_read_once(db: None) -> None:
    catalog.start(T0)
    catalog.start(at(time.time()))
    assert CatalogSync.objects.count() == 1
