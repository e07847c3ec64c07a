"""Outages: mirrored data stays, the cause is stored, and each change is logged once."""

import asyncio

import pytest
from django.utils import timezone

from dashboard.models import RateBudget, Run, Stage, Upstream
from dashboard.northflank import NorthflankClient, NorthflankError
from dashboard.sandbox import parse_fault
from dashboard.server import process
from dashboard.upstream.connection import Connection
from tests.support.world import LONG_AGO, LoggedEvents, World

LEDGER = "/pipelines/ledger"
CAUSES = {
    "bad-token": "unauthorised",
    "502-html": "server_error",
    "500": "server_error",
    "reset": "unreachable",
    "truncated": "unreachable",
}


def read_with_faults(world: World, *faults: str, rounds: int = 2) -> None:
    """Read once without faults, and then `rounds` times with them."""
    if not Stage.objects.filter(has_flow=True).exists():
        world.sync()
    world.sandbox.faults = [parse_fault(fault) for fault in faults]
    for _ in range(rounds):
        Run.objects.update(next_detail_sync_at=None)
        world.make_due()
        world.live.sync(1)


def recover(world: World) -> None:
    world.sandbox.faults = []
    world.make_due()
    world.live.sync(1)


@pytest.mark.parametrize(("fault", "cause"), CAUSES.items())
def test_upstream_error_cause_is_stored(world: World, fault: str, cause: str) -> None:
    read_with_faults(world, fault, rounds=1)
    assert Upstream.objects.get().error == cause


def test_upstream_timeout_is_an_error(world: World) -> None:
    world.sync()
    connection = world.live.connection
    world.live.run(connection.client.aclose)
    connection.client = NorthflankClient(
        "sandbox", base_url=world.live.upstream_url, timeout_seconds=0.1,
        on_call=connection.unrecorded_calls.append,
    )  # fmt: skip
    read_with_faults(world, "latency:0.3", rounds=1)
    assert Upstream.objects.get().error == "timeout"


def test_upstream_error_message_has_no_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.sandbox.options.token = "another-one-entirely"
    secret_token = world.live.connection.token
    world.live.sync(1)
    assert secret_token not in str(Upstream.objects.get().error_message)


def test_upstream_error_keeps_mirrored_runs(world: World) -> None:
    world.sync()
    before = list(Run.objects.order_by("pk").values_list("pk", "status", "in_flight", "version"))
    read_with_faults(world, "502-html")
    after = list(Run.objects.order_by("pk").values_list("pk", "status", "in_flight", "version"))
    assert after == before


def test_upstream_error_is_logged_once(world: World, logged_events: LoggedEvents) -> None:
    read_with_faults(world, "bad-token", rounds=3)
    assert len(logged_events("northflank.unavailable")) == 1


def test_upstream_error_is_logged_at_process_start(
    world: World, logged_events: LoggedEvents
) -> None:
    read_with_faults(world, "500")
    process.verify_database()
    assert [line["cause"] for line in logged_events("northflank.unavailable")] == [
        "server_error"
    ] * 2


def test_refused_token_is_logged_with_setting_to_check(
    world: World, logged_events: LoggedEvents
) -> None:
    read_with_faults(world, "bad-token")
    [line] = logged_events("northflank.unavailable")
    assert line["hint"].startswith("Check NORTHFLANK_API_TOKEN: ")


def test_other_upstream_error_is_logged_without_hint(
    world: World, logged_events: LoggedEvents
) -> None:
    read_with_faults(world, "500")
    [line] = logged_events("northflank.unavailable")
    assert "hint" not in line


def test_refused_token_is_logged_once_by_each_process(
    world: World, logged_events: LoggedEvents
) -> None:
    read_with_faults(world, "bad-token", rounds=3)
    process.verify_database()

    async def start_another_process() -> None:
        connection = Connection(world.live.connection.token, world.live.upstream_url)
        try:
            await process.fetch_team(connection, repeats=False)
        finally:
            await connection.close()

    world.live.run(start_another_process)
    assert [line["cause"] for line in logged_events("northflank.unavailable")] == [
        "unauthorised"
    ] * 2


def test_refused_list_of_projects_is_logged_with_setting_to_check(
    world: World, logged_events: LoggedEvents
) -> None:
    world.sandbox.faults = [parse_fault("error-without-wrapper:403@/v1/projects")]
    world.sync()
    [line] = logged_events("catalog.read_failed")
    assert (line["list"], line["cause"]) == ("all projects", "forbidden")
    assert line["hint"].startswith("Check the role of NORTHFLANK_API_TOKEN: ")


def test_upstream_error_with_new_cause_is_logged(world: World, logged_events: LoggedEvents) -> None:
    read_with_faults(world, "bad-token", rounds=1)
    read_with_faults(world, "500", rounds=1)
    assert [line["cause"] for line in logged_events("northflank.unavailable")] == [
        "unauthorised",
        "server_error",
    ]


def test_recovery_clears_upstream_error(world: World) -> None:
    read_with_faults(world, "bad-token")
    recover(world)
    upstream = Upstream.objects.get()
    assert (upstream.error, upstream.error_message, upstream.error_since) == ("", "", None)


