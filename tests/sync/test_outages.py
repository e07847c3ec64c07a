"""Outages: mirrored data stays, the cause is stored, and each change is logged once."""

import asyncio
import gc
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import InterfaceError, connection
from django.utils import timezone

from dashboard import aborts
from dashboard.db.threads import run_in_db_thread
from dashboard.models import RateBudget, Run, Stage, Upstream, Worker
from dashboard.northflank import NorthflankClient, NorthflankError
from dashboard.sandbox import parse_fault
from dashboard.server import process
from dashboard.sync import catalog
from dashboard.sync import worker as sync_worker
from dashboard.sync.schedule import Plan
from dashboard.sync.worker import SyncWorker
from dashboard.upstream.connection import Connection
from tests.support import factories
from tests.support.live import WAIT_TIMEOUT
from tests.support.world import LONG_AGO, World

type Lines = Callable[[str], list[dict[str, Any]]]

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


def test_upstream_error_keeps_mirrored_runs(world: World) -> None:
    world.sync()
    before = list(Run.objects.order_by("pk").values_list("pk", "status", "in_flight", "version"))
    read_with_faults(world, "502-html")
    after = list(Run.objects.order_by("pk").values_list("pk", "status", "in_flight", "version"))
    assert after == before


def test_upstream_error_is_logged_once(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "bad-token", rounds=3)
    assert len(logged_events("northflank.unavailable")) == 1


def test_upstream_error_is_not_logged_per_stage(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "bad-token")
    assert logged_events("stage.read_failed") == []


def test_upstream_error_keeps_its_start(world: World) -> None:
    read_with_faults(world, "bad-token", rounds=1)
    before = Upstream.objects.get().error_since
    read_with_faults(world, "bad-token", rounds=1)
    assert Upstream.objects.get().error_since == before


def test_upstream_error_is_logged_at_process_start(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "500")
    process.verify_database()
    assert [line["cause"] for line in logged_events("northflank.unavailable")] == [
        "server_error"
    ] * 2


def test_refused_token_is_logged_with_setting_to_check(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "bad-token")
    [line] = logged_events("northflank.unavailable")
    assert line["hint"].startswith("Check NORTHFLANK_API_TOKEN: ")


def test_other_upstream_error_is_logged_without_hint(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "500")
    [line] = logged_events("northflank.unavailable")
    assert "hint" not in line


def test_refused_token_is_logged_once_by_each_process(world: World, logged_events: Lines) -> None:
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
    world: World, logged_events: Lines
) -> None:
    world.sandbox.faults = [parse_fault("error-without-wrapper:403@/v1/projects")]
    world.sync()
    [line] = logged_events("catalog.read_failed")
    assert (line["list"], line["cause"]) == ("all projects", "forbidden")
    assert line["hint"].startswith("Check the role of NORTHFLANK_API_TOKEN: ")


def test_upstream_error_with_new_cause_keeps_its_start(world: World) -> None:
    read_with_faults(world, "bad-token", rounds=1)
    before = Upstream.objects.get().error_since
    read_with_faults(world, "500", rounds=1)
    assert Upstream.objects.get().error_since == before


def test_upstream_error_with_new_cause_is_logged(world: World, logged_events: Lines) -> None:
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


def test_recovery_is_logged_once(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "bad-token")
    recover(world)
    recover(world)
    assert len(logged_events("northflank.recovered")) == 1


def test_recovery_is_not_logged_per_stage(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "bad-token")
    recover(world)
    assert logged_events("stage.recovered") == []


def test_recovery_clears_stage_errors(world: World) -> None:
    read_with_faults(world, "502-html")
    recover(world)
    assert not Stage.objects.exclude(error="", failures=0).exists()


def test_single_failed_read_is_no_upstream_error(world: World) -> None:
    read_with_faults(
        world, f"reset*2@{LEDGER}/release-flows/staging/runs", rounds=1
    )  # the client repeats reads
    assert Upstream.objects.get().error == ""


def test_stage_error_keeps_its_start(world: World) -> None:
    read_with_faults(world, f"502-html@{LEDGER}", rounds=1)
    before = Stage.objects.exclude(error="").values_list("pk", "error_since")
    error_since_by_stage = dict(before)
    assert error_since_by_stage
    read_with_faults(world, f"502-html@{LEDGER}", rounds=1)
    assert dict(before.all()) == error_since_by_stage


