"""Lists that are longer than requested, or only partly readable."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage
from dashboard.northflank import Omission, Page
from dashboard.northflank import Run as ApiRun
from dashboard.sandbox import parse_fault
from dashboard.sync import catalog, omitted_entries
from tests.support import factories
from tests.support.html import parse_html, select_one, text_of
from tests.support.world import LONG_AGO, LoggedEvents, World

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
    template = '{"id":"made-up-N","status":"success","concluded":true}'
    return '{"runs":[' + ",".join(template.replace("N", str(n)) for n in range(count)) + "]}"


def test_surplus_runs_are_counted(world: World) -> None:
    world.sync()
    read_again(world, f"surplus:700{PRODUCTION}")
    assert production().omitted["surplus"] == 700


def test_unreadable_run_is_counted_and_others_are_mirrored(world: World) -> None:
    world.sync()
    first = world.start()
    second = world.start()
    read_again(world, f"unreadable{PRODUCTION}")
    assert production().omitted == {"unreadable": 1}
    assert Run.objects.filter(run_id__in=[first, second]).count() == 1


def test_runs_without_own_id_are_counted_by_reason_and_others_are_mirrored(world: World) -> None:
    world.sync()
    read_again(world, f"data:{ODD_RUNS}{PRODUCTION}")
    assert production().omitted == {"no_id": 2, "long_id": 1, "duplicate_id": 1, "unreadable": 1}
    assert Run.objects.get(run_id="twin").name == "first"
    assert Run.objects.get(run_id="fine").name == ""


ODD_RUNS = json.dumps(
    {
        "runs": [
            {"id": "fine", "name": " \u200b", "status": "running", "concluded": False},
            {"id": "twin", "name": "first", "status": "running", "concluded": False},
            {"id": "twin", "name": "second", "status": "failure", "concluded": True},
            {"name": "no id", "status": "running", "concluded": False},
            {"id": 7, "name": "a number", "status": "running", "concluded": False},
            {"id": "x" * 256, "name": "long id", "status": "running", "concluded": False},
            {"id": "stateless"},
        ]
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["newest first", "oldest first"])
def test_omitted_runs_of_server_that_ignores_filter_and_page_are_counted_once(
    world: World, order: str
) -> None:
    world.restart(history_hours=72)  # a list of several pages, all of which are replaced
    runs = json.loads(ODD_RUNS)["runs"]
    for number, run in enumerate(runs):
        day = number + 1 if order == "oldest first" else 9 - number
        run["createdAt"] = f"2026-01-0{day} 00:00:00.000Z"
    data = json.dumps({"runs": runs})
    world.sandbox.faults = [parse_fault(f"data:{data}{PRODUCTION}")]
    world.sync(4)
    assert production().list_order == order
    assert len(world.requests_for("ledger/release-flows/production/runs")) > 4
    assert production().omitted["no_id"] == 2


def page(*, has_next: bool, **omitted: int) -> Page[ApiRun]:
    return Page((), has_next, {Omission(reason): n for reason, n in omitted.items()})


def record(stage: Stage, number: int, read_page: Page[ApiRun]) -> dict[str, Any]:
    omitted_entries.record_stage_page(Stage.objects.get(pk=stage.pk), number, read_page)
    return dict(Stage.objects.get(pk=stage.pk).omitted_by_page)


@pytest.fixture
def stage_with_two_partial_pages(db: None) -> Stage:
    return factories.stage(omitted_by_page={"1": {"no_id": 1}, "2": {"long_id": 2}})


def test_read_of_newest_page_keeps_omitted_runs_of_older_page(
    stage_with_two_partial_pages: Stage,
) -> None:
    newest = page(has_next=True)
    assert record(stage_with_two_partial_pages, 1, newest) == {"2": {"long_id": 2}}


def test_page_read_again_replaces_its_omitted_runs(stage_with_two_partial_pages: Stage) -> None:
    older = page(has_next=True, no_id=3)
    counts = record(stage_with_two_partial_pages, 2, older)
    assert counts == {"1": {"no_id": 1}, "2": {"no_id": 3}}


def test_last_page_ends_omitted_runs_of_pages_behind_it(
    stage_with_two_partial_pages: Stage,
) -> None:
    only = page(has_next=False, surplus=4)
    assert record(stage_with_two_partial_pages, 1, only) == {"1": {"surplus": 4}}


def test_omitted_runs_are_forgotten_with_release_flow(world: World) -> None:
    world.sync()
    read_again(world, f"data:{ODD_RUNS}{PRODUCTION}")
    catalog.mirror_release_flow(production().pk, None, now=timezone.now())
    assert production().omitted_by_page == {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["surplus:700", "unreadable:3"])
def test_partial_list_is_logged_once_at_start_and_end(
    world: World, logged_events: LoggedEvents, fault: str
) -> None:
    world.sync()
    for _ in range(3):
        read_again(world, f"{fault}{PRODUCTION}")
    for _ in range(3):
        read_again(world)
    [line] = logged_events("list.incomplete")
    assert line["list"] == "Ledger / Production"
    # The fault fills the page with copies of the last run.
    copies = 100 - production().runs.count()
    counts = {"surplus:700": (copies, 700), "unreadable:3": (3, 0)}[fault]
    assert (line["left_out"], line["surplus"]) == counts
    assert [line["list"] for line in logged_events("list.complete")] == ["Ledger / Production"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["surplus", "unreadable"])
@pytest.mark.parametrize(
    ("path", "project_slug"),
    [("@GET /v1/projects$", None), ("@GET /v1/projects/payments/pipelines$", "payments")],
)
def test_partial_catalog_list_is_marked_and_logged(
    full_world: World, logged_events: LoggedEvents, fault: str, path: str, project_slug: str | None
) -> None:
    full_world.sync()
    before = Project.objects.count(), Pipeline.objects.count()
    for _ in range(2):
        read_again(full_world, f"{fault}{path}")
    catalog_list = CatalogSync.objects.get(project__slug=project_slug)
    assert catalog_list.is_partial
    assert (Project.objects.count(), Pipeline.objects.count()) == before
    read_again(full_world)
    catalog_list.refresh_from_db()
    assert not catalog_list.is_partial
    assert logged_events("list.incomplete") != []


# --- on pages ------------------------------------------------------------------------------------

OMITTED = {"1": {"surplus": 1700, "no_id": 1}, "2": {"long_id": 2, "no_id": 1}}
MESSAGE = (
    "1,704 entries of Northflank’s list cannot be shown: no valid ID (2), ID longer than 255 "
    "characters (2), more than requested (1,700)."
)


@pytest.fixture
def viewer_client(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def partial_stage(db: None) -> Stage:
    factories.leader()
    return factories.stage(omitted_by_page=OMITTED)


def test_stage_page_shows_partial_list(viewer_client: Client, partial_stage: Stage) -> None:
    page = parse_html(viewer_client.get(factories.address(partial_stage)))
    assert text_of(select_one(page, "#stage-error")) == MESSAGE


def test_status_page_shows_partial_catalog_list(
    viewer_client: Client, partial_stage: Stage
) -> None:
    now = timezone.now()
    one_twin = {"1": {"duplicate_id": 1}}
    CatalogSync.objects.create(next_sync_at=now, synced_at=now, omitted_by_page=one_twin)
    page = parse_html(viewer_client.get("/status/"))
    message = "1 entry of Northflank’s list cannot be shown: ID of another entry."
    assert text_of(select_one(page, "[data-catalog-error] dd")) == message
    assert text_of(select_one(page, "[data-state]")) == "2 lists were only partly loaded."
