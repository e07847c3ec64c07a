"""Broken responses remove nothing: the error is shown until the first valid response.

An object counts as removed only if Northflank says so, and a read of something else confirms it.
"""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage, Upstream
from dashboard.sandbox import parse_fault
from dashboard.sync import catalog, schedule
from tests.support.live_runs import remove_run
from tests.support.world import LONG_AGO, World

BROKEN = (
    "data",  # null
    'data:"maintenance"',
    "data:7",
    'data:{"message":"maintenance"}',
    'data:{"runs":null,"projects":null,"pipelines":null}',
    "data:[null,7,{}]",
    'data:{"runs":[null],"projects":[null],"pipelines":[null]}',
    "not-json",
    "empty-body",
    "truncated",
    "502-html",
    "404-html",
    "error-string:404",  # JSON, as a proxy writes it
    "404",  # Northflank's own, contradicted by its other answers or for every request
    "huge:6",
)
LEDGER = "/v1/projects/payments/pipelines/ledger"
FAULT_TARGETS = {
    "the projects": "@GET /v1/projects$",
    "the pipelines": "@GET /v1/projects/payments/pipelines$",
    "a flow": f"@GET {LEDGER}/release-flows/production$",
    "the runs": f"@GET {LEDGER}/release-flows/production/runs$",
    "a run": f"@GET {LEDGER}/release-flows/production/runs/",
    "everything": "",
}
# These faults report nothing: it is no list of entries, and flows are read again as planned.
HARMLESS = {(fault, "a flow") for fault in BROKEN}


def read_all(world: World, *faults: str, times: int = 1) -> None:
    """Read the catalog, one stage with its flow, and its runs in flight again."""
    world.sandbox.faults = [parse_fault(fault) for fault in faults]
    stage = Stage.objects.filter(pipeline__slug="ledger", name="Production")
    for _ in range(times):
        CatalogSync.objects.update(next_sync_at=LONG_AGO)
        now = timezone.now()
        last_read = {
            "synced_at": now - timedelta(hours=1),
            "fresh_until": now,
            "last_viewed_at": now,
        }
        stage.update(flow_synced_at=LONG_AGO, next_sync_at=LONG_AGO, **last_read)
        Run.objects.in_flight().filter(stage__in=stage).update(next_detail_sync_at=LONG_AGO)
        Stage.objects.exclude(error="").update(next_sync_at=LONG_AGO)  # and whatever has failed
        Run.objects.exclude(failures=0).update(next_detail_sync_at=LONG_AGO)
        world.live.connection.retry_at = 0
        world.live.sync(1)


def mirrored_state() -> list[Any]:
    """The rows that pages depend on."""
    return [
        list(Project.objects.order_by("pk").values_list("slug", "removed_at")),
        list(Pipeline.objects.order_by("pk").values_list("slug", "removed_at")),
        list(Stage.objects.order_by("pk").values_list("pk", "has_flow", "concurrency_policy")),
        list(Run.objects.order_by("pk").values_list("run_id", "status", "in_flight", "removed_at")),
    ]


