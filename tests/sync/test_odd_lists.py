"""Lists that are longer than requested, or only partly readable."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import stage_reader
from tests.support import paged_server, payloads
from tests.support.live import Live
from tests.support.paged_server import PagedServer
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


def test_runs_without_own_id_and_unreadable_ones_are_left_out(
    world: World, logged_events: LoggedEvents
) -> None:
    world.sync()
    stage_reader._incomplete_lists.clear()  # of other tests
    for _ in range(2):
        read_again(world, f"data:{ODD_RUNS}{PRODUCTION}")
    assert Run.objects.get(run_id="twin").name == "first"
    assert Run.objects.get(run_id="fine").name == ""
    assert not Run.objects.filter(run_id="stateless").exists()
    [line] = logged_events("list.incomplete")
    assert (line["list"], line["left_out"]) == ("Ledger / Production", 5)


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
@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/v1/projects", {"id": "payments", "name": "Payments"}),
        ("/v1/projects", None),
        ("/v1/projects/payments/pipelines", {"id": "ledger", "name": "Ledger"}),
        ("/v1/projects/payments/pipelines", None),
    ],
)
def test_catalog_list_with_omitted_entries_removes_nothing(
    full_world: World, path: str, entry: dict[str, str] | None
) -> None:
    full_world.sync()
    before = Project.objects.count(), Pipeline.objects.count()
    for _ in range(2):
        data = json.dumps({path.rpartition("/")[2]: [entry] * 101})
        read_again(full_world, f"data:{data}@GET {path}$")
    assert (Project.objects.count(), Pipeline.objects.count()) == before
    assert not Pipeline.objects.exclude(missing_since=None).exists()


# --- a later page without its list ----------------------------------------------------------------

PROJECTS = "GET /v1/projects"
PIPELINES = f"{PROJECTS}/shop/pipelines"
FLOW = f"{PIPELINES}/checkout/release-flows/production"
RUNS = f"{FLOW}/runs"


@pytest.fixture
def northflank(live: Live) -> Iterator[PagedServer]:
    """One stage with one run."""
    server = PagedServer()
    server.pages = {
        "GET /v1/auth": [payloads.data({"entityId": "acme"})],
        PROJECTS: [payloads.page("projects", {"id": "shop"})],
        PIPELINES: [payloads.page("pipelines", {"id": "checkout"})],
        FLOW: [payloads.data({"spec": {}, "paused": False})],
        RUNS: [payloads.page("runs", payloads.run("newest"))],
    }
    live.run(server.__aenter__)
    paged_server.connect(live, server)
    yield server
    live.run(live.connection.client.aclose)
    live.run(lambda: server.__aexit__(None, None, None))


def set_second_page(server: PagedServer, path: str, body: Any) -> None:
    server.pages[path][0]["pagination"]["hasNextPage"] = True
    server.pages[path][1:] = [body]


@pytest.mark.parametrize("data", [{}, None])
def test_later_page_without_list_leaves_the_pages_before_it(
    live: Live, northflank: PagedServer, logged_events: LoggedEvents, data: Any
) -> None:
    stage_reader._incomplete_lists.clear()  # of other tests
    for path in (PROJECTS, PIPELINES, RUNS):
        set_second_page(northflank, path, payloads.data(data))
    World(live).sync(3)
    assert [run.run_id for run in Run.objects.all()] == ["newest"]
    assert not CatalogSync.objects.exclude(error="").exists()
    assert not Stage.objects.exclude(error="").exists()
    incomplete = {line["list"] for line in logged_events("list.incomplete")}
    assert incomplete == {"all projects", "shop", "checkout / Production"}


@pytest.mark.parametrize("data", [{}, None])
def test_later_page_without_list_removes_nothing(
    live: Live, northflank: PagedServer, data: Any
) -> None:
    pages = {
        PROJECTS: payloads.page("projects", {"id": "other"}),
        PIPELINES: payloads.page("pipelines", {"id": "billing"}),
        RUNS: payloads.page("runs", payloads.run("oldest")),
    }
    northflank.pages["GET /v1/projects/other/pipelines"] = [payloads.page("pipelines")]
    northflank.pages[f"{RUNS}/oldest"] = [payloads.data(payloads.detail("oldest"))]
    for path, page in pages.items():
        set_second_page(northflank, path, page)
    world = World(live)
    world.sync(3)
    for path in pages:
        set_second_page(northflank, path, payloads.data(data))
    for _ in range(2):
        CatalogSync.objects.update(next_sync_at=LONG_AGO)
        Stage.objects.update(in_flight_incomplete=True)
        world.make_due()
        world.sync()
    assert not Project.objects.exclude(missing_since=None).exists()
    assert not Pipeline.objects.exclude(missing_since=None).exists()
    in_flight = Run.objects.in_flight().filter(removed_at=None)
    assert {run.run_id for run in in_flight} == {"newest", "oldest"}


def test_older_runs_on_a_page_without_list_are_read_later(
    live: Live, northflank: PagedServer
) -> None:
    world = World(live)
    set_second_page(northflank, RUNS, payloads.data(None))
    world.sync(3)
    ended = payloads.run("oldest", status="success", concluded=True)
    set_second_page(northflank, RUNS, payloads.page("runs", ended))
    world.make_due()
    world.sync()
    assert Run.objects.filter(run_id="oldest").exists()


def test_older_runs_behind_an_empty_page_are_read(live: Live, northflank: PagedServer) -> None:
    set_second_page(northflank, RUNS, payloads.page("runs", has_next=True))
    ended = payloads.run("oldest", status="success", concluded=True)
    northflank.pages[RUNS].append(payloads.page("runs", ended))
    northflank.pages[f"{RUNS}?concluded=false"] = [payloads.page("runs", payloads.run("newest"))]
    World(live).sync(4)
    assert Run.objects.filter(run_id="oldest").exists()