def test_failing_stage_counts_failures(world: World) -> None:
    world.sync()
    delays = []
    for _ in range(3):
        read_with_faults(world, f"502-html@{LEDGER}", rounds=1)
        stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
        assert stage.error_since is not None
        delays.append(stage.failures)
    assert delays == [1, 2, 3]


@pytest.mark.parametrize(
    ("fault", "delays"), [("forbidden:payments", [60, 120, 240]), ("500", [10, 20, 40])]
)
def test_failing_run_backs_off_longer_each_time(
    world: World, fault: str, delays: list[int]
) -> None:
    run_id = world.start()
    world.sync()
    world.sandbox.faults = [parse_fault(f"{fault}@{run_id}")]
    intervals = []
    for _ in delays:
        Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
        before = timezone.now()
        world.live.sync(1)
        next_detail_sync_at = Run.objects.get(run_id=run_id).next_detail_sync_at
        assert next_detail_sync_at is not None
        intervals.append(round((next_detail_sync_at - before).total_seconds(), -1))
    assert intervals == delays


def test_run_read_successfully_has_no_failures(world: World) -> None:
    run_id = world.start()
    world.sync()
    Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO, failures=3)
    world.live.sync(1)
    assert Run.objects.get(run_id=run_id).failures == 0


# --- errors of one stage, or of the account ----------------------------------------------------


@pytest.mark.slow
def test_error_of_one_pipeline_is_no_upstream_error(world: World, logged_events: Lines) -> None:
    read_with_faults(world, f"500@{LEDGER}", rounds=4)
    recover(world)
    assert logged_events("northflank.unavailable") == logged_events("northflank.recovered") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["500", "502-html", "reset", "not-json", "truncated", "bad-token"]
)
def test_error_of_one_pipeline_is_logged_once_per_stage_at_start_and_end(
    world: World, logged_events: Lines, fault: str
) -> None:
    read_with_faults(world, f"{fault}@{LEDGER}", rounds=3)
    failing = sorted(str(stage) for stage in Stage.objects.exclude(error=""))
    recover(world)
    recover(world)
    for event in ("stage.read_failed", "stage.recovered"):
        assert sorted(line["stage"] for line in logged_events(event)) == failing != []


def test_error_of_one_pipeline_does_not_delay_others(world: World) -> None:
    world.sync()
    before = timezone.now()
    read_with_faults(world, f"500@{LEDGER}", rounds=1)
    others = Stage.objects.filter(has_flow=True).exclude(pipeline__slug="ledger")
    assert others.exists()
    assert not others.filter(synced_at__lt=before).exists()


def test_outage_with_changing_causes_is_logged_once(world: World, logged_events: Lines) -> None:
    for fault in ("500", "reset", "502-html", "not-json"):
        read_with_faults(world, fault, rounds=1)
    recover(world)
    assert (
        len(logged_events("northflank.unavailable")),
        len(logged_events("northflank.recovered")),
    ) == (1, 1)


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
    # One request for one stage, and one that tells its error from the account's; each is
    # repeated once by the client.
    assert [path.rpartition("/")[2] for _, path in world.sandbox.requests] == [
        "runs", "runs", "auth", "auth",
    ]  # fmt: skip


def test_outage_sends_no_request_before_next_probe(world: World) -> None:
    read_with_faults(world, "500", rounds=1)
    world.sandbox.requests.clear()
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(3)
    assert list(world.sandbox.requests) == []


def test_outage_probes_different_stages(world: World) -> None:
    read_with_faults(world, "500", rounds=1)
    world.sandbox.requests.clear()
    for _ in range(3):
        world.live.connection.retry_at = 0
        world.live.sync(1)
    assert len(set(world.requests_for("/release-flows/"))) == 3


@pytest.mark.slow
def test_outage_ends_when_probed_stage_keeps_failing(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "500")
    # The only tracked stage is tried before all others, whenever it is tried.
    only_stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    Run.objects.exclude(stage=only_stage).update(in_flight=False)
    world.sandbox.faults = [parse_fault(f"500@{LEDGER}/release-flows/production")]
    for _ in range(2):
        world.make_due()
        world.live.sync(1)
    assert len(logged_events("northflank.recovered")) == 1
    assert [str(stage) for stage in Stage.objects.exclude(error="")] == [str(only_stage)]


