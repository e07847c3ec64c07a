"""What each scenario promises, over real HTTP: when it opens and later, whatever the seed."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dashboard.sandbox import Choices, Options, parse_fault
from dashboard.sandbox.scenarios import SCENARIOS
from dashboard.sandbox.world import World
from tests.support.sandbox import NOW, Served
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
    served: Served, name: str, seed: int = 1, *, after: float = 0, history_hours: float = 24
) -> None:
    """Open a scenario with a short history, and go on to so many seconds later."""
    served.clock.now = NOW
    options = Options(scenario=name, seed=seed, rate_limit=100_000, history_hours=history_hours)
    served.configure(options)
    served.clock.now = NOW + after


def listed(served: Served, path: str, query: str = "") -> list[Json]:
    found: list[Json] = []
    cursor = ""
    while True:
        body = served.get(f"{path}/runs?per_page=100{query}{cursor}").json()
        found += body["data"]["runs"]
        if not body["pagination"]["hasNextPage"]:
            return found
        cursor = f"&cursor={body['pagination']['cursor']}"


def flights(served: Served, path: str) -> list[Json]:
    return listed(served, path, "&concluded=false")


def statuses(served: Served, path: str) -> list[str]:
    return [run["status"] for run in flights(served, path)]


def detail(served: Served, path: str, run: Json) -> Json:
    data: Json = served.get(f"{path}/runs/{run['id']}").json()["data"]
    return data


def nodes(run: Json) -> list[Json]:
    def below(node: Json) -> Iterator[Json]:
        yield node
        for child in node["spec"].get("steps", []):
            yield from below(child)

    return list(below(run["spec"]))


def node(run: Json, ref: str) -> Json:
    return next(node for node in nodes(run) if node.get("ref") == ref)


def elapsed(served: Served, run: Json, ref: str) -> float:
    """Tell for how long a step has been going on."""
    response = node(run, ref)["response"]
    assert "endTime" not in response
    return served.clock.now - float(response["startTime"])


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


SOME = 3
"""Projects that speak for all: no scenario but `100-pipelines` has more."""


def all_stages(served: Served, projects: int = 100) -> Iterator[str]:
    for project in served.get(f"/projects?per_page={projects}").json()["data"]["projects"]:
        path = f"/projects/{project['id']}/pipelines"
        for pipeline in served.get(f"{path}?per_page=100").json()["data"]["pipelines"]:
            for stage in ("development", "staging", "production"):
                found = flow(project["id"], pipeline["id"], stage)
                if served.get(found).status_code == 200:
                    yield found


def around(served: Served, projects: int = 100) -> dict[str, list[Json]]:
    return {path: flights(served, path) for path in all_stages(served, projects)}


# --- all of them -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_restart_soon_after_finds_the_same_runs(served: Served, name: str) -> None:
    open_scenario(served, name)
    served.clock.now += 20
    before = around(served, SOME)
    served.configure(Options(scenario=name, rate_limit=100_000))
    assert around(served, SOME) == before


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_restart_that_is_told_when_it_opened_finds_the_same_runs(
    served: Served, name: str
) -> None:
    open_scenario(served, name)
    served.clock.now += 2 * HOUR
    served.sandbox.faults = []
    before = around(served, SOME)
    served.configure(Options(scenario=name, rate_limit=100_000, opened=int(NOW)))
    assert around(served, SOME) == before


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_times_of_steps_are_in_order(served: Served, name: str) -> None:
    open_scenario(served, name)
    seen = 0
    for path in all_stages(served, SOME):
        for run in listed(served, path)[:4]:
            full = detail(served, path, run)
            for response in (n["response"] for n in nodes(full) if "response" in n):
                start = response.get("startTime", NOW)
                assert int(at(run["createdAt"])) <= start <= response.get("endTime", NOW) <= NOW
                seen += 1
    assert seen > 50


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_is_documented(name: str) -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(f"| `{name}` |") for line in lines)


# --- quiet-night -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_in_a_quiet_night_nothing_is_in_flight(served: Served, seed: int, later: int) -> None:
    open_scenario(served, "quiet-night", seed, after=later)
    assert not any(around(served).values())


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_quiet_night_every_run_has_succeeded_hours_ago(served: Served, seed: int) -> None:
    open_scenario(served, "quiet-night", seed)
    for path in all_stages(served):
        runs = listed(served, path)
        assert len(runs) > 20
        assert {run["status"] for run in runs} == {"success"}
        assert max(at(run["concludedAt"]) for run in runs) < NOW - 2 * HOUR


# --- stuck-production ------------------------------------------------------------------------


def stuck(served: Served) -> Json:
    return detail(served, CHECKOUT, flights(served, CHECKOUT)[-1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_production_is_stuck_on_its_migration_since_18_minutes_and_counting(
    served: Served, seed: int, later: int
) -> None:
    open_scenario(served, "stuck-production", seed, after=later)
    run = stuck(served)
    migrate = node(run, "migrate")
    assert (migrate["kind"], migrate["condition"]) == ("JobRun", "success")
    assert elapsed(served, run, "migrate") == pytest.approx(18 * MINUTE + later, abs=1)


@pytest.mark.parametrize("start", START_IN_SLOT)
def test_it_is_18_to_23_minutes_whenever_the_sandbox_starts(served: Served, start: int) -> None:
    served.clock.now = NOW + start
    served.configure(Options(scenario="stuck-production"))
    assert 18 * MINUTE <= elapsed(served, stuck(served), "migrate") <= 23 * MINUTE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", [*LATER, 31, 59.7])
def test_the_second_of_three_attempts_has_failed_and_the_third_is_just_ahead(
    served: Served, seed: int, later: float
) -> None:
    open_scenario(served, "stuck-production", seed, after=later)
    run = stuck(served)
    response = node(run, "migrate")["response"]
    retries = response["retries"]
    assert run["status"] == response["status"] == "retrying"
    assert (retries["attempts"], retries["maxAttempts"]) == (2, 3)
    assert response["error"] == {"code": 1, "message": "Job run failed with exit code 1"}
    assert retries["timestamp"] < served.clock.now < retries["nextAttempt"]
    assert retries["nextAttempt"] - served.clock.now <= MINUTE + 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_two_releases_are_queued_behind_it(served: Served, seed: int, later: int) -> None:
    open_scenario(served, "stuck-production", seed, after=later)
    assert statuses(served, CHECKOUT) == ["queued", "queued", "retrying"]
    assert served.get(CHECKOUT).json()["data"]["concurrencyPolicy"] == "queue"


@pytest.mark.parametrize("seed", SEEDS)
def test_its_runs_usually_take_6_to_9_minutes_and_the_step_2_to_4(
    served: Served, seed: int
) -> None:
    open_scenario(served, "stuck-production", seed)
    good = listed(served, CHECKOUT, "&status=success")[:20]
    assert len(good) == 20
    took, migrated = [], []
    for run in good:
        took.append(at(run["concludedAt"]) - at(run["startedAt"]))
        response = node(detail(served, CHECKOUT, run), "migrate")["response"]
        migrated.append(response["endTime"] - response["startTime"])
    assert 6 * MINUTE <= min(took) < median(took) < max(took) <= 9 * MINUTE
    assert 2 * MINUTE - 1 <= min(migrated) < median(migrated) < max(migrated) <= 4 * MINUTE + 1


def test_an_abort_frees_the_queue(served: Served) -> None:
    open_scenario(served, "stuck-production")
    served.post(f"{CHECKOUT}/runs/{stuck(served)['id']}/abort")
    served.clock.now += 10
    assert statuses(served, CHECKOUT) == ["queued", "running"]


@pytest.mark.parametrize("seed", SEEDS)
def test_elsewhere_nothing_is_stuck(served: Served, seed: int) -> None:
    open_scenario(served, "stuck-production", seed, after=10 * MINUTE)
    others = [run for path, runs in around(served).items() if "/shop/" not in path for run in runs]
    assert others
    assert all(served.clock.now - at(run["createdAt"]) < 20 * MINUTE for run in others)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_the_release_train_shows_every_kind_of_step_in_every_state(
    served: Served, seed: int, later: int
) -> None:
    open_scenario(served, "stuck-production", seed, after=later)
    [run] = flights(served, TRAIN)
    tree = nodes(detail(served, TRAIN, run))
    assert len(tree) >= 60
    assert {node["kind"] for node in tree} == {
        *("Workflow", "LoopWorkflow", "Build", "JobRun", "Release", "AddonBackup", "Condition"),
        *("Approval", "RunTemplate", "Action", "Message"),
    }
    assert {node.get("response", {}).get("status") for node in tree} == {
        *(None, "success", "skipped", "waiting", "retrying", "async_wait", "approval_wait"),
    }
    again = [n for n in tree if n.get("response", {}).get("retries", {}).get("attempts") == 2]
    assert [n["response"]["status"] for n in again] == ["success", "retrying"]
    assert "message" in again[1]["response"]["error"]


def test_the_train_is_nested_four_deep(served: Served) -> None:
    open_scenario(served, "stuck-production")
    [run] = flights(served, TRAIN)

    def depth(node: Json) -> int:
        return 1 + max(map(depth, node["spec"].get("steps", [])), default=0)

    full = detail(served, TRAIN, run)
    assert depth(full["spec"]) == 5
    assert len(node(full, "each-region")["spec"]["iterations"]) == 3


# --- queue-pileup ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("path", [CHECKOUT_STAGING, CHECKOUT])
def test_nine_runs_are_queued_behind_a_long_one_in_two_stages(
    served: Served, seed: int, later: int, path: str
) -> None:
    open_scenario(served, "queue-pileup", seed, after=later)
    *behind, front = flights(served, path)
    assert [run["status"] for run in behind] == ["queued"] * 9
    assert front["status"] in {"running", "waiting"}
    assert served.clock.now - at(front["startedAt"]) > 40 * MINUTE
    assert served.get(path).json()["data"]["concurrencyPolicy"] == "queue"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_a_long_run_keeps_others_out(served: Served, seed: int, later: int) -> None:
    open_scenario(served, "queue-pileup", seed, after=later)
    assert served.get(STOREFRONT).json()["data"]["concurrencyPolicy"] == "forbid"
    [run] = flights(served, STOREFRONT)
    assert served.clock.now - at(run["startedAt"]) > 35 * MINUTE
    assert served.post(f"{STOREFRONT}/runs").status_code == 409
    assert flights(served, STOREFRONT) == [run]
    since = [each for each in listed(served, STOREFRONT) if each["createdAt"] > run["createdAt"]]
    assert [(each["name"], each["status"], each["concluded"]) for each in since] == [
        ("Imprint", "skipped", True),
        ("Cookie banner", "skipped", True),
    ]
    assert all("startedAt" not in each for each in since)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_behind_a_long_run_only_the_newest_waits(served: Served, seed: int, later: int) -> None:
    open_scenario(served, "queue-pileup", seed, after=later)
    assert served.get(STOREFRONT_STAGING).json()["data"]["concurrencyPolicy"] == "latest"
    newest, front = flights(served, STOREFRONT_STAGING)
    assert newest["status"] == "queued"
    since = [
        each
        for each in listed(served, STOREFRONT_STAGING)
        if front["createdAt"] < each["createdAt"] < newest["createdAt"]
    ]
    assert [each["status"] for each in since] == ["skipped"] * 8
    came = [newest["createdAt"], *(each["createdAt"] for each in since)]
    assert [each["concludedAt"] for each in since] == came[:-1]  # as the next one came


def test_only_the_newest_waits_at_any_time_of_day() -> None:
    for opened in range(int(NOW), int(NOW) + 3 * HOUR, 20 * MINUTE):
        world = World(1, "queue-pileup", opened=opened)
        latest = world.flow("shop", "storefront", "staging")
        assert latest is not None
        now = opened + MINUTE
        in_flight = [run for run in world.runs(latest, now) if now < run.concluded]
        assert [world.status(run, now) for run in in_flight] == ["queued", "waiting"]
        waits, front = in_flight
        world.abort(latest, front.id, now)
        found = world.run(latest, waits.id, now + HOUR)
        assert found is not None
        assert found.started is not None
        assert found.started < now + MINUTE


# --- approval-wait ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", [0, 4 * MINUTE])
@pytest.mark.parametrize(("path", "since"), [(CHECKOUT, 5 * MINUTE), (SEARCH, 6 * HOUR)])
def test_runs_wait_for_approval(
    served: Served, seed: int, later: int, path: str, since: int
) -> None:
    open_scenario(served, "approval-wait", seed, after=later)
    run = flights(served, path)[-1]
    assert run["status"] == "approval_wait"
    waited = elapsed(served, detail(served, path, run), "sign-off")
    assert waited == pytest.approx(since + later, abs=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_approval_usually_takes_2_to_12_minutes(served: Served, seed: int) -> None:
    open_scenario(served, "approval-wait", seed)
    for run in listed(served, CHECKOUT, "&status=success")[:20]:
        response = node(detail(served, CHECKOUT, run), "sign-off")["response"]
        took = response["endTime"] - response["startTime"]
        assert 2 * MINUTE - 1 <= took <= 12 * MINUTE + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_usual_approval_comes_and_the_forgotten_one_does_not(served: Served, seed: int) -> None:
    open_scenario(served, "approval-wait", seed, after=HOUR)
    assert flights(served, CHECKOUT) == []
    assert flights(served, SEARCH)[-1]["status"] == "approval_wait"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_one_run_waits_for_an_answer(served: Served, seed: int, later: int) -> None:
    open_scenario(served, "approval-wait", seed, after=later)
    [run] = flights(served, CHECKOUT_STAGING)
    assert run["status"] == "async_wait"
    assert node(detail(served, CHECKOUT_STAGING, run), "smoke-tests")["kind"] == "RunTemplate"


# --- abort-hangs -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_a_colleagues_abort_has_gone_on_for_12_minutes(
    served: Served, seed: int, later: int
) -> None:
    open_scenario(served, "abort-hangs", seed, after=later)
    assert statuses(served, SEARCH) == ["queued", "aborting"]
    run = flights(served, SEARCH)[-1]
    assert served.clock.now - at(run["updatedAt"]) == pytest.approx(12 * MINUTE + later, abs=1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", LATER)
def test_an_abort_is_accepted_and_never_ends(served: Served, seed: int, later: int) -> None:
    open_scenario(served, "abort-hangs", seed, after=later, history_hours=48)
    run = flights(served, CHECKOUT)[-1]
    answer = served.post(f"{CHECKOUT}/runs/{run['id']}/abort")
    assert answer.status_code == 200
    assert answer.json()["data"]["status"] == "aborting"
    served.clock.now += 24 * HOUR
    assert detail(served, CHECKOUT, run)["status"] == "aborting"


@pytest.mark.parametrize("seed", SEEDS)
def test_one_abort_ends_in_success_all_the_same(served: Served, seed: int) -> None:
    open_scenario(served, "abort-hangs", seed)
    run = flights(served, CHECKOUT_STAGING)[-1]
    answer = served.post(f"{CHECKOUT_STAGING}/runs/{run['id']}/abort")
    assert answer.json()["data"]["status"] == "aborting"
    served.clock.now += 60
    assert detail(served, CHECKOUT_STAGING, run)["status"] == "success"


def test_a_choice_of_ones_own_wins_over_that_of_the_scenario(served: Served) -> None:
    served.clock.now = NOW
    choices = Choices({"abort-seconds": "3"})
    served.configure(Options(scenario="abort-hangs", choices=choices))
    run = flights(served, CHECKOUT)[-1]
    served.post(f"{CHECKOUT}/runs/{run['id']}/abort")
    served.clock.now += 3
    assert detail(served, CHECKOUT, run)["status"] == "aborted"


# --- upstream-down ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("start", START_IN_SLOT)
def test_the_upstream_can_be_read_for_a_minute(served: Served, seed: int, start: int) -> None:
    served.clock.now = NOW + start
    served.configure(Options(scenario="upstream-down", seed=seed))
    served.clock.now += 59
    assert any(run for run in flights(served, LEDGER))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", [60, 10 * MINUTE, 5 * HOUR])
def test_then_every_route_answers_503(served: Served, seed: int, later: int) -> None:
    open_scenario(served, "upstream-down", seed)
    run = flights(served, LEDGER)[-1]["id"]
    served.clock.now = NOW + later
    assert served.get("/projects").status_code == 503
    assert served.get(f"{LEDGER}/runs/{run}").status_code == 503
    assert served.post(f"{LEDGER}/runs/{run}/abort").status_code == 503


def test_faults_of_ones_own_come_on_top(served: Served) -> None:
    served.clock.now = NOW
    served.configure(Options(scenario="upstream-down", faults=[parse_fault("500*1@/auth")]))
    assert served.get("/auth").status_code == 500
    assert served.get("/auth").status_code == 200


# --- 100-pipelines ---------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "later"), zip(SEEDS, LATER, strict=True))
def test_a_hundred_pipelines_have_a_few_dozen_runs_in_flight(
    served: Served, seed: int, later: int
) -> None:
    open_scenario(served, "100-pipelines", seed, after=later)
    assert 18 <= sum(map(len, around(served).values())) <= 60


def test_a_hundred_pipelines_are_in_ten_projects_and_most_stages_have_a_flow(
    served: Served,
) -> None:
    open_scenario(served, "100-pipelines")
    projects = served.get("/projects").json()["data"]["projects"]
    each = [
        served.get(f"/projects/{project['id']}/pipelines").json()["pagination"]["count"]
        for project in projects
    ]
    assert each == [10] * 10
    assert 250 < len(list(all_stages(served))) < 300


def test_the_histories_of_a_hundred_pipelines_are_short(served: Served) -> None:
    open_scenario(served, "100-pipelines")
    runs = [run for path in all_stages(served) for run in listed(served, path)]
    assert len(runs) < 8000
    assert min(at(run["createdAt"]) for run in runs) > NOW - 12 * HOUR
