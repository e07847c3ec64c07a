"""The sandbox's HTTP requests and responses, without a client library."""

import re

import pytest

from dashboard.sandbox import Options
from tests.support.sandbox import NOW, SandboxServer
from tests.support.sandbox_paths import BILLING, LEDGER, NO_FLOW, flow

RUN_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z")


def stuck_run_path(sandbox_server: SandboxServer) -> str:
    """Return the path of a run that is stuck."""
    runs = sandbox_server.get(f"{LEDGER}/runs?concluded=false").json()["data"]["runs"]
    return f"{LEDGER}/runs/{runs[-1]['id']}"


# --- every route -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/auth", "/login", "/teams", "/projects", "/projects/payments"),
        *("/projects/payments/pipelines", "/projects/payments/pipelines/ledger"),
        *(LEDGER, f"{LEDGER}/runs"),
        *("/teams/acme/projects", "/teams/acme/projects/payments"),
        *(f"/teams/acme{LEDGER}", f"/teams/acme{LEDGER}/runs"),
    ],
)
def test_route_answers_200_with_data(sandbox_server: SandboxServer, path: str) -> None:
    answer = sandbox_server.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert "data" in answer.json()


@pytest.mark.parametrize("header", ["", "sandbox", "Bearer", "Bearer wrong", "Basic sandbox"])
def test_request_without_valid_token_is_401(sandbox_server: SandboxServer, header: str) -> None:
    answer = sandbox_server.get("/projects", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "Unauthorized"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/projects/", 404),
        ("DELETE", "/projects", 404),
        ("GET", f"{LEDGER}/runs/x/abort", 404),
        ("GET", "/projects/nope", 404),
        ("GET", "/projects/payments/pipelines/nope", 404),
        ("GET", flow("payments", "ledger", "preview"), 404),
        ("GET", f"{LEDGER}/runs/nope", 404),
        ("POST", f"{LEDGER}/runs/nope/abort", 404),
        ("POST", f"{NO_FLOW}/runs", 404),
        ("GET", NO_FLOW, 404),
        ("GET", "/teams/foreign/projects", 403),
        ("GET", "/teams/foreign/projects/payments", 403),
    ],
)
def test_error_has_status_message_and_id(
    sandbox_server: SandboxServer, method: str, path: str, status: int
) -> None:
    answer = sandbox_server.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["status"] == status
    assert error["message"]
    assert error["id"]
    assert answer.headers["x-ratelimit-limit"] == "1000"


def test_path_values_are_percent_decoded(sandbox_server: SandboxServer) -> None:
    assert sandbox_server.get("/projects/p%61yments").json()["data"]["id"] == "payments"


@pytest.mark.parametrize("stage", ["production", "Production", "PRODUCTION"])
def test_stage_in_path_is_case_insensitive(sandbox_server: SandboxServer, stage: str) -> None:
    assert (
        sandbox_server.get(flow("payments", "ledger", stage)).json()["data"]["stage"]
        == "Production"
    )


# --- lists -----------------------------------------------------------------------------------


def test_list_has_one_array_and_pagination(sandbox_server: SandboxServer) -> None:
    body = sandbox_server.get(f"{BILLING}/runs").json()
    assert set(body) == {"data", "pagination"}
    assert list(body["data"]) == ["runs"]
    assert body["pagination"]["count"] == len(body["data"]["runs"]) == 50
    assert body["pagination"]["hasNextPage"] is True
    assert re.fullmatch(r"[A-Za-z0-9_-]+", body["pagination"]["cursor"])


def test_cursor_and_page_number_give_the_same_page(sandbox_server: SandboxServer) -> None:
    cursor = sandbox_server.get(f"{BILLING}/runs?per_page=20").json()["pagination"]["cursor"]
    by_cursor = sandbox_server.get(f"{BILLING}/runs?per_page=20&cursor={cursor}").json()
    assert by_cursor == sandbox_server.get(f"{BILLING}/runs?per_page=20&page=2").json()


