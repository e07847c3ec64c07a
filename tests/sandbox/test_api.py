"""What goes over the wire, without a client in between."""

import re

import pytest

from dashboard.sandbox import Choices, Options
from tests.support.sandbox import NOW, Served
from tests.support.sandbox_paths import BILLING, FORBIDS, LEDGER, NO_FLOW, flow

RUN_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z")


def stuck(served: Served) -> str:
    """Return the path of a run that is stuck."""
    runs = served.get(f"{LEDGER}/runs?concluded=false").json()["data"]["runs"]
    return f"{LEDGER}/runs/{runs[-1]['id']}"


# --- every route -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/auth", "/login", "/teams", "/projects", "/projects/payments"),
        *("/projects/payments/pipelines", "/projects/payments/pipelines/ledger"),
        *(LEDGER, f"{LEDGER}/runs"),
        *("/teams/acme/projects", "/teams/acme/projects/payments"),
        *(f"/teams/acme{LEDGER}", f"/teams/acme{LEDGER}/runs"),
    ],
)
def test_a_route_answers_200_with_data(served: Served, path: str) -> None:
    answer = served.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert "data" in answer.json()


def test_health_needs_no_token_and_costs_nothing(served: Served) -> None:
    answer = served.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-remaining"] == "1000"


@pytest.mark.parametrize("header", ["", "sandbox", "Bearer", "Bearer wrong", "Basic sandbox"])
def test_without_the_token_comes_401(served: Served, header: str) -> None:
    answer = served.get("/projects", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "Unauthorized"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/projects/", 404),
        ("DELETE", "/projects", 405),
        ("GET", f"{LEDGER}/runs/x/abort", 405),
        ("GET", "/projects/nope", 404),
        ("GET", "/projects/payments/pipelines/nope", 404),
        ("GET", flow("payments", "ledger", "preview"), 404),
        ("GET", f"{LEDGER}/runs/nope", 404),
        ("POST", f"{LEDGER}/runs/nope/abort", 404),
        ("POST", f"{NO_FLOW}/runs", 404),
        ("GET", NO_FLOW, 404),
        ("GET", "/teams/foreign/projects/payments", 403),
    ],
)
def test_every_error_has_the_same_form(served: Served, method: str, path: str, status: int) -> None:
    answer = served.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["status"] == status
    assert error["message"]
    assert error["id"]
    assert answer.headers["x-ratelimit-limit"] == "1000"


def test_path_values_are_percent_decoded(served: Served) -> None:
    assert served.get("/projects/p%61yments").json()["data"]["id"] == "payments"


def test_an_encoded_slash_does_not_separate(served: Served) -> None:
    answer = served.get("/projects/payments%2Fpipelines")
    assert answer.json()["error"]["message"] == "Project not found"


@pytest.mark.parametrize("stage", ["production", "Production", "PRODUCTION"])
def test_the_stage_may_be_spelled_in_any_way(served: Served, stage: str) -> None:
    assert served.get(flow("payments", "ledger", stage)).json()["data"]["stage"] == "Production"


def test_a_pipeline_comes_without_its_id(served: Served) -> None:
    data = served.get("/projects/payments/pipelines/ledger").json()["data"]
    assert set(data) == {"name", "description", "nfObjects"}


# --- lists -----------------------------------------------------------------------------------


def test_a_list_holds_one_array_and_pagination(served: Served) -> None:
    body = served.get(f"{BILLING}/runs").json()
    assert set(body) == {"data", "pagination"}
    assert list(body["data"]) == ["runs"]
    assert body["pagination"]["count"] == len(body["data"]["runs"]) == 50
    assert body["pagination"]["hasNextPage"] is True
    assert re.fullmatch(r"[A-Za-z0-9_-]+", body["pagination"]["cursor"])


def test_the_last_page_has_no_cursor(served: Served) -> None:
    assert served.get("/projects").json()["pagination"] == {"hasNextPage": False, "count": 6}


