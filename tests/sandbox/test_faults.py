"""Faults: each of them over the wire, and the language to ask for them."""

import time
from typing import Any

import httpx
import pytest

from dashboard.sandbox import Choices, Fault, Options, parse_fault
from dashboard.sandbox.faults import KINDS
from tests.support.sandbox import Served
from tests.support.sandbox_paths import BILLING, LEDGER


@pytest.fixture
def fail(served: Served) -> Any:
    def fail(*texts: str) -> None:
        served.sandbox.faults = [parse_fault(text) for text in texts]

    return fail


def stuck(served: Served) -> str:
    runs = served.get(f"{LEDGER}/runs?concluded=false").json()["data"]["runs"]
    return f"{LEDGER}/runs/{runs[-1]['id']}"


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("500", 500, "Internal server error"),
        ("503", 503, "Unavailable"),
        ("404", 404, "Not found"),
        ("bad-token", 401, "Unauthorized"),
        ("feature-401", 401, "Feature flag release-flows is not enabled for this account"),
        ("rate-limited", 429, "Rate limit exceeded"),
        ("too-fast", 429, "Rate limit exceeded"),
    ],
)
def test_an_error_is_answered(
    served: Served, fail: Any, fault: str, status: int, message: str
) -> None:
    fail(fault)
    answer = served.get("/projects")
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == message
    assert "x-ratelimit-remaining" in answer.headers


def test_rate_limited_leaves_no_request(served: Served, fail: Any) -> None:
    fail("rate-limited*1")
    assert served.get("/projects").headers["x-ratelimit-remaining"] == "0"
    assert served.get("/projects").status_code == 429


def test_too_fast_leaves_the_hours_requests(served: Served, fail: Any) -> None:
    fail("too-fast:7*1")
    refused = served.get("/projects")
    assert refused.headers["retry-after"] == "7"
    assert int(refused.headers["x-ratelimit-remaining"]) > 900
    assert served.get("/projects").status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [("502-html", 502, "Bad Gateway"), ("404-html", 404, "Not Found")],
)
def test_an_error_can_be_a_page(
    served: Served, fail: Any, fault: str, status: int, title: str
) -> None:
    fail(fault)
    answer = served.get("/projects")
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert title in answer.text


def test_errors_can_come_in_other_bodies(served: Served, fail: Any) -> None:
    fail("error-without-wrapper:409")
    answer = served.get("/projects")
    assert answer.status_code == 409
    assert answer.json() == {"code": "error", "message": "It broke", "status": 409}
    fail("error-string")
    assert served.get("/projects").json() == {"error": "It broke"}


@pytest.mark.parametrize("status", ["403", "404"])
def test_one_project_can_be_forbidden(served: Served, status: str) -> None:
    served.configure(Options(choices=Choices({"no-access": status})))
    served.sandbox.faults = [parse_fault("forbidden:payments")]
    assert served.get("/projects/payments").status_code == int(status)
    assert served.get(f"/teams/acme{BILLING}/runs").status_code == int(status)
    assert served.get("/projects/shop").status_code == 200


def test_a_fault_before_the_request_keeps_it_from_having_an_effect(
    served: Served, fail: Any
) -> None:
    run = stuck(served)
    fail("500@/abort")
    assert served.post(f"{run}/abort").status_code == 500
    assert served.get(run).json()["data"]["status"] != "aborting"


# --- payloads --------------------------------------------------------------------------------


def test_fields_can_be_missing(served: Served, fail: Any) -> None:
    fail("missing-fields")
    for run in served.get(f"{BILLING}/runs").json()["data"]["runs"]:
        assert "startedAt" not in run
        assert "id" in run
    fail("missing-fields:runs")
    assert served.get(f"{BILLING}/runs").json()["data"] == {}


@pytest.mark.parametrize(("value", "data"), [("", None), (":[7]", [7]), (':{"a":1}', {"a": 1})])
def test_the_data_can_be_anything(served: Served, fail: Any, value: str, data: Any) -> None:
    fail(f"data{value}")
    assert served.get("/projects").json()["data"] == data


def test_entries_of_a_list_can_be_unreadable(served: Served, fail: Any) -> None:
    before = served.get("/projects").json()["data"]["projects"]
    fail("unreadable:2")
    assert served.get("/projects").json()["data"]["projects"] == [None, None, *before[2:]]


def test_a_list_can_be_longer_than_was_asked_for(served: Served, fail: Any) -> None:
    before = served.get(f"{BILLING}/runs?per_page=10").json()["data"]["runs"]
    fail("surplus:5")
    longer = served.get(f"{BILLING}/runs?per_page=10").json()["data"]["runs"]
    assert longer == before + before[-1:] * 95


def test_an_entry_can_be_hidden_from_its_list(served: Served, fail: Any) -> None:
    before = served.get("/projects").json()["data"]["projects"]
    fail("hidden:payments")
    left = served.get("/projects").json()["data"]["projects"]
    assert left == [each for each in before if each["id"] != "payments"]
    assert len(left) < len(before)


def test_faults_of_lists_leave_other_answers_alone(served: Served, fail: Any) -> None:
    run = stuck(served)
    before = served.get(run).json()
    fail("surplus", "unreadable")
    assert served.get(run).json() == before


def test_fields_can_be_null(served: Served, fail: Any) -> None:
    fail("null-fields:createdAt,status")
    run = served.get(f"{BILLING}/runs").json()["data"]["runs"][0]
    assert run["createdAt"] is run["status"] is None