def test_outage_probe_interval_grows_to_30_s(world: World) -> None:
    connection = world.live.connection
    intervals = []
    for _ in range(5):
        read_with_faults(world, "500", rounds=1)
        intervals.append(round(connection.retry_at - connection.failed_at))
    assert intervals == [5, 10, 20, 30, 30]


def test_outage_probe_interval_with_invalid_token_is_a_minute(world: World) -> None:
    read_with_faults(world, "bad-token")
    connection = world.live.connection
    assert round(connection.retry_at - connection.failed_at) == 60


def test_team_of_token_is_requested_until_answered(world: World) -> None:
    world.sandbox.faults = [parse_fault("500*4@/auth")]

    async def fetch_team() -> None:
        task = asyncio.ensure_future(process.fetch_team(world.live.connection, retry_interval=0.01))
        while not task.done():
            world.live.connection.retry_at = 0
            await asyncio.sleep(0.01)
        await task

    world.live.run(fetch_team)
    assert Upstream.objects.get().team == "acme"


def pause(left: timedelta) -> datetime:
    """Store the pause of another process after a 429; return when it ends, `left` from now."""
    now = timezone.now()
    window = {"limit": 1000, "remaining": 900, "resets_at": now + timedelta(minutes=30)}
    times = {"synced_at": now - timedelta(minutes=10), "backoff_until": now + left}
    RateBudget.objects.create(pk=1, refusals=1, **window, **times)
    return now + left


# After the pause one request of all processes tries, which the sync workers agree upon.
@pytest.mark.parametrize("left", [timedelta(minutes=5), timedelta(minutes=-1)])
@pytest.mark.parametrize("repeats", [True, False])
def test_team_of_token_is_requested_once_pause_has_ended(
    world: World, repeats: bool, left: timedelta
) -> None:
    class CountedConnection(Connection):
        rounds = 0

        def may_call(self) -> bool:
            self.rounds += 1
            return super().may_call()

    def end_pause() -> None:
        assert RateBudget.objects.get().backoff_until == backoff_until
        RateBudget.objects.update(backoff_until=None, refusals=0)

    backoff_until = pause(left)
    requests_during_pause = []

    async def fetch_team() -> None:
        connection = CountedConnection(world.sandbox.options.token, world.live.upstream_url)
        task = asyncio.ensure_future(
            process.fetch_team(connection, repeats=repeats, retry_interval=0.01)
        )
        while connection.rounds < 3 and not task.done():
            await asyncio.sleep(0.01)
        requests_during_pause.extend(world.requests_for("/auth"))
        await run_in_db_thread(end_pause)
        await task
        await connection.close()

    world.live.run(fetch_team)
    assert requests_during_pause == []
    assert Upstream.objects.get().team == "acme"


@pytest.mark.parametrize("fault", ["404@/auth", "error-without-wrapper:403@/auth"])
def test_refused_request_for_team_is_not_repeated(
    world: World, fault: str, logged_events: Lines
) -> None:
    world.sandbox.faults = [parse_fault(fault)]
    world.live.run(lambda: process.fetch_team(world.live.connection))
    assert world.requests_for("/auth") == ["GET /v1/auth"]
    assert len(logged_events("northflank.team_unknown")) == 1


def test_team_of_token_is_stored_after_database_outage(world: World) -> None:
    calls: list[int] = []

    class UnavailableConnection:
        """A connection whose first call fails, without a database."""

        def may_call(self) -> bool:
            return True

        async def call(self, request: object) -> object:
            calls.append(1)
            if len(calls) == 1:
                raise InterfaceError("connection already closed")
            return await world.live.connection.client.get_auth()

    world.live.run(lambda: process.fetch_team(UnavailableConnection(), retry_interval=0.01))  # type: ignore[arg-type]
    assert len(calls) == 2
    assert Upstream.objects.get().team == "acme"