def test_cursor_and_page_number_lead_to_the_same_page(served: Served) -> None:
    cursor = served.get(f"{BILLING}/runs?per_page=20").json()["pagination"]["cursor"]
    by_cursor = served.get(f"{BILLING}/runs?per_page=20&cursor={cursor}").json()
    assert by_cursor == served.get(f"{BILLING}/runs?per_page=20&page=2").json()


def test_a_cursor_survives_new_runs(served: Served) -> None:
    first = served.get(f"{BILLING}/runs?per_page=20").json()
    path = f"{BILLING}/runs?per_page=20&cursor={first['pagination']['cursor']}"
    before = [run["id"] for run in served.get(path).json()["data"]["runs"]]
    served.post(f"{BILLING}/runs")
    served.clock.now += 600
    assert [run["id"] for run in served.get(path).json()["data"]["runs"]] == before


def test_a_page_beyond_the_end_is_empty(served: Served) -> None:
    body = served.get(f"{BILLING}/runs?page=999").json()
    assert body == {"data": {"runs": []}, "pagination": {"hasNextPage": False, "count": 0}}


@pytest.mark.parametrize(
    "query",
    [
        *("per_page=0", "per_page=-1", "per_page=x", "page=0", "page=", "page=1e3"),
        *(f"page={'9' * 5000}", "cursor=nope", "status=nope", "concluded=yes"),
    ],
)
def test_a_senseless_query_is_refused_with_details(served: Served, query: str) -> None:
    answer = served.get(f"{BILLING}/runs?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]["details"]


def test_times_of_runs_have_a_space_and_times_of_projects_a_t(served: Served) -> None:
    run = served.get(f"{BILLING}/runs?status=success").json()["data"]["runs"][0]
    assert all(
        RUN_TIME.fullmatch(run[key])
        for key in ("createdAt", "startedAt", "updatedAt", "concludedAt")
    )
    assert served.get("/projects/shop").json()["data"]["createdAt"] == "2025-01-01T00:00:00.000Z"


def test_a_run_has_more_in_full_than_in_a_list(served: Served) -> None:
    listed = served.get(f"{BILLING}/runs?per_page=1").json()["data"]["runs"][0]
    full = served.get(f"{BILLING}/runs/{listed['id']}").json()["data"]
    assert listed.items() <= full.items()
    assert full["apiVersion"] == "v1.2"
    assert full["spec"]["kind"] == "Workflow"
    assert "spec" not in listed


# --- the rate limit --------------------------------------------------------------------------


def limits(served: Served) -> tuple[str, str, str]:
    headers = served.get("/projects").headers
    return tuple(headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset"))  # type: ignore[return-value]


def test_the_first_request_opens_the_window(served: Served) -> None:
    assert limits(served) == ("1000", "999", "3600")
    served.clock.now += 1000.5
    assert limits(served) == ("1000", "998", "2600")
    served.clock.now += 2599.5
    assert limits(served) == ("1000", "999", "3600")


def test_past_the_limit_everything_is_refused_until_the_reset(served: Served) -> None:
    served.configure(Options(rate_limit=1))
    served.get("/projects")
    answer = served.post(f"{LEDGER}/runs/x/abort")
    assert answer.status_code == 429
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert "retry-after" not in answer.headers
    served.clock.now = NOW + 3600
    assert served.get("/projects").status_code == 200


# --- starting and aborting -------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        *('{"name": "Hi"}', '{"name": "1st"}', '{"name": "a--b"}', '{"name": "ends "}'),
        *('{"name": 5}', '{"description": "a < b"}', '{"description": 1}'),
        *('{"arguments": []}', "[]", "{", '{"name": "' + "a" * 40 + '"}'),
    ],
)
def test_a_start_that_breaks_the_rules_is_refused(served: Served, body: str) -> None:
    assert served.post(f"{BILLING}/runs", content=body).status_code == 400


