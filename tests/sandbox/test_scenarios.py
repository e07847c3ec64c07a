"""Each scenario over real HTTP: at its opening and later, with several seeds."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dashboard.sandbox import Options, parse_fault
from dashboard.sandbox.scenarios import SCENARIOS
from dashboard.sandbox.world import World
from tests.support.sandbox import NOW, SandboxServer
from tests.support.sandbox_paths import LEDGER, flow

DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"

MINUTE = 60
HOUR = 3600
SEEDS = [1, 7, 40]
LATER = [0, 4 * MINUTE, 2 * HOUR]
"""Seconds after the scenario has opened."""
START_IN_SLOT = [0, 217]

CHECKOUT = flow("shop", "checkout", "production")
CHECKOUT_STAGING = flow("shop", "checkout", "staging")
STOREFRONT = flow("shop", "storefront", "production")
STOREFRONT_STAGING = flow("shop", "storefront", "staging")
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
@pytest.mark.parametrize("name", SCENARIOS)
def test_restart_soon_after_has_the_same_runs(sandbox_server: SandboxServer, name: str) -> None:
    open_scenario(sandbox_server, name)
    sandbox_server.clock.now += 20
    before = runs_in_flight_by_stage(sandbox_server, SAMPLE_PROJECTS)
    sandbox_server.configure(Options(scenario=name, rate_limit=100_000))
    assert runs_in_flight_by_stage(sandbox_server, SAMPLE_PROJECTS) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_restart_with_opening_time_has_the_same_runs(
    sandbox_server: SandboxServer, name: str
) -> None:
    open_scenario(sandbox_server, name)
    sandbox_server.clock.now += 2 * HOUR
    sandbox_server.sandbox.faults = []
    before = runs_in_flight_by_stage(sandbox_server, SAMPLE_PROJECTS)
    sandbox_server.configure(Options(scenario=name, rate_limit=100_000, opened_at=int(NOW)))
    assert runs_in_flight_by_stage(sandbox_server, SAMPLE_PROJECTS) == before


@pytest.mark.parametrize("name", SCENARIOS)
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


@pytest.mark.parametrize("seed", SEEDS)
def test_quiet_night_has_only_successes_hours_ago(sandbox_server: SandboxServer, seed: int) -> None:
    open_scenario(sandbox_server, "quiet-night", seed)
    for path in all_stages(sandbox_server):
        runs = list_runs(sandbox_server, path)
        assert len(runs) > 20
        assert {run["status"] for run in runs} == {"success"}
        assert max(at(run["concludedAt"]) for run in runs) < NOW - 2 * HOUR


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


@pytest.mark.parametrize("start", START_IN_SLOT)
def test_stuck_production_at_any_start_is_stuck_for_18_to_23_minutes(
    sandbox_server: SandboxServer, start: int
) -> None:
    sandbox_server.clock.now = NOW + start
    sandbox_server.configure(Options(scenario="stuck-production"))
    assert (
        18 * MINUTE <= elapsed(sandbox_server, stuck_run(sandbox_server), "migrate") <= 23 * MINUTE
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", [*LATER, 31, 59.7])
def test_stuck_production_migration_step_is_before_third_of_three_attempts(
    sandbox_server: SandboxServer, seed: int, later: float
) -> None:
    open_scenario(sandbox_server, "stuck-production", seed, after=later)
    run = stuck_run(sandbox_server)
    response = node(run, "migrate")["response"]
    retries = response["retries"]
    assert run["status"] == response["status"] == "retrying"
    assert (retries["attempts"], retries["maxAttempts"]) == (2, 3)
    assert response["error"] == {"code": 1, "message": "Job run failed with exit code 1"}
    assert retries["timestamp"] < sandbox_server.clock.now < retries["nextAttempt"]
    assert retries["nextAttempt"] - sandbox_server.clock.now <= MINUTE + 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_stuck_production_has_two_runs_queued_behind(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "stuck-production", seed, after=later)
    assert statuses(sandbox_server, CHECKOUT) == ["queued", "queued", "retrying"]
    assert sandbox_server.get(CHECKOUT).json()["data"]["concurrencyPolicy"] == "queue"


@pytest.mark.parametrize("seed", SEEDS)
def test_stuck_production_successes_take_6_to_9_min_and_migration_2_to_4(
    sandbox_server: SandboxServer, seed: int
) -> None:
    open_scenario(sandbox_server, "stuck-production", seed)
    successes = list_runs(sandbox_server, CHECKOUT, "&status=success")[:20]
    assert len(successes) == 20
    durations, step_durations = [], []
    for run in successes:
        durations.append(at(run["concludedAt"]) - at(run["startedAt"]))
        response = node(detail(sandbox_server, CHECKOUT, run), "migrate")["response"]
        step_durations.append(response["endTime"] - response["startTime"])
    assert 6 * MINUTE <= min(durations) < median(durations) < max(durations) <= 9 * MINUTE
    assert (
        2 * MINUTE - 1
        <= min(step_durations)
        < median(step_durations)
        < max(step_durations)
        <= 4 * MINUTE + 1
    )


def test_stuck_production_abort_starts_next_queued_run(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "stuck-production")
    sandbox_server.post(f"{CHECKOUT}/runs/{stuck_run(sandbox_server)['id']}/abort")
    sandbox_server.clock.now += 10
    assert statuses(sandbox_server, CHECKOUT) == ["queued", "running"]


@pytest.mark.parametrize("seed", SEEDS)
def test_stuck_production_has_no_stuck_runs_in_other_projects(
    sandbox_server: SandboxServer, seed: int
) -> None:
    open_scenario(sandbox_server, "stuck-production", seed, after=10 * MINUTE)
    others = [
        run
        for path, runs in runs_in_flight_by_stage(sandbox_server).items()
        if "/shop/" not in path
        for run in runs
    ]
    assert others
    assert all(sandbox_server.clock.now - at(run["createdAt"]) < 20 * MINUTE for run in others)


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


def test_release_train_is_nested_four_deep(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "stuck-production")
    [run] = runs_in_flight(sandbox_server, TRAIN)

    def depth(node: Json) -> int:
        return 1 + max(map(depth, node["spec"].get("steps", [])), default=0)

    full = detail(sandbox_server, TRAIN, run)
    assert depth(full["spec"]) == 5
    assert len(node(full, "each-region")["spec"]["iterations"]) == 3


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


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_queue_pileup_with_forbid_policy_skips_new_runs(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "queue-pileup", seed, after=later)
    assert sandbox_server.get(STOREFRONT).json()["data"]["concurrencyPolicy"] == "forbid"
    [run] = runs_in_flight(sandbox_server, STOREFRONT)
    assert sandbox_server.clock.now - at(run["startedAt"]) > 35 * MINUTE
    assert sandbox_server.post(f"{STOREFRONT}/runs").status_code == 409
    assert runs_in_flight(sandbox_server, STOREFRONT) == [run]
    later_runs = [
        skipped
        for skipped in list_runs(sandbox_server, STOREFRONT)
        if skipped["createdAt"] > run["createdAt"]
    ]
    assert [
        (skipped["name"], skipped["status"], skipped["concluded"]) for skipped in later_runs
    ] == [
        ("Imprint", "skipped", True),
        ("Cookie banner", "skipped", True),
    ]
    assert all("startedAt" not in skipped for skipped in later_runs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_queue_pileup_with_latest_policy_queues_only_newest_run(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "queue-pileup", seed, after=later)
    assert sandbox_server.get(STOREFRONT_STAGING).json()["data"]["concurrencyPolicy"] == "latest"
    newest, front = runs_in_flight(sandbox_server, STOREFRONT_STAGING)
    assert newest["status"] == "queued"
    later_runs = [
        skipped
        for skipped in list_runs(sandbox_server, STOREFRONT_STAGING)
        if front["createdAt"] < skipped["createdAt"] < newest["createdAt"]
    ]
    assert [skipped["status"] for skipped in later_runs] == ["skipped"] * 8
    creation_times = [newest["createdAt"], *(skipped["createdAt"] for skipped in later_runs)]
    assert [skipped["concludedAt"] for skipped in later_runs] == creation_times[
        :-1
    ]  # when the next one was created


def test_queue_pileup_with_latest_policy_at_any_time_queues_only_newest() -> None:
    for opened in range(int(NOW), int(NOW) + 3 * HOUR, 20 * MINUTE):
        world = World(1, "queue-pileup", opened_at=opened)
        flow = world.find_flow("shop", "storefront", "staging")
        assert flow is not None
        now = opened + MINUTE
        in_flight = [run for run in world.list_runs(flow, now) if now < run.concluded_at]
        assert [run.status(now) for run in in_flight] == ["queued", "waiting"]
        queued, front = in_flight
        world.abort_run(flow, front.id, now)
        run = world.find_run(flow, queued.id, now + HOUR)
        assert run is not None
        assert run.started_at is not None
        assert run.started_at < now + MINUTE


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


@pytest.mark.parametrize("seed", SEEDS)
def test_approval_wait_approvals_take_2_to_12_minutes(
    sandbox_server: SandboxServer, seed: int
) -> None:
    open_scenario(sandbox_server, "approval-wait", seed)
    for run in list_runs(sandbox_server, CHECKOUT, "&status=success")[:20]:
        response = node(detail(sandbox_server, CHECKOUT, run), "sign-off")["response"]
        duration = response["endTime"] - response["startTime"]
        assert 2 * MINUTE - 1 <= duration <= 12 * MINUTE + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_approval_wait_usual_approval_is_given_and_forgotten_one_is_not(
    sandbox_server: SandboxServer, seed: int
) -> None:
    open_scenario(sandbox_server, "approval-wait", seed, after=HOUR)
    assert runs_in_flight(sandbox_server, CHECKOUT) == []
    assert runs_in_flight(sandbox_server, SEARCH)[-1]["status"] == "approval_wait"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_approval_wait_has_a_run_in_async_wait(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "approval-wait", seed, after=later)
    [run] = runs_in_flight(sandbox_server, CHECKOUT_STAGING)
    assert run["status"] == "async_wait"
    assert (
        node(detail(sandbox_server, CHECKOUT_STAGING, run), "smoke-tests")["kind"] == "RunTemplate"
    )


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


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_abort_hangs_accepted_abort_never_ends(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "abort-hangs", seed, after=later, history_hours=48)
    run = runs_in_flight(sandbox_server, CHECKOUT)[-1]
    answer = sandbox_server.post(f"{CHECKOUT}/runs/{run['id']}/abort")
    assert answer.status_code == 200
    assert answer.json()["data"]["status"] == "aborting"
    sandbox_server.clock.now += 24 * HOUR
    assert detail(sandbox_server, CHECKOUT, run)["status"] == "aborting"


@pytest.mark.parametrize("seed", SEEDS)
def test_abort_hangs_has_abort_that_ends_in_success(
    sandbox_server: SandboxServer, seed: int
) -> None:
    open_scenario(sandbox_server, "abort-hangs", seed)
    run = runs_in_flight(sandbox_server, CHECKOUT_STAGING)[-1]
    answer = sandbox_server.post(f"{CHECKOUT_STAGING}/runs/{run['id']}/abort")
    assert answer.json()["data"]["status"] == "aborting"
    sandbox_server.clock.now += 60
    assert detail(sandbox_server, CHECKOUT_STAGING, run)["status"] == "success"


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
@pytest.mark.parametrize("later", [60, 10 * MINUTE, 5 * HOUR])
def test_upstream_down_after_a_minute_answers_503(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "upstream-down", seed)
    run = runs_in_flight(sandbox_server, LEDGER)[-1]["id"]
    sandbox_server.clock.now = NOW + later
    assert sandbox_server.get("/projects").status_code == 503
    assert sandbox_server.get(f"{LEDGER}/runs/{run}").status_code == 503
    assert sandbox_server.post(f"{LEDGER}/runs/{run}/abort").status_code == 503


def test_own_faults_apply_in_addition_to_scenario(sandbox_server: SandboxServer) -> None:
    sandbox_server.clock.now = NOW
    sandbox_server.configure(Options(scenario="upstream-down", faults=[parse_fault("500*1@/auth")]))
    assert sandbox_server.get("/auth").status_code == 500
    assert sandbox_server.get("/auth").status_code == 200


# --- 100-pipelines ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "later"), zip(SEEDS, LATER, strict=True))
def test_hundred_pipelines_have_18_to_60_runs_in_flight(
    sandbox_server: SandboxServer, seed: int, later: int
) -> None:
    open_scenario(sandbox_server, "100-pipelines", seed, after=later)
    assert 18 <= sum(map(len, runs_in_flight_by_stage(sandbox_server).values())) <= 60


@pytest.mark.slow
def test_hundred_pipelines_are_in_ten_projects_with_mostly_flows(
    sandbox_server: SandboxServer,
) -> None:
    open_scenario(sandbox_server, "100-pipelines")
    projects = sandbox_server.get("/projects").json()["data"]["projects"]
    counts = [
        sandbox_server.get(f"/projects/{project['id']}/pipelines").json()["pagination"]["count"]
        for project in projects
    ]
    assert counts == [10] * 10
    assert 250 < len(list(all_stages(sandbox_server))) < 300


@pytest.mark.slow
def test_hundred_pipelines_have_short_run_history(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "100-pipelines")
    runs = [run for path in all_stages(sandbox_server) for run in list_runs(sandbox_server, path)]
    assert len(runs) < 8000
    assert min(at(run["createdAt"]) for run in runs) > NOW - 12 * HOUR