def test_token_valid_again_recovers(world: World) -> None:
    world.sync()
    valid_token = world.sandbox.options.token
    world.sandbox.options.token = "another-one-entirely"
    read_with_faults(world)
    assert Upstream.objects.get().error == "unauthorised"
    world.sandbox.options.token = valid_token
    recover(world)
    assert Upstream.objects.get().error == ""


def test_outage_at_start_is_logged_and_ends(world: World, logged_events: Lines) -> None:
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


def test_unknown_upstream_host_is_an_error(world: World) -> None:
    world.sync()
    connection = world.live.connection
    world.live.run(connection.client.aclose)
    connection.client = NorthflankClient(
        "sandbox", base_url="http://northflank.invalid", on_call=connection.unrecorded_calls.append
    )
    read_with_faults(world, rounds=1)
    assert Upstream.objects.get().error == "unreachable"


def test_error_of_one_process_is_logged_once_while_another_works(
    world: World, logged_events: Lines
) -> None:
    world.sync()
    other_worker = SyncWorker(Connection("wrong-token", world.live.upstream_url))

    async def work(worker: SyncWorker) -> None:
        worker.connection.retry_at = 0
        await worker.tick()
        await worker.wait_idle()

    for _ in range(3):
        for worker in (other_worker, world.live.worker):
            world.make_due()
            world.live.run(lambda worker=worker: work(worker))  # type: ignore[misc]
    world.live.run(other_worker.connection.close)
    assert (
        len(logged_events("northflank.unavailable")),
        len(logged_events("northflank.recovered")),
    ) == (1, 1)
    assert Upstream.objects.get().error == ""


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


def test_answer_during_pause_after_429_does_not_end_it(world: World, logged_events: Lines) -> None:
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


def test_failing_run_is_logged_once_at_start_and_end(world: World, logged_events: Lines) -> None:
    run_id = world.start()
    world.sync()
    world.sandbox.faults = [parse_fault(f"500@{run_id}")]
    for _ in range(3):
        Run.objects.filter(run_id=run_id).update(next_detail_sync_at=LONG_AGO)
        world.live.sync(1)
    assert [line["run"] for line in logged_events("run.read_failed")] == [run_id]
    world.sandbox.faults = []
    # It may have ended meanwhile, and is read a last time.
    Run.objects.filter(run_id=run_id).update(
        next_detail_sync_at=LONG_AGO, in_flight=False, last_viewed_at=LONG_AGO
    )
    world.live.sync(1)
    assert [line["run"] for line in logged_events("run.recovered")] == [run_id]


def end_unread(world: World, fault: str) -> str:
    """End a run whose steps are known while Northflank has this fault; return the run's id."""
    run_id = world.start()
    world.sync()
    Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1))
    Run.objects.update(next_detail_sync_at=None)
    Run.objects.filter(run_id=run_id).update(
        in_flight=False, concluded=True, detail_synced_at=LONG_AGO, last_viewed_at=LONG_AGO
    )
    world.sandbox.faults = [parse_fault(fault.format(run_id))]
    return run_id


def read_until_given_up(world: World, run_id: str) -> None:
    """Read the run whenever it is due, as if the time until then had passed."""
    run = Run.objects.filter(run_id=run_id)
    run.update(next_detail_sync_at=LONG_AGO)
    for _ in range(9):
        run.exclude(next_detail_sync_at=None).update(next_detail_sync_at=LONG_AGO)
        world.live.connection.retry_at = 0
        world.live.sync(1)


@pytest.mark.parametrize("fault", ["500@{}", "not-json@{}", "huge:6@{}"])
def test_detail_that_can_never_be_read_is_tried_seven_times(world: World, fault: str) -> None:
    run_id = end_unread(world, fault)
    read_until_given_up(world, run_id)
    run = Run.objects.get(run_id=run_id)
    assert (run.failures, run.next_detail_sync_at) == (7, None)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert not world.requests_for(run_id)
    assert Upstream.objects.get().error == ""


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_run_that_was_given_up_is_read_again_once_its_page_is_opened(world: World) -> None:
    run_id = end_unread(world, "500@{}")
    Run.objects.filter(run_id=run_id).update(steps=None, detail_synced_at=None)
    read_until_given_up(world, run_id)
    client = world.live.sign_in("viewer")
    address = factories.address(Run.objects.with_stage().get(run_id=run_id))
    text = "The steps could not be read from Northflank. Retrying."
    assert text in client.get(address).text
    world.sandbox.faults = []
    world.live.sync(1)
    assert text not in client.get(address).text
    assert Run.objects.get(run_id=run_id).failures == 0


