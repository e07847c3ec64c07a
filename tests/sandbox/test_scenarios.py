"""Each scenario over real HTTP: at its opening and later, with several seeds."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dashboard.sandbox import Options
from dashboard.sandbox.scenarios import SCENARIOS
from tests.support.sandbox import NOW, SandboxServer
from tests.support.sandbox_paths import LEDGER, flow

DOCS = Path(__file__).parents[2] / "docs" / "build" / "sandbox.md"

MINUTE = 60
HOUR = 3600
SEEDS = [1, 40]
LATER = [0, 2 * HOUR]
"""Seconds after the scenario has opened."""
START_IN_SLOT = [0, 217]

CHECKOUT = flow("shop", "checkout", "production")
CHECKOUT_STAGING = flow("shop", "checkout", "staging")


SEARCH = flow("shop", "search", "production")
TRAIN = flow("shop", "release-train", "production")

type Json = dict[str, Any]


def open_scenario(
    sandbox_server: SandboxServer,
    name: str,
    seed: int = 1,
    *,
    after: float = 0,
    history_hours: float = 24,
) -> None:
    """Open a scenario with a short history, and advance the clock by `after` seconds."""
    sandbox_server.clock.now = NOW
    options = Options(scenario=name, seed=seed, rate_limit=100_000, history_hours=history_hours)
    sandbox_server.configure(options)
    sandbox_server.clock.now = NOW + after


def list_runs(sandbox_server: SandboxServer, path: str, query: str = "") -> list[Json]:
    runs: list[Json] = []
    cursor = ""
    while True:
        body = sandbox_server.get(f"{path}/runs?per_page=100{query}{cursor}").json()
        runs += body["data"]["runs"]
        if not body["pagination"]["hasNextPage"]:
            return runs
        cursor = f"&cursor={body['pagination']['cursor']}"


def runs_in_flight(sandbox_server: SandboxServer, path: str) -> list[Json]:
    return list_runs(sandbox_server, path, "&concluded=false")


def statuses(sandbox_server: SandboxServer, path: str) -> list[str]:
    return [run["status"] for run in runs_in_flight(sandbox_server, path)]


def detail(sandbox_server: SandboxServer, path: str, run: Json) -> Json:
    data: Json = sandbox_server.get(f"{path}/runs/{run['id']}").json()["data"]
    return data


def nodes(run: Json) -> list[Json]:
    def below(node: Json) -> Iterator[Json]:
        yield node
        for child in node["spec"].get("steps", []):
            yield from below(child)

    return list(below(run["spec"]))


def node(run: Json, ref: str) -> Json:
    return next(node for node in nodes(run) if node.get("ref") == ref)


def elapsed(sandbox_server: SandboxServer, run: Json, ref: str) -> float:
    """Return for how many seconds a step has been running."""
    response = node(run, ref)["response"]
    assert "endTime" not in response
    return sandbox_server.clock.now - float(response["startTime"])


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


SAMPLE_PROJECTS = 3
"""Projects that speak for all: no scenario but `100-pipelines` has more."""


def all_stages(sandbox_server: SandboxServer, projects: int = 100) -> Iterator[str]:
    for project in sandbox_server.get(f"/projects?per_page={projects}").json()["data"]["projects"]:
        path = f"/projects/{project['id']}/pipelines"
        for pipeline in sandbox_server.get(f"{path}?per_page=100").json()["data"]["pipelines"]:
            for stage in ("development", "staging", "production"):
                stage_path = flow(project["id"], pipeline["id"], stage)
                if sandbox_server.get(stage_path).status_code == 200:
                    yield stage_path


def runs_in_flight_by_stage(
    sandbox_server: SandboxServer, projects: int = 100
) -> dict[str, list[Json]]:
    return {
        path: runs_in_flight(sandbox_server, path) for path in all_stages(sandbox_server, projects)
    }


# --- all of them -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stuck-production", "queue-pileup"])
def test_restart_with_opening_time_has_the_same_runs(
    sandbox_server: SandboxServer, name: str
) -> None:
    open_scenario(sandbox_server, name)
    sandbox_server.clock.now += 2 * HOUR
    sandbox_server.sandbox.faults = []
    before = runs_in_flight_by_stage(sandbox_server, SAMPLE_PROJECTS)
    sandbox_server.configure(Options(scenario=name, rate_limit=100_000, opened_at=int(NOW)))
    assert runs_in_flight_by_stage(sandbox_server, SAMPLE_PROJECTS) == before


@pytest.mark.parametrize("name", ["everyday", "queue-pileup", "approval-wait"])
def test_step_times_are_in_order(sandbox_server: SandboxServer, name: str) -> None:
    open_scenario(sandbox_server, name)
    step_count = 0
    for path in all_stages(sandbox_server, SAMPLE_PROJECTS):
        for run in list_runs(sandbox_server, path)[:4]:
            full = detail(sandbox_server, path, run)
            for response in (n["response"] for n in nodes(full) if "response" in n):
                start = response.get("startTime", NOW)
                assert int(at(run["createdAt"])) <= start <= response.get("endTime", NOW) <= NOW
                step_count += 1
    assert step_count > 50


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_is_documented(name: str) -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(f"| `{name}` |") for line in lines)


# --- quiet-night -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_quiet_night_has_no_runs_in_flight(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "quiet-night", seed, after=later)
    assert not any(runs_in_flight_by_stage(sandbox_server).values())


# --- stuck-production ------------------------------------------------------------------------


def stuck_run(sandbox_server: SandboxServer) -> Json:
    return detail(sandbox_server, CHECKOUT, runs_in_flight(sandbox_server, CHECKOUT)[-1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_stuck_production_migration_step_is_running_for_18_minutes(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "stuck-production", seed, after=later)
    run = stuck_run(sandbox_server)
    migrate = node(run, "migrate")
    assert (migrate["kind"], migrate["condition"]) == ("JobRun", "success")
    assert elapsed(sandbox_server, run, "migrate") == pytest.approx(18 * MINUTE + later, abs=1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_release_train_has_every_step_kind_and_status(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "stuck-production", seed, after=later)
    [run] = runs_in_flight(sandbox_server, TRAIN)
    tree = nodes(detail(sandbox_server, TRAIN, run))
    assert len(tree) >= 60
    assert {node["kind"] for node in tree} == {
        *("Workflow", "LoopWorkflow", "Build", "JobRun", "Release", "AddonBackup", "Condition"),
        *("Approval", "RunTemplate", "Action", "Message"),
    }
    assert {node.get("response", {}).get("status") for node in tree} == {
        *(None, "success", "skipped", "waiting", "retrying", "async_wait", "approval_wait"),
    }
    retried = [
        node for node in tree if node.get("response", {}).get("retries", {}).get("attempts") == 2
    ]
    assert [node["response"]["status"] for node in retried] == ["success", "retrying"]
    assert "message" in retried[1]["response"]["error"]


# --- queue-pileup ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("path", [CHECKOUT_STAGING, CHECKOUT])
def test_queue_pileup_has_nine_runs_queued_behind_long_run(
    sandbox_server: SandboxServer, seed: int, later: int, path: str
) -> None:
    open_scenario(sandbox_server, "queue-pileup", seed, after=later)
    *behind, front = runs_in_flight(sandbox_server, path)
    assert [run["status"] for run in behind] == ["queued"] * 9
    assert front["status"] in {"running", "waiting"}
    assert sandbox_server.clock.now - at(front["startedAt"]) > 40 * MINUTE
    assert sandbox_server.get(path).json()["data"]["concurrencyPolicy"] == "queue"


# --- approval-wait ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", [0, 4 * MINUTE])
@pytest.mark.parametrize(("path", "since"), [(CHECKOUT, 5 * MINUTE), (SEARCH, 6 * HOUR)])
def test_approval_wait_has_runs_waiting_for_approval(
    sandbox_server: SandboxServer, seed: int, later: int, path: str, since: int
) -> None:
    open_scenario(sandbox_server, "approval-wait", seed, after=later)
    run = runs_in_flight(sandbox_server, path)[-1]
    assert run["status"] == "approval_wait"
    approval_seconds = elapsed(sandbox_server, detail(sandbox_server, path, run), "sign-off")
    assert approval_seconds == pytest.approx(since + later, abs=1)


# --- abort-hangs -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_abort_hangs_has_run_aborting_for_12_minutes(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "abort-hangs", seed, after=later)
    assert statuses(sandbox_server, SEARCH) == ["queued", "aborting"]
    run = runs_in_flight(sandbox_server, SEARCH)[-1]
    assert sandbox_server.clock.now - at(run["updatedAt"]) == pytest.approx(
        12 * MINUTE + later, abs=1
    )


def test_own_choice_takes_precedence_over_scenario(sandbox_server: SandboxServer) -> None:
    sandbox_server.clock.now = NOW
    choices = {"abort-seconds": "3"}
    sandbox_server.configure(Options(scenario="abort-hangs", choices=choices))
    run = runs_in_flight(sandbox_server, CHECKOUT)[-1]
    sandbox_server.post(f"{CHECKOUT}/runs/{run['id']}/abort")
    sandbox_server.clock.now += 3
    assert detail(sandbox_server, CHECKOUT, run)["status"] == "aborted"


# --- upstream-down ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("start", START_IN_SLOT)
def test_upstream_down_is_readable_for_a_minute(
    sandbox_server: SandboxServer, seed: int, start: int
) -> None:
    sandbox_server.clock.now = NOW + start
    sandbox_server.configure(Options(scenario="upstream-down", seed=seed))
    sandbox_server.clock.now += 59
    assert any(run for run in runs_in_flight(sandbox_server, LEDGER))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", [60, 5 * HOUR])
def test_upstream_down_after_a_minute_answers_503(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "upstream-down", seed)
    run = runs_in_flight(sandbox_server, LEDGER)[-1]["id"]
    sandbox_server.clock.now = NOW + later
    assert sandbox_server.get("/projects").status_code == 503
    assert sandbox_server.get(f"{LEDGER}/runs/{run}").status_code == 503
    assert sandbox_server.post(f"{LEDGER}/runs/{run}/abort").status_code == 503


# --- 100-pipelines ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "later"), zip(SEEDS, LATER, strict=True))
def test_hundred_pipelines_have_18_to_60_runs_in_flight(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "100-pipelines", seed, after=later)
    assert 18 <= sum(map(len, runs_in_flight_by_stage(sandbox_server).values())) <= 60
