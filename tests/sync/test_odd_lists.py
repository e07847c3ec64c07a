"""Lists that are longer than requested, or only partly readable."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.web.components import sync_report
from dashboard.web.components.data_age import page_data_age
from tests.support import factories
from tests.support.html import one, parse_html, words
from tests.support.world import LONG_AGO, World

type Lines = Callable[[str], list[dict[str, Any]]]

PRODUCTION = "@GET /v1/projects/payments/pipelines/ledger/release-flows/production/runs$"


def read_again(world: World, *faults: str) -> None:
    world.sandbox.faults = [parse_fault(fault) for fault in faults]
    CatalogSync.objects.update(next_sync_at=LONG_AGO)
    Run.objects.update(next_detail_sync_at=None)
    world.make_due()
    world.live.sync(1)


def production() -> Stage:
    return Stage.objects.get(pipeline__slug="ledger", name="Production")


def test_run_list_longer_than_requested_is_cut(world: World) -> None:
    read_again(world, f"data:{runs(2_000)}{PRODUCTION}")
    assert production().runs.count() == 100


def runs(count: int) -> str:
    each = '{"id":"made-up-N","status":"success","concluded":true}'
    return '{"runs":[' + ",".join(each.replace("N", str(n)) for n in range(count)) + "]}"


def test_surplus_runs_are_counted(world: World) -> None:
    world.sync()
    read_again(world, f"surplus:700{PRODUCTION}")
    assert production().surplus_count == 700


def test_unreadable_run_is_counted_and_others_are_mirrored(world: World) -> None:
    world.sync()
    new = world.start()
    newer = world.start()
    read_again(world, f"unreadable{PRODUCTION}")
    assert production().unreadable_count == 1
    assert Run.objects.filter(run_id__in=[new, newer]).count() == 1


def test_partial_list_is_no_stage_error(world: World) -> None:
    world.sync()
    read_again(world, f"surplus{PRODUCTION}")
    assert (production().error, production().failures) == ("", 0)


@pytest.mark.parametrize(
    ("fault", "counted"), [("surplus:700", (0, 700)), ("unreadable:3", (3, 0))]
)
def test_partial_list_is_logged_once_at_start_and_end(
    world: World, logged_events: Lines, fault: str, counted: tuple[int, int]
) -> None:
    world.sync()
    for _ in range(3):
        read_again(world, f"{fault}{PRODUCTION}")
    for _ in range(3):
        read_again(world)
    assert [
        (line["list"], line["left_out"], line["surplus"])
        for line in logged_events("list.incomplete")
    ] == [("Ledger / Production", *counted)]
    assert [line["list"] for line in logged_events("list.complete")] == ["Ledger / Production"]


@pytest.mark.parametrize("fault", ["surplus", "unreadable"])
@pytest.mark.parametrize(
    ("path", "of"),
    [("@GET /v1/projects$", None), ("@GET /v1/projects/payments/pipelines$", "payments")],
)
def test_partial_catalog_list_is_marked_and_logged(
    full_world: World, logged_events: Lines, fault: str, path: str, of: str | None
) -> None:
    full_world.sync()
    before = Project.objects.count(), Pipeline.objects.count()
    for _ in range(2):
        read_again(full_world, f"{fault}{path}")
    sweep = CatalogSync.objects.get(project__slug=of)
    assert sweep.is_partial
    assert (Project.objects.count(), Pipeline.objects.count()) == before
    read_again(full_world)
    sweep.refresh_from_db()
    assert not sweep.is_partial
    assert logged_events("list.incomplete") != []


# --- said on pages -------------------------------------------------------------------------------

LONGER = "Northflank’s list was longer than requested: 700 entries were ignored."
UNREAD = "1 entry of Northflank’s list is unreadable and not shown."


@pytest.fixture
def viewer_client(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def partial_stage(db: None) -> Stage:
    factories.worker()
    return factories.stage(unreadable_count=1, surplus_count=700)


def test_stage_page_shows_partial_list(viewer_client: Client, partial_stage: Stage) -> None:
    page = parse_html(viewer_client.get(factories.address(partial_stage)))
    assert words(one(page, "#stage-error")) == f"{UNREAD} {LONGER}"


def test_status_page_shows_partial_run_list(viewer_client: Client, partial_stage: Stage) -> None:
    page = parse_html(viewer_client.get("/status/"))
    assert words(one(page, "[data-incomplete-list]")) == f"{UNREAD} {LONGER}"
    assert words(one(page, "[data-state]")) == "1 list was only partly loaded."


def test_status_page_shows_partial_catalog_list(
    viewer_client: Client, partial_stage: Stage
) -> None:
    now = timezone.now()
    CatalogSync.objects.create(next_sync_at=now, synced_at=now, surplus_count=700)
    page = parse_html(viewer_client.get("/status/"))
    assert words(one(page, "[data-catalog-error] dd")) == LONGER
    assert words(one(page, "[data-state]")) == "2 lists were only partly loaded."


def test_stage_page_with_error_leaves_out_partial_list(
    viewer_client: Client, partial_stage: Stage
) -> None:
    Stage.objects.update(error="x", error_message="It broke.")
    page = parse_html(viewer_client.get(factories.address(partial_stage)))
    assert words(one(page, "#stage-error")) == "It broke."


def test_data_age_of_several_stages_shows_partial_lists(viewer: User, partial_stage: Stage) -> None:
    as_of = page_data_age(permissions.for_user(viewer), [partial_stage])
    assert as_of.status_hint == "1 list was only partly loaded."


def test_status_page_lists_partial_stage_first(viewer: User, partial_stage: Stage) -> None:
    for name in ("Development", "Staging"):
        factories.stage(name)
    page = sync_report.load_status(permissions.for_user(viewer), timezone.now())
    assert page.stages[0].stage == "Production"