@pytest.mark.slow
def test_outage_of_northflank_takes_no_try_of_an_ended_run(world: World) -> None:
    run_id = end_unread(world, "502-html")
    read_until_given_up(world, run_id)
    assert Upstream.objects.get().error == "server_error"
    run = Run.objects.get(run_id=run_id)
    assert (run.failures, run.next_detail_sync_at is None) == (0, False)
    world.sandbox.faults = []
    for _ in range(2):  # the first answer ends the outage
        world.live.connection.retry_at = 0
        world.live.sync(1)
    assert Run.objects.get(run_id=run_id).next_detail_sync_at is None
    assert world.requests_for(run_id)


def test_waiting_chore_does_not_delay_reads(world: World) -> None:
    release = asyncio.Event()
    started_chores = []

    async def chore(_: Connection) -> None:
        started_chores.append(1)
        await release.wait()

    worker = SyncWorker(world.live.connection, chores=[chore])

    async def work() -> None:
        await run_in_db_thread(catalog.start, timezone.now())
        for _ in range(100):
            await worker.tick()
            await asyncio.gather(*worker.active_reads)
        release.set()
        await worker.wait_idle()

    world.live.run(work)
    assert Run.objects.in_flight().exists()
    assert len(started_chores) == 1


def test_worker_idle_returns_when_last_read_ends() -> None:
    worker = SyncWorker(Connection("token", "http://127.0.0.1:9"))

    async def read() -> None:
        pass

    async def work() -> None:
        worker.start_read(read())
        await asyncio.sleep(0)  # it has ended, and is still in `active_reads`
        assert worker.active_reads
        await worker.wait_idle()
        await worker.connection.close()

    # A blocked loop can't be stopped from within.
    working = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    working.start()
    working.join(WAIT_TIMEOUT)
    assert not working.is_alive()
    assert not worker.active_reads


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_worker_stops_during_database_outage(world: World) -> None:
    worker = SyncWorker(world.live.connection)

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(worker.run(stop))
        while not worker.reads_started:
            await asyncio.sleep(0.01)
        await run_in_db_thread(execute, "ALTER TABLE dashboard_worker RENAME TO elsewhere")
        try:
            stop.set()
            await task
        finally:
            await run_in_db_thread(execute, "ALTER TABLE elsewhere RENAME TO dashboard_worker")

    world.live.run(work)
    assert not worker.active_reads
    assert Worker.objects.filter(name=worker.name).exists()  # as after a kill


def test_failing_round_is_logged_once_at_start_and_end(world: World, logged_events: Lines) -> None:
    world.sync()

    async def wait_for_event(event: str) -> None:
        while not logged_events(event):
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * sync_worker.TICK_INTERVAL)

    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(worker.run(stop))
        await run_in_db_thread(execute, "ALTER TABLE dashboard_ratebudget RENAME TO elsewhere")
        try:
            await wait_for_event("sync.tick_failed")
        finally:
            await run_in_db_thread(execute, "ALTER TABLE elsewhere RENAME TO dashboard_ratebudget")
        await wait_for_event("sync.recovered")
        stop.set()
        await task

    worker = SyncWorker(world.live.connection, chores=[aborts.reconcile_open_aborts])
    world.live.run(work)
    assert len(logged_events("sync.tick_failed")) == len(logged_events("sync.recovered")) == 1
    assert logged_events("read.crashed") == []


# --- release flows that cannot be read ---------------------------------------------------------

PRODUCTION = Stage.objects.filter(pipeline__slug="ledger", name="Production")
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


def test_flow_that_cannot_be_read_is_shown_until_it_can(world: World, logged_events: Lines) -> None:
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
    world: World, logged_events: Lines
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
        flow_synced_at=now - timedelta(hours=7),  # a plan of eight times the interval waits longer
        error_since=now - timedelta(minutes=16),
        synced_at=now - timedelta(minutes=2),
    )
    world.sandbox.faults = []
    stage = PRODUCTION.select_related("pipeline__project").get()
    world.live.run(lambda: world.live.worker.read_stage(stage, Plan(1, 8)))
    assert PRODUCTION.get().error == ""