def test_statuses_and_kinds_can_be_unknown(served: Served, fail: Any) -> None:
    run = stuck(served)
    fail("unknown-status", "unknown-kind:Portal")
    data = served.get(run).json()["data"]
    assert data["status"] == "hibernating"
    assert data["spec"]["kind"] == data["spec"]["spec"]["steps"][0]["kind"] == "Portal"
    assert data["spec"]["response"]["status"] == "hibernating"


def test_a_fault_can_strike_one_list_and_nothing_under_it(served: Served, fail: Any) -> None:
    fail("404@GET /v1/projects$")
    assert served.get("/projects").status_code == 404
    assert served.get("/projects/payments").status_code == 200


# --- bodies and connections ------------------------------------------------------------------


def test_a_body_can_be_no_json_or_empty(served: Served, fail: Any) -> None:
    fail("not-json")
    assert served.get("/projects").text == "Everything is fine, but this is not JSON."
    fail("empty-body")
    answer = served.get("/projects")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_body_can_be_truncated(served: Served, fail: Any) -> None:
    fail("truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        served.get("/projects")


def test_the_connection_can_be_dropped(served: Served, fail: Any) -> None:
    run = stuck(served)
    fail("reset*1")
    with pytest.raises(httpx.TransportError):
        served.post(f"{run}/abort")
    assert served.get(run).json()["data"]["status"] != "aborting"


def test_the_connection_can_be_dropped_after_the_request_had_its_effect(
    served: Served, fail: Any
) -> None:
    run = stuck(served)
    fail("reset-after*1")
    with pytest.raises(httpx.TransportError):
        served.post(f"{run}/abort")
    assert served.get(run).json()["data"]["status"] == "aborting"


def test_an_answer_can_be_huge(served: Served, fail: Any) -> None:
    fail("huge:3")
    answer = served.get("/projects")
    assert len(answer.content) == 3 * 1024 * 1024
    assert answer.json()["data"]["runs"] == []


def test_an_answer_can_be_late(served: Served, fail: Any) -> None:
    fail("latency:1@/projects")
    begin = time.perf_counter()
    served.get("/auth")
    between = time.perf_counter()
    served.get("/projects")
    assert between - begin < 1 <= time.perf_counter() - between


def test_an_abort_can_be_accepted_without_an_answer(served: Served, fail: Any) -> None:
    run = stuck(served)
    fail("abort-timeout")
    with pytest.raises(httpx.ReadTimeout):
        served.post(f"{run}/abort", timeout=0.2)
    assert served.get(run).json()["data"]["status"] == "aborting"


def test_an_abort_can_be_lost_but_is_counted(served: Served, fail: Any) -> None:
    run = stuck(served)
    fail("abort-lost:0.05")
    with pytest.raises(httpx.TransportError):
        served.post(f"{run}/abort")
    assert served.get(run).json()["data"]["status"] != "aborting"
    assert served.sandbox.abort_posts.total() == 1


# --- how often and where ---------------------------------------------------------------------


def test_a_fault_can_strike_a_number_of_times(served: Served, fail: Any) -> None:
    fail("500*2")
    assert [served.get("/auth").status_code for _ in range(3)] == [500, 500, 200]


def test_a_fault_can_strike_by_chance(served: Served, fail: Any) -> None:
    fail("500%0.5")
    assert {served.get("/auth").status_code for _ in range(30)} == {200, 500}
    fail("500%0")
    assert served.get("/auth").status_code == 200


def test_a_fault_can_strike_one_method(served: Served, fail: Any) -> None:
    fail("500@POST")
    assert served.get(f"{BILLING}/runs").status_code == 200
    assert served.post(f"{BILLING}/runs").status_code == 500


def test_a_fault_can_wait(served: Served, fail: Any) -> None:
    fail("503+60")
    served.clock.now += 59.9
    assert served.get("/projects").status_code == 200
    served.clock.now += 0.1
    assert served.get("/projects").status_code == 503


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("500", Fault("500")),
        ("latency:0.3", Fault("latency", "0.3")),
        ("500%0.2@/runs", Fault("500", probability=0.2, part="/runs")),
        ("reset*3", Fault("reset", count=3)),
        ("503+60", Fault("503", after=60)),
        ("latency:2%.5*4@POST /v1", Fault("latency", "2", 0.5, 4, "POST /v1")),
        ("latency:2+1.5%.5*4@/a+b", Fault("latency", "2", 0.5, 4, "/a+b", after=1.5)),
        ("missing-fields:a,b", Fault("missing-fields", "a,b")),
        ("abort-timeout", Fault("abort-timeout", "60")),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "unknown fault 'nope'; known are: latency, 500"),
        ("", "write NAME"),
        ("500%", "write NAME"),
        ("500*x", "write NAME"),
        ("500+", "write NAME"),
        ("500+soon", "write NAME"),
        ("500%2", "between 0 and 1"),
        ("500:3", "takes no value"),
        ("forbidden", "forbidden:VALUE"),
        ("latency:soon", "needs a number, not 'soon'"),
        ("data:{", "needs JSON, not '{'"),
        ("error-string:99", "a status between 400 and 599"),
    ],
)
def test_a_fault_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_fault(text)


def test_every_fault_says_what_it_does() -> None:
    assert all(kind.about for kind in KINDS.values())