@pytest.mark.parametrize("body", [b"", b"{}", b'{"name": "Fix 2-b now", "description": "Why?"}'])
def test_a_start_answers_with_the_run(served: Served, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    run = served.post(f"{BILLING}/runs", content=body, headers=headers).json()["data"]
    assert run["concluded"] is False
    assert served.get(f"{BILLING}/runs/{run['id']}").json()["data"] == run


def test_arguments_of_a_start_are_shown_by_its_run(served: Served) -> None:
    run = served.post(f"{BILLING}/runs", json={"arguments": {"REGION": "x"}}).json()["data"]
    assert run["arguments"]["REGION"] == "x"


def test_arguments_may_hold_what_utf8_cannot(served: Served) -> None:
    body = b'{"arguments": {"HALF": "\\ud83d"}}'
    assert served.post(f"{BILLING}/runs", content=body).json()["data"]["arguments"]["HALF"] == "?"


def test_an_abort_takes_an_empty_body_with_a_json_type(served: Served) -> None:
    answer = served.post(f"{stuck(served)}/abort", headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["data"]["status"] == "aborting"
    assert answer.json()["data"]["concluded"] is False
    assert "spec" in answer.json()["data"]


def test_an_abort_is_safe_to_repeat_and_every_post_is_counted(served: Served) -> None:
    run = stuck(served)
    first = served.post(f"{run}/abort").json()
    served.clock.now += 1
    assert served.post(f"{run}/abort").json() == first
    assert served.sandbox.abort_posts == {run.rpartition("/")[2]: 2}


def test_seconds_of_an_abort_are_two_to_six(served: Served) -> None:
    run = stuck(served)
    served.post(f"{run}/abort")
    served.clock.now += 1.9
    assert served.get(run).json()["data"]["status"] == "aborting"
    served.clock.now += 4.2
    assert served.get(run).json()["data"]["status"] == "aborted"


# --- choices ---------------------------------------------------------------------------------


def choose(served: Served, **chosen: str) -> None:
    names = {name.strip("_").replace("_", "-"): value for name, value in chosen.items()}
    served.configure(Options(choices=Choices(names)))


def created(served: Served) -> list[str]:
    runs = served.get(f"{BILLING}/runs?per_page=100").json()["data"]["runs"]
    return [run["createdAt"] for run in runs]


def test_runs_come_newest_first_by_default(served: Served) -> None:
    assert created(served) == sorted(created(served), reverse=True)


def test_runs_can_come_oldest_first(served: Served) -> None:
    choose(served, run_order="oldest-first")
    assert created(served) == sorted(created(served))


def test_runs_can_come_shuffled(served: Served) -> None:
    choose(served, run_order="shuffled")
    assert created(served) not in (sorted(created(served)), sorted(created(served))[::-1])


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("T", r"[\d-]+T[\d:]+\.\d{3}Z"), ("no-fraction", r"[\d-]+ [\d:]+Z")],
)
def test_times_can_be_written_otherwise(served: Served, form: str, pattern: str) -> None:
    choose(served, timestamps=form)
    assert all(re.fullmatch(pattern, time) for time in created(served))


def test_an_abort_can_answer_with_the_run_as_it_was(served: Served) -> None:
    choose(served, abort_answer="unchanged")
    run = stuck(served)
    before = served.get(run).json()
    assert served.post(f"{run}/abort").json() == before
    assert served.get(run).json()["data"]["status"] == "aborting"


def test_an_abort_can_take_effect_at_once(served: Served) -> None:
    choose(served, abort_answer="aborted")
    data = served.post(f"{stuck(served)}/abort").json()["data"]
    assert (data["status"], data["concluded"]) == ("aborted", True)


@pytest.mark.parametrize("status", ["200", "400", "404", "409"])
def test_aborting_a_concluded_run_answers_as_chosen(served: Served, status: str) -> None:
    choose(served, abort_concluded=status)
    run = served.get(f"{BILLING}/runs?status=success").json()["data"]["runs"][0]
    answer = served.post(f"{BILLING}/runs/{run['id']}/abort")
    assert answer.status_code == int(status)
    assert served.get(f"{BILLING}/runs/{run['id']}").json()["data"]["status"] == "success"


def test_seconds_of_an_abort_can_be_chosen(served: Served) -> None:
    choose(served, abort_seconds="0.5")
    run = stuck(served)
    served.post(f"{run}/abort")
    served.clock.now += 0.5
    assert served.get(run).json()["data"]["status"] == "aborted"