def error_rows() -> list[Any]:
    """The errors that pages show."""
    return [
        *Upstream.objects.exclude(error="").values_list("error", flat=True),
        *CatalogSync.objects.exclude(error="").values_list("project__slug", "error"),
        *Stage.objects.exclude(error="").values_list("pk", "error"),
        *Run.objects.exclude(failures=0).values_list("run_id", "failures"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("target", FAULT_TARGETS)
def test_broken_answer_removes_nothing_and_reports_error(world: World, target: str) -> None:
    world.start()
    world.sync(2)
    read_all(world)
    before = mirrored_state()
    assert error_rows() == []
    for fault in BROKEN:
        read_all(world, f"{fault}{FAULT_TARGETS[target]}")
        assert mirrored_state() == before, fault
        assert bool(error_rows()) != ((fault, target) in HARMLESS), fault
        read_all(world)
        assert mirrored_state() == before, fault
        assert error_rows() == [], fault


def test_stage_has_no_flow_only_on_northflanks_own_404(world: World) -> None:
    world.sandbox.faults = [parse_fault("404-html@/release-flows/production")]
    world.sync()
    assert Stage.objects.get(pipeline__slug="ledger", name="Production").has_flow is None


def production_state() -> tuple[bool | None, int, int]:
    """Whether ledger's Production has a flow, and its numbers of runs in flight and removed."""
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    in_flight_runs = stage.runs.in_flight()
    return stage.has_flow, in_flight_runs.count(), in_flight_runs.exclude(removed_at=None).count()


@pytest.mark.slow
def test_flow_missing_once_everywhere_changes_nothing(world: World) -> None:
    world.start()
    world.sync()
    before = production_state()
    read_all(world, "404@/release-flows/", times=3)
    assert production_state() == before
    assert Stage.objects.exclude(error="").exists()
    read_all(world)
    assert (production_state(), error_rows()) == (before, [])


@pytest.mark.slow
def test_flow_missing_twice_is_removed_and_checked_again_soon(world: World) -> None:
    world.start()
    world.sync()
    before = production_state()
    read_all(world, "404@/release-flows/")
    Stage.objects.exclude(missing_since=None).update(
        missing_since=timezone.now() - catalog.REMOVAL_CONFIRMATION_TIME
    )
    read_all(world, "404@/release-flows/", times=3)
    assert production_state() == (False, before[1], before[1])
    missing = Stage.objects.get(pipeline__slug="ledger", name="Production")
    now = timezone.now()
    assert not schedule.is_idle_without_flow(False, missing.missing_since, now)
    world.make_due()  # only at its own due time
    world.sandbox.faults = []
    world.sync()
    assert production_state() == before


def test_flow_with_only_its_run_list_found_is_kept(world: World) -> None:
    world.start()
    world.sync()
    before = production_state()
    target = "@/ledger/release-flows/"
    read_all(world, f"404{target}production$", f"404{target}Production$")
    assert (production_state(), error_rows()) == (before, [])


# --- removed -------------------------------------------------------------------------------------


def test_run_missing_from_address_and_list_is_removed(world: World) -> None:
    run_id = world.start()
    world.sync()
    remove_run(world.live, run_id)
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
    world.sync()
    assert list(Run.objects.exclude(removed_at=None).values_list("run_id", flat=True)) == [run_id]


def test_run_missing_from_unreadable_stage_is_kept(world: World) -> None:
    run_id = world.start()
    world.sync()
    remove_run(world.live, run_id)
    world.sandbox.faults.append(parse_fault(f"404@{LEDGER}/release-flows/production/runs"))
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
    world.sync()
    run = Run.objects.get(run_id=run_id)
    assert (run.removed_at, run.failures) == (None, 1)


def test_list_with_missing_project_is_read_again_soon(world: World) -> None:
    world.sync()
    world.delete_projects("payments")
    CatalogSync.objects.filter(project=None).update(next_sync_at=LONG_AGO)
    world.live.sync(1)
    catalog_list = CatalogSync.objects.get(project=None)
    assert catalog_list.synced_at is not None
    assert catalog_list.next_sync_at - catalog_list.synced_at <= catalog.REMOVAL_CONFIRMATION_TIME


@pytest.mark.slow
@pytest.mark.parametrize("entries", [[None], [{"id": "shop", "name": "Shop"}] * 101])
def test_incomplete_list_removes_nothing(full_world: World, entries: list[Any]) -> None:
    full_world.sync()
    full_world.delete_projects("payments")
    faults = f"data:{json.dumps({'projects': entries})}@GET /v1/projects$"
    read_all(full_world, faults, times=2)
    Project.objects.update(missing_since=LONG_AGO)
    read_all(full_world, faults)
    assert not Project.objects.exclude(removed_at=None).exists()


def test_runs_of_removed_flow_are_removed_one_by_one(world: World) -> None:
    world.sync()
    pipeline = world.sandbox.world.find_pipeline("payments", "ledger")
    assert pipeline is not None
    flows = {name: flow for name, flow in pipeline.flows.items() if name != "Production"}
    object.__setattr__(pipeline, "flows", flows)
    read_all(world)
    Stage.objects.exclude(missing_since=None).update(missing_since=LONG_AGO)
    read_all(world, times=3)
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    assert stage.has_flow is False
    unfinished = stage.runs.filter(concluded=False)
    assert unfinished.exists()
    assert not unfinished.filter(removed_at=None).exists()
