"""Lists that are longer than requested, or only partly readable."""

import json

import pytest

from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import stage_reader
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