def test_cursor_stays_valid_after_new_runs(sandbox_server: SandboxServer) -> None:
    first = sandbox_server.get(f"{BILLING}/runs?per_page=20").json()
    path = f"{BILLING}/runs?per_page=20&cursor={first['pagination']['cursor']}"
    before = [run["id"] for run in sandbox_server.get(path).json()["data"]["runs"]]
    sandbox_server.post(f"{BILLING}/runs")
    sandbox_server.clock.now += 600
    assert [run["id"] for run in sandbox_server.get(path).json()["data"]["runs"]] == before


def test_page_has_at_most_100_entries(sandbox_server: SandboxServer) -> None:
    assert sandbox_server.get(f"{BILLING}/runs?per_page=500").json()["pagination"]["count"] == 100


@pytest.mark.parametrize(
    "query",
    [
        *("per_page=0", "per_page=-1", "per_page=x", "page=0", "page=", "page=1e3"),
        *(f"page={'9' * 5000}", "cursor=nope", "status=nope", "concluded=yes"),
    ],
)
def test_invalid_query_is_400_with_details(sandbox_server: SandboxServer, query: str) -> None:
    answer = sandbox_server.get(f"{BILLING}/runs?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]["details"]


def test_run_times_have_a_space_and_project_times_a_t(sandbox_server: SandboxServer) -> None:
    run = sandbox_server.get(f"{BILLING}/runs?status=success").json()["data"]["runs"][0]
    assert all(
        RUN_TIME.fullmatch(run[key])
        for key in ("createdAt", "startedAt", "updatedAt", "concludedAt")
    )
    assert (
        sandbox_server.get("/projects/shop").json()["data"]["createdAt"]
        == "2025-01-01T00:00:00.000Z"
    )


def test_run_detail_has_more_fields_than_listed_run(sandbox_server: SandboxServer) -> None:
    listed = sandbox_server.get(f"{BILLING}/runs?per_page=1").json()["data"]["runs"][0]
    full = sandbox_server.get(f"{BILLING}/runs/{listed['id']}").json()["data"]
    assert listed.items() <= full.items()
    assert full["apiVersion"] == "v1.2"
    assert full["spec"]["kind"] == "Workflow"
    assert "spec" not in listed


# --- the rate limit --------------------------------------------------------------------------


def test_requests_above_rate_limit_are_429_until_reset(sandbox_server: SandboxServer) -> None:
    sandbox_server.configure(Options(rate_limit=1))
    sandbox_server.get("/projects")
    answer = sandbox_server.post(f"{LEDGER}/runs/x/abort")
    assert answer.status_code == 429
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert "retry-after" not in answer.headers
    sandbox_server.clock.now = NOW + 3600
    assert sandbox_server.get("/projects").status_code == 200


# --- starting and aborting -------------------------------------------------------------------


def test_start_with_invalid_body_is_400(sandbox_server: SandboxServer) -> None:
    assert sandbox_server.post(f"{BILLING}/runs", content="{").status_code == 400


@pytest.mark.parametrize("body", [b"", b"{}", b'{"name": "Fix 2-b now", "description": "Why?"}'])
def test_start_answers_with_the_run(sandbox_server: SandboxServer, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    run = sandbox_server.post(f"{BILLING}/runs", content=body, headers=headers).json()["data"]
    assert run["concluded"] is False
    assert sandbox_server.get(f"{BILLING}/runs/{run['id']}").json()["data"] == run


def test_start_arguments_are_in_its_run(sandbox_server: SandboxServer) -> None:
    run = sandbox_server.post(f"{BILLING}/runs", json={"arguments": {"REGION": "x"}}).json()["data"]
    assert run["arguments"]["REGION"] == "x"


def test_abort_with_empty_json_body_is_accepted(sandbox_server: SandboxServer) -> None:
    answer = sandbox_server.post(
        f"{stuck_run_path(sandbox_server)}/abort", headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200
    assert answer.json()["data"]["status"] == "aborting"
    assert answer.json()["data"]["concluded"] is False
    assert "spec" in answer.json()["data"]


def test_repeated_abort_gives_same_answer_and_is_counted(sandbox_server: SandboxServer) -> None:
    run = stuck_run_path(sandbox_server)
    first = sandbox_server.post(f"{run}/abort").json()
    sandbox_server.clock.now += 1
    assert sandbox_server.post(f"{run}/abort").json() == first
    assert sandbox_server.sandbox.abort_request_counts == {run.rpartition("/")[2]: 2}


# --- choices ---------------------------------------------------------------------------------


def choose(sandbox_server: SandboxServer, **choices: str) -> None:
    names = {name.strip("_").replace("_", "-"): value for name, value in choices.items()}
    sandbox_server.configure(Options(scenario="everyday", choices=names))


def creation_times(sandbox_server: SandboxServer) -> list[str]:
    runs = sandbox_server.get(f"{BILLING}/runs?per_page=100").json()["data"]["runs"]
    return [run["createdAt"] for run in runs]


def test_run_order_choice_oldest_first_is_applied(sandbox_server: SandboxServer) -> None:
    choose(sandbox_server, run_order="oldest-first")
    assert creation_times(sandbox_server) == sorted(creation_times(sandbox_server))


def test_run_order_choice_shuffled_is_applied(sandbox_server: SandboxServer) -> None:
    choose(sandbox_server, run_order="shuffled")
    assert creation_times(sandbox_server) not in (
        sorted(creation_times(sandbox_server)),
        sorted(creation_times(sandbox_server))[::-1],
    )


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("T", r"[\d-]+T[\d:]+\.\d{3}Z"), ("no-fraction", r"[\d-]+ [\d:]+Z")],
)
def test_timestamps_choice_is_applied(
    sandbox_server: SandboxServer, form: str, pattern: str
) -> None:
    choose(sandbox_server, timestamps=form)
    assert all(re.fullmatch(pattern, time) for time in creation_times(sandbox_server))


def test_abort_answer_choice_aborted_takes_effect_at_once(sandbox_server: SandboxServer) -> None:
    choose(sandbox_server, abort_answer="aborted")
    data = sandbox_server.post(f"{stuck_run_path(sandbox_server)}/abort").json()["data"]
    assert (data["status"], data["concluded"]) == ("aborted", True)


@pytest.mark.parametrize("status", ["200", "400", "404", "409"])
def test_abort_concluded_choice_sets_status_code(
    sandbox_server: SandboxServer, status: str
) -> None:
    choose(sandbox_server, abort_concluded=status)
    run = sandbox_server.get(f"{BILLING}/runs?status=success").json()["data"]["runs"][0]
    answer = sandbox_server.post(f"{BILLING}/runs/{run['id']}/abort")
    assert answer.status_code == int(status)
    assert sandbox_server.get(f"{BILLING}/runs/{run['id']}").json()["data"]["status"] == "success"


def test_abort_seconds_choice_is_applied(sandbox_server: SandboxServer) -> None:
    choose(sandbox_server, abort_seconds="0.5")
    run = stuck_run_path(sandbox_server)
    sandbox_server.post(f"{run}/abort")
    sandbox_server.clock.now += 0.5
    assert sandbox_server.get(run).json()["data"]["status"] == "aborted"


@pytest.mark.parametrize(
    ("spelling", "right", "wrong"),
    [("lower", "production", "Production"), ("capitalised", "Production", "production")],
)
def test_stage_spelling_choice_requires_one_spelling(
    sandbox_server: SandboxServer, spelling: str, right: str, wrong: str
) -> None:
    choose(sandbox_server, stage_spelling=spelling)
    assert sandbox_server.get(flow("payments", "ledger", right)).status_code == 200
    assert sandbox_server.get(flow("payments", "ledger", wrong)).status_code == 404
