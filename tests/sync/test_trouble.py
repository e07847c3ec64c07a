"""Upstream trouble: what was mirrored stays, the cause is kept, and each change is logged once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dashboard.models import Run, Stage, Upstream
from dashboard.northflank import NorthflankClient
from dashboard.sandbox import parse_fault
from tests.sync.conftest import World

type Lines = Callable[[str], list[dict[str, Any]]]

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
        observe=connection._calls.append,
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
    trouble(world, "reset*2@/ledger/release-flows/staging/runs", rounds=1)  # reads are repeated
    assert Upstream.objects.get().error == ""


def test_a_stage_in_trouble_knows_since_when(world: World) -> None:
    trouble(world, "502-html", rounds=1)
    before = Stage.objects.filter(has_flow=True).values_list("pk", "error_since")
    first = dict(before)
    trouble(world, "502-html", rounds=1)
    assert dict(before.all()) == first


def test_a_stage_in_trouble_rests_longer_each_time(world: World) -> None:
    world.sync()
    rests = []
    for _ in range(3):
        trouble(world, "502-html", rounds=1)
        stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
        assert stage.error_since is not None
        rests.append(stage.failures)
    assert rests == [1, 2, 3]


def test_a_run_that_cannot_be_read_rests(world: World) -> None:
    run_id = world.start()
    world.sync()
    world.sandbox.faults = [parse_fault("500")]
    before = Run.objects.get(run_id=run_id).seen_at
    Run.objects.filter(run_id=run_id).update(next_read_at=before)
    world.live.sync(1)
    rested = Run.objects.get(run_id=run_id).next_read_at
    assert rested is not None
    assert rested > before + timedelta(seconds=5)


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
