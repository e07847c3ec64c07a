"""Release flows that cannot be read, of stages whose runs can be."""

from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.models import Run, Stage, Upstream
from dashboard.sandbox import parse_fault
from tests.support.world import LONG_AGO, LoggedEvents, World

PRODUCTION = Stage.objects.filter(pipeline__slug="ledger", name="Production")
FLOW = "@GET /v1/projects/payments/pipelines/ledger/release-flows/production$"


def make_flow_due(world: World) -> None:
    """Make due ledger's Production alone, with its release flow."""
    Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1))
    PRODUCTION.update(flow_synced_at=LONG_AGO, next_sync_at=LONG_AGO, last_viewed_at=timezone.now())
    Run.objects.update(next_detail_sync_at=None)


def read_production(world: World, rounds: int = 1) -> Stage:
    for _ in range(rounds):
        PRODUCTION.update(next_sync_at=LONG_AGO)
        world.live.connection.retry_at = 0
        world.live.sync(1)
    return PRODUCTION.get()


def fail_flow(world: World, fault: str = "500") -> Stage:
    """Read ledger's Production twice while its release flow cannot be read."""
    world.sync()
    make_flow_due(world)
    world.sandbox.faults = [parse_fault(f"{fault}{FLOW}")]
    return read_production(world, 2)


@pytest.mark.parametrize("fault", ["500", "huge:6", "not-json", "error-without-wrapper:400"])
def test_runs_of_a_stage_are_read_while_its_flow_cannot_be(world: World, fault: str) -> None:
    """Its runs were not read any more, for as long as its flow could not be."""
    world.sync()
    make_flow_due(world)
    world.sandbox.faults = [parse_fault(f"{fault}{FLOW}")]
    for _ in range(2):
        run_id = world.start()
        assert read_production(world, 2).failures == 0
        assert Run.objects.filter(run_id=run_id).exists()
    assert Upstream.objects.get().error == ""


def test_flow_that_cannot_be_read_is_logged_and_no_error_of_its_stage(
    world: World, logged_events: LoggedEvents
) -> None:
    stage = fail_flow(world)
    assert (stage.error, stage.failures, stage.has_flow) == ("", 0, True)
    assert len(logged_events("flow.read_failed")) == 1  # of two reads: it is tried as planned


def test_flow_of_an_account_that_cannot_be_read_is_no_error_of_its_stage(world: World) -> None:
    fail_flow(world)
    PRODUCTION.update(error="timeout", flow_synced_at=LONG_AGO)
    world.sandbox.faults = [parse_fault(f"500{FLOW}"), parse_fault("500@/auth")]
    assert read_production(world).error == "timeout"
    assert Upstream.objects.get().error == "server_error"