def test_choices_can_be_changed_while_it_runs(served: Served) -> None:
    served.sandbox.choices["abort-seconds"] = "0-0.1"
    run = stuck(served)
    served.post(f"{run}/abort")
    served.clock.now += 0.1
    assert served.get(run).json()["data"]["status"] == "aborted"


def test_a_stage_without_a_flow_can_have_an_empty_list(served: Served) -> None:
    assert served.get(f"{NO_FLOW}/runs").status_code == 404
    choose(served, stage_without_flow="empty-list")
    assert served.get(f"{NO_FLOW}/runs").json()["data"] == {"runs": []}


@pytest.mark.parametrize(
    ("spelling", "right", "wrong"),
    [("lower", "production", "Production"), ("capitalised", "Production", "production")],
)
def test_one_spelling_of_stages_can_be_required(
    served: Served, spelling: str, right: str, wrong: str
) -> None:
    choose(served, stage_spelling=spelling)
    assert served.get(flow("payments", "ledger", right)).status_code == 200
    assert served.get(flow("payments", "ledger", wrong)).status_code == 404


@pytest.mark.parametrize("status", ["409", "200"])
def test_a_forbidden_start_answers_as_chosen(served: Served, status: str) -> None:
    choose(served, forbid_start=status)
    served.post(f"{FORBIDS}/runs")  # now at least one run is in flight
    answer = served.post(f"{FORBIDS}/runs")
    assert answer.status_code == int(status)
    if status == "200":
        assert answer.json() == {"data": {}}


def test_a_start_can_answer_without_the_run(served: Served) -> None:
    choose(served, start_answer="empty")
    before = served.get(f"{BILLING}/runs").json()["data"]["runs"][0]
    assert served.post(f"{BILLING}/runs").json() == {"data": {}}
    assert served.get(f"{BILLING}/runs").json()["data"]["runs"][0] != before


def too_many(served: Served, **chosen: str) -> tuple[str, str | None]:
    choose(served, **chosen)
    served.sandbox.window.limit = 1
    served.get("/projects")
    answer = served.get("/projects")
    assert answer.status_code == 429
    return answer.text, answer.headers.get("retry-after")


def test_a_429_can_say_when_to_retry(served: Served) -> None:
    assert too_many(served, retry_after="present")[1] == "3600"


def test_a_429_can_have_other_bodies(served: Served) -> None:
    assert too_many(served, _429_body="text")[0] == "Rate limit exceeded"
    assert too_many(served, _429_body="no-wrapper")[0] == '{"message":"Rate limit exceeded"}'


def test_rate_limit_headers_can_be_missing(served: Served) -> None:
    choose(served, rate_limit_headers="absent")
    headers = served.get("/projects").headers
    assert not any(name.startswith("x-ratelimit") for name in headers)


def test_more_than_a_hundred_a_page_is_clamped_or_refused(served: Served) -> None:
    assert served.get(f"{BILLING}/runs?per_page=500").json()["pagination"]["count"] == 100
    choose(served, per_page_over_100="400")
    assert served.get(f"{BILLING}/runs?per_page=101").status_code == 400
    assert served.get(f"{BILLING}/runs?per_page=100").status_code == 200


@pytest.mark.parametrize(("chosen", "cursor"), [("null", None), ("empty", "")])
def test_the_last_page_can_have_a_cursor(served: Served, chosen: str, cursor: object) -> None:
    choose(served, last_cursor=chosen)
    pagination = served.get("/projects").json()["pagination"]
    assert pagination == {"hasNextPage": False, "count": 6, "cursor": cursor}


def test_a_foreign_team_can_be_hidden(served: Served) -> None:
    choose(served, no_access="404")
    assert served.get("/teams/foreign/projects/shop").status_code == 404


@pytest.mark.parametrize(("chosen", "remaining"), [("count", "998"), ("free", "999")])
def test_refused_requests_count_as_chosen(served: Served, chosen: str, remaining: str) -> None:
    choose(served, refused_requests=chosen)
    assert served.get("/projects/nope").status_code == 404
    assert served.get("/projects").headers["x-ratelimit-remaining"] == remaining