def test_recovery_is_logged_once(world: World, logged_events: LoggedEvents) -> None:
    read_with_faults(world, "bad-token")
    recover(world)
    recover(world)
    assert len(logged_events("northflank.recovered")) == 1


def test_recovery_clears_stage_errors(world: World) -> None:
    read_with_faults(world, "502-html")
    recover(world)
    assert not Stage.objects.exclude(error="", failures=0).exists()


# --- errors of one stage, or of one pipeline ---------------------------------------------------


def test_failing_stage_counts_failures(world: World) -> None:
    world.sync()
    delays = []
    for _ in range(3):
        read_with_faults(world, f"502-html@{LEDGER}", rounds=1)
        stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
        assert stage.error_since is not None
        delays.append(stage.failures)
    assert delays == [1, 2, 3]


def test_error_of_one_pipeline_does_not_delay_others(world: World) -> None:
    world.sync()
    before = timezone.now()
    read_with_faults(world, f"500@{LEDGER}", rounds=1)
    others = Stage.objects.filter(has_flow=True).exclude(pipeline__slug="ledger")
    assert others.exists()
    assert not others.filter(synced_at__lt=before).exists()


# --- outages -----------------------------------------------------------------------------------


def test_outage_is_stored_at_first_failed_read(world: World) -> None:
    read_with_faults(world, "500", rounds=1)
    assert Upstream.objects.get().error == "server_error"


def test_outage_counts_no_stage_failures(world: World) -> None:
    read_with_faults(world, "500", rounds=4)
    assert not Stage.objects.exclude(error="", failures=0).exists()


def test_outage_end_makes_every_stage_read_at_once(world: World) -> None:
    read_with_faults(world, "500", rounds=4)
    world.sandbox.faults = []
    world.live.connection.retry_at = 0
    before = timezone.now()
    world.live.sync(1)
    assert not Stage.objects.filter(has_flow=True, synced_at__lt=before).exists()


def test_outage_limits_requests_to_a_probe(world: World) -> None:
    read_with_faults(world, "500", rounds=1)
    world.sandbox.requests.clear()
    world.make_due()
    world.live.sync(1)
    assert {path for _, path in world.sandbox.requests} == {"/v1/auth"}


def test_outage_sends_no_request_before_next_probe(world: World) -> None:
    read_with_faults(world, "500", rounds=1)
    world.sandbox.requests.clear()
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(3)
    assert list(world.sandbox.requests) == []


def test_outage_probe_interval_grows_to_30_s(world: World) -> None:
    connection = world.live.connection
    intervals = []
    for _ in range(5):
        read_with_faults(world, "500", rounds=1)
        intervals.append(round(connection.retry_at - connection.failed_at))
    assert intervals == [5, 10, 20, 30, 30]


def test_token_valid_again_recovers(world: World) -> None:
    world.sync()
    valid_token = world.sandbox.options.token
    world.sandbox.options.token = "another-one-entirely"
    read_with_faults(world)
    assert Upstream.objects.get().error == "unauthorised"
    world.sandbox.options.token = valid_token
    recover(world)
    assert Upstream.objects.get().error == ""


def test_outage_at_start_is_logged_and_ends(world: World, logged_events: LoggedEvents) -> None:
    world.sandbox.faults = [parse_fault("500")]
    for _ in range(3):
        world.make_due()
        world.live.sync(1)
    world.sandbox.faults = []
    world.make_due()
    world.live.sync()
    assert Run.objects.in_flight().exists()
    assert (
        len(logged_events("northflank.unavailable")),
        len(logged_events("northflank.recovered")),
    ) == (1, 1)


def test_answer_to_earlier_request_does_not_clear_error(world: World) -> None:
    world.sync()
    connection = world.live.connection
    world.sandbox.faults = [parse_fault("latency:1@/projects")]
    world.sandbox.requests.clear()

    async def run_both() -> None:
        slow_request = asyncio.ensure_future(connection.call(lambda nf: nf.list_projects()))
        while not world.requests_for("/projects"):
            await asyncio.sleep(0.01)
        # Not a 429: the slow request would get one too.
        world.sandbox.faults = [parse_fault("bad-token@/auth")]
        with pytest.raises(NorthflankError):
            await connection.call(lambda nf: nf.get_auth())
        assert await slow_request

    world.live.run(run_both)
    assert connection.outage == Upstream.objects.get().error == "unauthorised"


def test_answer_during_pause_after_429_does_not_end_it(
    world: World, logged_events: LoggedEvents
) -> None:
    world.sync()
    read_with_faults(world, "too-fast:60@/release-flows/", rounds=1)

    async def get_auth() -> None:
        await world.live.connection.call(lambda nf: nf.get_auth())

    world.live.run(get_auth)
    assert Upstream.objects.get().error == "rate_limited"
    RateBudget.objects.update(backoff_until=LONG_AGO)
    world.live.run(get_auth)
    assert Upstream.objects.get().error == ""
    assert len(logged_events("northflank.recovered")) == 1


# --- forbidden projects ------------------------------------------------------------------------
