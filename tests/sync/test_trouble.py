"""Upstream trouble: what was mirrored stays, the cause is kept, and each change is logged once."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import InterfaceError, connection
from django.utils import timezone

from dashboard import aborts
from dashboard.db.threads import in_database
from dashboard.models import Run, Stage, Upstream, Worker
from dashboard.northflank import NorthflankClient, RateLimited
from dashboard.sandbox import parse_fault
from dashboard.server import process
from dashboard.sync import catalogue
from dashboard.sync import worker as worker_module
from dashboard.sync.worker import SyncWorker
from dashboard.upstream.connection import Connection
from tests.support.live import PATIENCE
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


def trouble(world: World, *faults: str, rounds: int = 2) -> None:
    """Read once while all is well, and then with the faults."""
    if not Stage.objects.filter(has_flow=True).exists():
        world.sync()
    world.sandbox.faults = [parse_fault(fault) for fault in faults]
    for _ in range(rounds):
        Run.objects.update(next_read_at=None)
        world.make_due()
        world.live.sync(1)


def recovery(world: World) -> None:
    world.sandbox.faults = []
    world.make_due()
    world.live.sync(1)


@pytest.mark.parametrize(("fault", "cause"), CAUSES.items())
def test_the_cause_of_trouble_is_kept(world: World, fault: str, cause: str) -> None:
    trouble(world, fault, rounds=1)
    assert Upstream.objects.get().error == cause


def test_an_upstream_that_does_not_answer_in_time_is_trouble(world: World) -> None:
    world.sync()
    connection = world.live.connection
    world.live.run(connection.client.aclose)
    connection.client = NorthflankClient(
        "sandbox", base_url=world.live.upstream_url, timeout_seconds=0.1,
        observe=connection.calls.append,
    )  # fmt: skip
    trouble(world, "latency:0.3", rounds=1)
    assert Upstream.objects.get().error == "timeout"


def test_trouble_keeps_what_was_mirrored(world: World) -> None:
    world.sync()
    before = list(Run.objects.order_by("pk").values_list("pk", "status", "in_flight", "version"))
    trouble(world, "502-html")
    after = list(Run.objects.order_by("pk").values_list("pk", "status", "in_flight", "version"))
    assert after == before


def test_trouble_is_logged_once(world: World, said: Lines) -> None:
    trouble(world, "bad-token", rounds=3)
    assert len(said("northflank.trouble")) == 1


def test_trouble_of_the_account_is_not_logged_for_each_stage(world: World, said: Lines) -> None:
    trouble(world, "bad-token")
    assert said("stage.trouble") == []


def test_trouble_keeps_when_it_began(world: World) -> None:
    trouble(world, "bad-token", rounds=1)
    before = Upstream.objects.get().error_since
    trouble(world, "bad-token", rounds=1)
    assert Upstream.objects.get().error_since == before


def test_trouble_is_told_to_a_process_that_starts_in_it(world: World, said: Lines) -> None:
    trouble(world, "bad-token")
    process.check_upstream()
    assert [line["cause"] for line in said("northflank.trouble")] == ["unauthorised"] * 2


def test_another_cause_keeps_when_it_began(world: World) -> None:
    trouble(world, "bad-token", rounds=1)
    before = Upstream.objects.get().error_since
    trouble(world, "500", rounds=1)
    assert Upstream.objects.get().error_since == before


def test_another_cause_is_logged(world: World, said: Lines) -> None:
    trouble(world, "bad-token", rounds=1)
    trouble(world, "500", rounds=1)
    assert [line["cause"] for line in said("northflank.trouble")] == [
        "unauthorised",
        "server_error",
    ]


def test_recovery_clears_the_trouble(world: World) -> None:
    trouble(world, "bad-token")
    recovery(world)
    known = Upstream.objects.get()
    assert (known.error, known.error_message, known.error_since) == ("", "", None)


def test_recovery_is_logged_once(world: World, said: Lines) -> None:
    trouble(world, "bad-token")
    recovery(world)
    recovery(world)
    assert len(said("northflank.recovered")) == 1


def test_recovery_of_the_account_is_not_logged_for_each_stage(world: World, said: Lines) -> None:
    trouble(world, "bad-token")
    recovery(world)
    assert said("stage.recovered") == []


def test_recovery_clears_each_stage(world: World) -> None:
    trouble(world, "502-html")
    recovery(world)
    assert not Stage.objects.exclude(error="", failures=0).exists()


def test_one_broken_answer_is_no_trouble_yet(world: World) -> None:
    trouble(world, f"reset*2@{LEDGER}/release-flows/staging/runs", rounds=1)  # reads are repeated
    assert Upstream.objects.get().error == ""


def test_a_stage_in_trouble_knows_since_when(world: World) -> None:
    trouble(world, f"502-html@{LEDGER}", rounds=1)
    before = Stage.objects.exclude(error="").values_list("pk", "error_since")
    first = dict(before)
    assert first
    trouble(world, f"502-html@{LEDGER}", rounds=1)
    assert dict(before.all()) == first


def test_a_stage_in_trouble_rests_longer_each_time(world: World) -> None:
    world.sync()
    rests = []
    for _ in range(3):
        trouble(world, f"502-html@{LEDGER}", rounds=1)
        stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
        assert stage.error_since is not None
        rests.append(stage.failures)
    assert rests == [1, 2, 3]


@pytest.mark.parametrize(
    ("fault", "rests"), [("forbidden:payments", [60, 120, 240]), ("500", [10, 20, 40])]
)
def test_a_run_that_cannot_be_read_rests_longer_each_time(
    world: World, fault: str, rests: list[int]
) -> None:
    run_id = world.start()
    world.sync()
    world.sandbox.faults = [parse_fault(f"{fault}@{run_id}")]
    seen = []
    for _ in rests:
        Run.objects.filter(run_id=run_id).update(next_read_at=LONG_AGO)
        before = timezone.now()
        world.live.sync(1)
        next_read_at = Run.objects.get(run_id=run_id).next_read_at
        assert next_read_at is not None
        seen.append(round((next_read_at - before).total_seconds(), -1))
    assert seen == rests


def test_a_run_that_is_read_again_has_no_failures(world: World) -> None:
    run_id = world.start()
    world.sync()
    Run.objects.filter(run_id=run_id).update(next_read_at=LONG_AGO, failures=3)
    world.live.sync(1)
    assert Run.objects.get(run_id=run_id).failures == 0


# --- one place's trouble, or the account's -----------------------------------------------------


def test_trouble_of_one_pipeline_is_not_the_accounts(world: World, said: Lines) -> None:
    trouble(world, f"500@{LEDGER}", rounds=4)
    recovery(world)
    assert said("northflank.trouble") == said("northflank.recovered") == []


@pytest.mark.parametrize(
    "fault", ["500", "502-html", "reset", "not-json", "truncated", "bad-token"]
)
def test_trouble_of_one_pipeline_has_a_line_a_stage_at_each_end(
    world: World, said: Lines, fault: str
) -> None:
    trouble(world, f"{fault}@{LEDGER}", rounds=3)
    failing = sorted(str(stage) for stage in Stage.objects.exclude(error=""))
    recovery(world)
    recovery(world)
    for event in ("stage.trouble", "stage.recovered"):
        assert sorted(line["stage"] for line in said(event)) == failing != []


def test_trouble_of_one_pipeline_leaves_the_others_fresh(world: World) -> None:
    world.sync()
    before = timezone.now()
    trouble(world, f"500@{LEDGER}", rounds=1)
    others = Stage.objects.filter(has_flow=True).exclude(pipeline__slug="ledger")
    assert others.exists()
    assert not others.filter(synced_at__lt=before).exists()


def test_an_outage_whose_symptoms_change_is_one_trouble(world: World, said: Lines) -> None:
    for fault in ("500", "reset", "502-html", "not-json"):
        trouble(world, fault, rounds=1)
    recovery(world)
    assert (len(said("northflank.trouble")), len(said("northflank.recovered"))) == (1, 1)


def test_an_outage_is_told_at_the_first_failed_question(world: World) -> None:
    trouble(world, "500", rounds=1)
    assert Upstream.objects.get().error == "server_error"


def test_an_outage_counts_against_no_stage(world: World) -> None:
    trouble(world, "500", rounds=4)
    assert not Stage.objects.exclude(error="", failures=0).exists()


def test_after_an_outage_every_stage_is_read_at_once(world: World) -> None:
    trouble(world, "500", rounds=4)
    world.sandbox.faults = []
    world.live.connection.ask_at = 0
    before = timezone.now()
    world.live.sync(1)
    assert not Stage.objects.filter(has_flow=True, synced_at__lt=before).exists()


def test_during_an_outage_little_is_asked(world: World) -> None:
    trouble(world, "500", rounds=1)
    world.sandbox.requests.clear()
    world.make_due()
    world.live.sync(1)
    # One question of one stage, and one that would tell its trouble from the account's; each is
    # repeated once by the client.
    assert [path.rpartition("/")[2] for _, path in world.sandbox.requests] == [
        "runs", "runs", "auth", "auth",
    ]  # fmt: skip


def test_during_an_outage_nothing_is_asked_before_its_time(world: World) -> None:
    trouble(world, "500", rounds=1)
    world.sandbox.requests.clear()
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(3)
    assert list(world.sandbox.requests) == []


def test_during_an_outage_the_stages_take_turns(world: World) -> None:
    trouble(world, "500", rounds=1)
    world.sandbox.requests.clear()
    for _ in range(3):
        world.live.connection.ask_at = 0
        world.live.sync(1)
    assert len(set(world.asked("/release-flows/"))) == 3


def test_an_outage_ends_though_the_stage_that_is_tried_goes_on_failing(
    world: World, said: Lines
) -> None:
    trouble(world, "500")
    # The only stage that is followed is tried before all others, whenever it is tried.
    only = Stage.objects.get(pipeline__slug="ledger", name="Production")
    Run.objects.exclude(stage=only).update(in_flight=False)
    world.sandbox.faults = [parse_fault(f"500@{LEDGER}/release-flows/production")]
    for _ in range(2):
        world.make_due()
        world.live.sync(1)
    assert len(said("northflank.recovered")) == 1
    assert [str(stage) for stage in Stage.objects.exclude(error="")] == [str(only)]


def test_the_pauses_of_an_outage_grow_to_half_a_minute(world: World) -> None:
    connection = world.live.connection
    pauses = []
    for _ in range(5):
        trouble(world, "500", rounds=1)
        pauses.append(round(connection.ask_at - connection.failed_at))
    assert pauses == [5, 10, 20, 30, 30]


def test_without_a_valid_token_a_minute_passes_between_questions(world: World) -> None:
    trouble(world, "bad-token")
    connection = world.live.connection
    assert round(connection.ask_at - connection.failed_at) == 60


def test_whose_the_token_is_is_asked_until_it_is_answered(world: World) -> None:
    world.sandbox.faults = [parse_fault("500*4@/auth")]

    async def learn() -> None:
        learning = asyncio.ensure_future(process.learn_team(world.live.connection, pause=0.01))
        while not learning.done():
            world.live.connection.ask_at = 0
            await asyncio.sleep(0.01)
        await learning

    world.live.run(learn)
    assert Upstream.objects.get().team == "acme"


def test_whose_the_token_is_is_learned_after_the_database_was_away(world: World) -> None:
    calls: list[int] = []

    class Away:
        """A connection whose first question finds no database."""

        def may_ask(self) -> bool:
            return True

        async def ask(self, question: object) -> object:
            calls.append(1)
            if len(calls) == 1:
                raise InterfaceError("connection already closed")
            return await world.live.connection.client.auth()

    world.live.run(lambda: process.learn_team(Away(), pause=0.01))  # type: ignore[arg-type]
    assert len(calls) == 2
    assert Upstream.objects.get().team == "acme"


def test_a_token_that_turns_wrong_and_right_again_recovers_by_itself(world: World) -> None:
    world.sync()
    right = world.sandbox.options.token
    world.sandbox.options.token = "another-one-entirely"
    trouble(world)
    assert Upstream.objects.get().error == "unauthorised"
    world.sandbox.options.token = right
    recovery(world)
    assert Upstream.objects.get().error == ""


def test_an_outage_from_the_start_is_told_and_ends(world: World, said: Lines) -> None:
    world.sandbox.faults = [parse_fault("500")]
    for _ in range(3):
        world.make_due()
        world.live.sync(1)
    world.sandbox.faults = []
    world.make_due()
    world.live.sync()
    assert Run.objects.in_flight().exists()
    assert (len(said("northflank.trouble")), len(said("northflank.recovered"))) == (1, 1)


def test_a_host_name_that_leads_nowhere_is_trouble(world: World) -> None:
    world.sync()
    connection = world.live.connection
    world.live.run(connection.client.aclose)
    connection.client = NorthflankClient(
        "sandbox", base_url="http://northflank.invalid", observe=connection.calls.append
    )
    trouble(world, rounds=1)
    assert Upstream.objects.get().error == "unreachable"


def test_trouble_of_one_process_is_told_once_while_another_is_answered(
    world: World, said: Lines
) -> None:
    world.sync()
    stranger = SyncWorker(Connection("wrong-token", world.live.upstream_url))

    async def work(worker: SyncWorker) -> None:
        worker.connection.ask_at = 0
        await worker.tick()
        await worker.idle()

    for _ in range(3):
        for worker in (stranger, world.live.worker):
            world.make_due()
            world.live.run(lambda worker=worker: work(worker))  # type: ignore[misc]
    world.live.run(stranger.connection.close)
    assert (len(said("northflank.trouble")), len(said("northflank.recovered"))) == (1, 1)
    assert Upstream.objects.get().error == ""


def test_an_answer_to_an_older_question_does_not_end_the_trouble(world: World) -> None:
    world.sync()
    connection = world.live.connection
    world.sandbox.faults = [parse_fault("latency:0.5@/projects"), parse_fault("rate-limited@/auth")]

    async def both() -> None:
        slow = asyncio.ensure_future(connection.ask(lambda nf: nf.projects()))
        await asyncio.sleep(0.1)
        world.sandbox.faults = [parse_fault("rate-limited")]
        with contextlib.suppress(RateLimited):
            await connection.ask(lambda nf: nf.auth())
        await asyncio.wait([slow])

    world.live.run(both)
    assert connection.trouble == Upstream.objects.get().error == "rate_limited"


def test_a_chore_that_waits_holds_up_nothing(world: World) -> None:
    release = asyncio.Event()
    begun = []

    async def chore(_: Connection) -> None:
        begun.append(1)
        await release.wait()

    worker = SyncWorker(world.live.connection, chores=[chore])

    async def work() -> None:
        await in_database(catalogue.begin, timezone.now())
        for _ in range(100):
            await worker.tick()
            await asyncio.gather(*worker.under_way)
        release.set()
        await worker.idle()

    world.live.run(work)
    assert Run.objects.in_flight().exists()
    assert len(begun) == 1


def test_a_worker_is_idle_in_the_turn_in_which_its_last_reading_ends() -> None:
    worker = SyncWorker(Connection("token", "http://127.0.0.1:9"))

    async def read() -> None:
        pass

    async def work() -> None:
        worker.start(read())
        await asyncio.sleep(0)  # it has ended, and is still among what is under way
        assert worker.under_way
        await worker.idle()
        await worker.connection.close()

    # A loop that gets no turn can't be stopped from within.
    working = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    working.start()
    working.join(PATIENCE)
    assert not working.is_alive()
    assert not worker.under_way


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_worker_ends_while_the_database_is_away(world: World) -> None:
    worker = SyncWorker(world.live.connection)

    async def work() -> None:
        stop = asyncio.Event()
        working = asyncio.ensure_future(worker.run(stop))
        while not worker.started:
            await asyncio.sleep(0.01)
        await in_database(execute, "ALTER TABLE dashboard_worker RENAME TO elsewhere")
        try:
            stop.set()
            await working
        finally:
            await in_database(execute, "ALTER TABLE elsewhere RENAME TO dashboard_worker")

    world.live.run(work)
    assert not worker.under_way
    assert Worker.objects.filter(name=worker.name).exists()  # as of one that was killed


def test_a_round_that_fails_is_told_once_at_each_end(world: World, said: Lines) -> None:
    world.sync()

    async def until(event: str) -> None:
        while not said(event):
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * worker_module.TICK)

    async def work() -> None:
        stop = asyncio.Event()
        working = asyncio.ensure_future(worker.run(stop))
        await in_database(execute, "ALTER TABLE dashboard_budget RENAME TO elsewhere")
        try:
            await until("sync.round_failed")
        finally:
            await in_database(execute, "ALTER TABLE elsewhere RENAME TO dashboard_budget")
        await until("sync.recovered")
        stop.set()
        await working

    worker = SyncWorker(world.live.connection, chores=[aborts.look_after_open_aborts])
    world.live.run(work)
    assert len(said("sync.round_failed")) == len(said("sync.recovered")) == 1
    assert said("read.defect") == []


# --- projects that are closed to us ------------------------------------------------------------


@pytest.mark.parametrize("no_access", ["403", "404"])
def test_a_forbidden_project_does_not_stop_the_others(everything: World, no_access: str) -> None:
    everything.sandbox.choices["no-access"] = no_access
    everything.sandbox.faults = [parse_fault("forbidden:payments")]
    everything.live.sync(1)
    for project in ("shop", "identity"):
        known = Run.objects.in_flight().filter(stage__pipeline__project__slug=project)
        assert {run.run_id for run in known} == everything.ids(in_flight=True, project=project)


def test_a_forbidden_project_is_no_trouble_of_the_account(world: World) -> None:
    trouble(world, "forbidden:payments")
    assert Upstream.objects.get().error == ""


def test_a_stage_that_became_forbidden_says_so(world: World) -> None:
    trouble(world, "forbidden:payments")
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    assert stage.error == "forbidden"


def test_a_stage_that_became_forbidden_is_logged_once(world: World, said: Lines) -> None:
    trouble(world, "forbidden:payments", rounds=3)
    of = [line for line in said("stage.trouble") if line["stage"] == "Ledger / Production"]
    assert len(of) == 1


def test_a_stage_that_recovers_is_logged_once(world: World, said: Lines) -> None:
    trouble(world, "forbidden:payments")
    recovery(world)
    recovery(world)
    of = [line for line in said("stage.recovered") if line["stage"] == "Ledger / Production"]
    assert len(of) == 1


def test_no_token_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.sandbox.options.token = "another-one-entirely"
    trouble_before = world.live.connection.token
    world.live.sync(1)
    assert trouble_before not in str(Upstream.objects.get().error_message)