def test_stage_that_has_lost_its_flow_keeps_no_error_of_it(world: World) -> None:
    fail_flow(world)
    world.sandbox.faults = [parse_fault("404@/release-flows/")]
    PRODUCTION.update(fresh_until=LONG_AGO, synced_at=LONG_AGO, confirmed_path_segment="")
    stage = PRODUCTION.select_related("pipeline__project").get()
    world.live.run(lambda: world.live.worker.read_new_stage(stage, Plan(1, 1)))
    stage = PRODUCTION.get()
    assert (stage.has_flow, stage.error) == (False, "")


def test_flow_that_cannot_be_read_is_not_marked_as_read(world: World) -> None:
    assert fail_flow(world).flow_synced_at == LONG_AGO


@pytest.mark.parametrize("discovery", [1 / 3, 1, 50])
def test_flow_that_cannot_be_read_is_tried_every_15_min(world: World, discovery: float) -> None:
    fail_flow(world)
    plan = Plan(1, discovery)
    tries = []
    start = timezone.now() - timedelta(hours=1)
    for read, moment in pairwise(range(0, 3600, 300)):
        # As if the runs were read every five minutes, up to now.
        shift = timedelta(seconds=3600 - moment)
        PRODUCTION.update(
            error_since=start + shift, synced_at=start + shift + timedelta(seconds=read)
        )
        stage = PRODUCTION.select_related("pipeline__project").get()
        world.sandbox.requests.clear()
        world.live.run(lambda stage=stage: world.live.worker.read_stage(stage, plan))  # type: ignore[misc]
        assert world.requests_for("/release-flows/production/runs")
        if [path for _, path in world.sandbox.requests if path.endswith("/production")]:
            tries.append(moment // 60)
    assert tries == [15, 30, 45]


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


# --- forbidden projects ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("status", ["403", "404"])
def test_forbidden_project_does_not_block_others(full_world: World, status: str) -> None:
    full_world.sandbox.choices["no-access"] = status
    full_world.sandbox.faults = [parse_fault("forbidden:payments")]
    full_world.live.sync(1)
    for project in ("shop", "identity"):
        runs = Run.objects.in_flight().filter(stage__pipeline__project__slug=project)
        assert {run.run_id for run in runs} == full_world.ids(in_flight=True, project=project)


def test_forbidden_project_is_no_upstream_error(world: World) -> None:
    read_with_faults(world, "forbidden:payments")
    assert Upstream.objects.get().error == ""


def test_forbidden_stage_has_its_error(world: World) -> None:
    read_with_faults(world, "forbidden:payments")
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    assert stage.error == "forbidden"


def test_forbidden_stage_is_logged_once(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "forbidden:payments", rounds=3)
    stages = [
        line
        for line in logged_events("stage.read_failed")
        if line["stage"] == "Ledger / Production"
    ]
    assert len(stages) == 1


def test_recovered_stage_is_logged_once(world: World, logged_events: Lines) -> None:
    read_with_faults(world, "forbidden:payments")
    recover(world)
    recover(world)
    stages = [
        line for line in logged_events("stage.recovered") if line["stage"] == "Ledger / Production"
    ]
    assert len(stages) == 1


def test_upstream_error_message_has_no_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.sandbox.options.token = "another-one-entirely"
    secret_token = world.live.connection.token
    world.live.sync(1)
    assert secret_token not in str(Upstream.objects.get().error_message)


def test_call_cancelled_before_its_recording_starts_leaves_no_coroutine(world: World) -> None:
    async def answer_at_once(client: NorthflankClient) -> None:
        """No request: this tests the moment after an answer."""

    async def cancel() -> None:
        call = asyncio.create_task(world.live.connection.call(answer_at_once, request_seq=1))
        await asyncio.sleep(0)  # the answer has come, its recording is a task that has not run yet
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    world.live.run(cancel)
    gc.collect()  # pytest fails the test for a coroutine that nobody awaited
