"""Release flows that cannot be read, of stages whose runs can be."""

from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.models import Run, Stage, Upstream
from dashboard.sandbox import parse_fault
from dashboard.sync.plan import Plan
from dashboard.sync.read_jobs import StageJob
from dashboard.sync.read_plan import ReadPlan
from tests.support.world import LONG_AGO, LoggedEvents, World

PRODUCTION = Stage.objects.filter(pipeline__slug="ledger", name="Production")
PLAN = ReadPlan(Plan(scale=1.0, longest=3600.0), {})
FLOW = "@GET /v1/projects/payments/pipelines/ledger/release-flows/production$"


def make_flow_due(world: World) -> None:
    """Make due ledger's Production alone, with its release flow."""
    Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1))
    PRODUCTION.update(flow_synced_at=LONG_AGO, next_sync_at=LONG_AGO)
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


def test_first_failure_of_a_flow_is_retried_soon(world: World) -> None:
    world.sync()
    make_flow_due(world)
    world.sandbox.faults = [parse_fault(f"500*2{FLOW}")]  # the client repeats reads
    stage = read_production(world)
    assert (stage.error, stage.failures) == ("server_error", 1)
    assert stage.next_sync_at - timezone.now() < timedelta(seconds=11)
    assert read_production(world).error == ""


def test_flow_that_cannot_be_read_is_shown_until_it_can(
    world: World, logged_events: LoggedEvents
) -> None:
    error_since = fail_flow(world).error_since
    stage = read_production(world, 3)  # its runs alone
    assert (stage.error, stage.error_since) == ("server_error", error_since)
    assert stage.error_message
    PRODUCTION.update(error_since=timezone.now() - timedelta(minutes=16))
    PRODUCTION.update(synced_at=timezone.now() - timedelta(minutes=2))
    assert read_production(world).error == "server_error"
    world.sandbox.faults = []
    PRODUCTION.update(synced_at=timezone.now() - timedelta(minutes=2))
    stage = read_production(world)
    assert (stage.error, stage.error_message, stage.error_since) == ("", "", None)
    assert stage.flow_synced_at is not None
    assert stage.flow_synced_at > timezone.now() - timedelta(minutes=1)
    assert len(logged_events("stage.read_failed")) == len(logged_events("stage.recovered")) == 1


def test_stage_whose_runs_fail_beside_its_flow_is_logged_and_dated_anew(
    world: World, logged_events: LoggedEvents
) -> None:
    stage = fail_flow(world)
    assert stage.error_message.startswith("Release flow: ")
    PRODUCTION.update(error_since=timezone.now() - timedelta(days=3))
    world.sandbox.faults += [
        parse_fault("error-without-wrapper:400@/release-flows/production/runs$")
    ]
    stage = read_production(world)
    assert stage.failures == 1
    assert stage.error_since is not None
    assert stage.error_since > timezone.now() - timedelta(minutes=1)
    assert len(logged_events("stage.read_failed")) == 2


def test_flow_that_cannot_be_read_is_tried_again_under_a_slower_plan(world: World) -> None:
    fail_flow(world)
    now = timezone.now()
    PRODUCTION.update(
        flow_synced_at=now - timedelta(hours=7),  # at this interval it is read every day
        error_since=now - timedelta(minutes=16),
        synced_at=now - timedelta(minutes=2),
        fresh_until=now + timedelta(minutes=58),
    )
    world.sandbox.faults = []
    stage = PRODUCTION.select_related("pipeline__project").get()
    world.live.run(lambda: world.live.reads.read(StageJob(stage, PLAN)))
    assert PRODUCTION.get().error == ""


def test_stage_that_has_lost_its_flow_keeps_no_error_of_it(world: World) -> None:
    fail_flow(world)
    world.sandbox.faults = [parse_fault("404@/release-flows/")]
    PRODUCTION.update(fresh_until=LONG_AGO, synced_at=LONG_AGO, confirmed_path_segment="")
    stage = PRODUCTION.select_related("pipeline__project").get()
    world.live.run(lambda: world.live.reads.read(StageJob(stage, PLAN, is_new=True)))
    stage = PRODUCTION.get()
    assert (stage.has_flow, stage.error) == (False, "")


def test_flow_that_cannot_be_read_is_not_marked_as_read(world: World) -> None:
    assert fail_flow(world).flow_synced_at == LONG_AGO


def test_flow_never_read_that_cannot_be_is_not_tried_again_at_once(world: World) -> None:
    fail_flow(world)
    PRODUCTION.update(flow_synced_at=None)
    world.sandbox.requests.clear()
    stage = read_production(world)
    assert stage.next_sync_at > timezone.now()
    assert len(world.sandbox.requests) == 1  # the runs


def test_first_read_after_an_outage_keeps_the_error_of_a_flow(world: World) -> None:
    fail_flow(world)
    two_hours_ago = timezone.now() - timedelta(hours=2)
    PRODUCTION.update(synced_at=two_hours_ago, fresh_until=two_hours_ago)
    world.sandbox.requests.clear()
    assert read_production(world).error == "server_error"


def test_flow_of_an_account_that_cannot_be_read_is_no_error_of_its_stage(world: World) -> None:
    fail_flow(world)
    PRODUCTION.update(synced_at=LONG_AGO, error="timeout")
    world.sandbox.faults = [parse_fault(f"500{FLOW}"), parse_fault("500@/auth")]
    assert read_production(world).error == "timeout"
    assert Upstream.objects.get().error == "server_error"
