"""Faults: each over HTTP, and the syntax to request them."""

import time
from typing import Any

import httpx
import pytest

from dashboard.sandbox import Fault, Options, parse_fault
from tests.support.live_runs import wait_until
from tests.support.sandbox import SandboxServer
from tests.support.sandbox_paths import BILLING, LEDGER


@pytest.fixture
def set_faults(sandbox_server: SandboxServer) -> Any:
    def set_faults(*texts: str) -> None:
        sandbox_server.sandbox.faults = [parse_fault(text) for text in texts]

    return set_faults


def stuck_run_path(sandbox_server: SandboxServer) -> str:
    runs = sandbox_server.get(f"{LEDGER}/runs?concluded=false").json()["data"]["runs"]
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
def test_error_fault_answers_its_status_and_message(
    sandbox_server: SandboxServer, set_faults: Any, fault: str, status: int, message: str
) -> None:
    set_faults(fault)
    answer = sandbox_server.get("/projects")
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == message
    assert "x-ratelimit-remaining" in answer.headers


def test_rate_limited_fault_uses_up_the_window(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("rate-limited*1")
    assert sandbox_server.get("/projects").headers["x-ratelimit-remaining"] == "0"
    assert sandbox_server.get("/projects").status_code == 429


def test_too_fast_fault_keeps_the_window(sandbox_server: SandboxServer, set_faults: Any) -> None:
    set_faults("too-fast:7*1")
    answer = sandbox_server.get("/projects")
    assert answer.headers["retry-after"] == "7"
    assert int(answer.headers["x-ratelimit-remaining"]) > 900
    assert sandbox_server.get("/projects").status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [("502-html", 502, "Bad Gateway"), ("404-html", 404, "Not Found")],
)
def test_html_fault_answers_a_page(
    sandbox_server: SandboxServer, set_faults: Any, fault: str, status: int, title: str
) -> None:
    set_faults(fault)
    answer = sandbox_server.get("/projects")
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert title in answer.text


def test_error_body_faults_answer_other_forms(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("error-without-wrapper:409")
    answer = sandbox_server.get("/projects")
    assert answer.status_code == 409
    assert answer.json() == {"code": "error", "message": "It broke", "status": 409}
    set_faults("error-string")
    assert sandbox_server.get("/projects").json() == {"error": "It broke"}


@pytest.mark.parametrize("status", ["403", "404"])
def test_forbidden_fault_denies_one_project(sandbox_server: SandboxServer, status: str) -> None:
    sandbox_server.configure(Options(choices={"no-access": status}))
    sandbox_server.sandbox.faults = [parse_fault("forbidden:payments")]
    assert sandbox_server.get("/projects/payments").status_code == int(status)
    assert sandbox_server.get(f"/teams/acme{BILLING}/runs").status_code == int(status)
    assert sandbox_server.get("/projects/shop").status_code == 200


# --- payloads --------------------------------------------------------------------------------


def test_missing_fields_fault_removes_fields(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("missing-fields")
    for run in sandbox_server.get(f"{BILLING}/runs").json()["data"]["runs"]:
        assert "startedAt" not in run
        assert "id" in run
    set_faults("missing-fields:runs")
    assert sandbox_server.get(f"{BILLING}/runs").json()["data"] == {}


def test_unreadable_fault_replaces_list_items_with_null(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    before = sandbox_server.get("/projects").json()["data"]["projects"]
    set_faults("unreadable:2")
    assert sandbox_server.get("/projects").json()["data"]["projects"] == [None, None, *before[2:]]


def test_surplus_fault_lengthens_list(sandbox_server: SandboxServer, set_faults: Any) -> None:
    before = sandbox_server.get(f"{BILLING}/runs?per_page=10").json()["data"]["runs"]
    set_faults("surplus:5")
    longer = sandbox_server.get(f"{BILLING}/runs?per_page=10").json()["data"]["runs"]
    assert longer == before + before[-1:] * 95


def test_hidden_fault_removes_item_from_list(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    before = sandbox_server.get("/projects").json()["data"]["projects"]
    set_faults("hidden:payments")
    remaining = sandbox_server.get("/projects").json()["data"]["projects"]
    assert remaining == [project for project in before if project["id"] != "payments"]
    assert len(remaining) < len(before)


def test_list_faults_do_not_change_other_answers(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    run = stuck_run_path(sandbox_server)
    before = sandbox_server.get(run).json()
    set_faults("surplus", "unreadable")
    assert sandbox_server.get(run).json() == before


def test_unknown_status_fault_replaces_every_status(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    run = stuck_run_path(sandbox_server)
    set_faults("unknown-status")
    data = sandbox_server.get(run).json()["data"]
    assert data["status"] == "hibernating"
    assert data["spec"]["response"]["status"] == "hibernating"


def test_fault_with_path_end_applies_to_list_only(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("404@GET /v1/projects$")
    assert sandbox_server.get("/projects").status_code == 404
    assert sandbox_server.get("/projects/payments").status_code == 200


# --- bodies and connections ------------------------------------------------------------------


def test_body_faults_answer_no_json_or_nothing(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("not-json")
    assert sandbox_server.get("/projects").text == "Everything is fine, but this is not JSON."
    set_faults("empty-body")
    answer = sandbox_server.get("/projects")
    assert (answer.status_code, answer.content) == (200, b"")


def test_truncated_fault_cuts_the_body(sandbox_server: SandboxServer, set_faults: Any) -> None:
    set_faults("truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        sandbox_server.get("/projects")


def test_reset_fault_drops_connection_before_effect(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    run = stuck_run_path(sandbox_server)
    set_faults("reset*1")
    with pytest.raises(httpx.TransportError):
        sandbox_server.post(f"{run}/abort")
    assert sandbox_server.get(run).json()["data"]["status"] != "aborting"


def test_reset_after_fault_drops_connection_after_effect(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    run = stuck_run_path(sandbox_server)
    set_faults("reset-after*1")
    with pytest.raises(httpx.TransportError):
        sandbox_server.post(f"{run}/abort")
    assert sandbox_server.get(run).json()["data"]["status"] == "aborting"


def test_huge_fault_answers_megabytes(sandbox_server: SandboxServer, set_faults: Any) -> None:
    set_faults("huge:3")
    answer = sandbox_server.get("/projects")
    assert len(answer.content) == 3 * 1024 * 1024
    assert answer.json()["data"]["runs"] == []


def test_latency_fault_delays_answer(sandbox_server: SandboxServer, set_faults: Any) -> None:
    set_faults("latency:60@/projects")  # longer than the client waits
    assert sandbox_server.get("/auth").status_code == 200
    set_faults("latency:0.3@/projects")
    start = time.perf_counter()
    sandbox_server.get("/projects")
    assert time.perf_counter() - start >= 0.3


def test_abort_timeout_fault_accepts_abort_without_answer(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    run = stuck_run_path(sandbox_server)
    set_faults("abort-timeout")
    with pytest.raises(httpx.ReadTimeout):
        sandbox_server.post(f"{run}/abort", timeout=0.2)
    wait_until(lambda: sandbox_server.get(run).json()["data"]["status"] == "aborting")


def test_abort_lost_fault_drops_abort_but_counts_it(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    run = stuck_run_path(sandbox_server)
    set_faults("abort-lost:0.05")
    with pytest.raises(httpx.TransportError):
        sandbox_server.post(f"{run}/abort")
    assert sandbox_server.get(run).json()["data"]["status"] != "aborting"
    assert sandbox_server.sandbox.abort_request_counts.total() == 1


# --- how often and where ---------------------------------------------------------------------


def test_fault_with_count_applies_that_often(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("500*2")
    assert [sandbox_server.get("/auth").status_code for _ in range(3)] == [500, 500, 200]


def test_fault_with_probability_applies_sometimes(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("500%0.5")
    assert {sandbox_server.get("/auth").status_code for _ in range(30)} == {200, 500}
    set_faults("500%0")
    assert sandbox_server.get("/auth").status_code == 200


def test_fault_with_method_applies_to_it_only(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("500@POST")
    assert sandbox_server.get(f"{BILLING}/runs").status_code == 200
    assert sandbox_server.post(f"{BILLING}/runs").status_code == 500


def test_fault_with_delay_applies_later(sandbox_server: SandboxServer, set_faults: Any) -> None:
    set_faults("503+60")
    sandbox_server.clock.now += 59.9
    assert sandbox_server.get("/projects").status_code == 200
    sandbox_server.clock.now += 0.1
    assert sandbox_server.get("/projects").status_code == 503


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("500", Fault("500")),
        ("latency:0.3", Fault("latency", "0.3")),
        ("500%0.2@/runs", Fault("500", probability=0.2, target="/runs")),
        ("reset*3", Fault("reset", count=3)),
        ("503+60", Fault("503", after_seconds=60)),
        ("latency:2%.5*4@POST /v1", Fault("latency", "2", 0.5, 4, "POST /v1")),
        ("latency:2+1.5%.5*4@/a+b", Fault("latency", "2", 0.5, 4, "/a+b", after_seconds=1.5)),
        ("missing-fields:a,b", Fault("missing-fields", "a,b")),
        ("abort-timeout", Fault("abort-timeout", "60")),
    ],
)
def test_fault_text_is_parsed(text: str, fault: Fault) -> None:
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
        ("500:3", "cannot have the VALUE '3'"),
        ("forbidden", "cannot have the VALUE ''"),
        ("latency:soon", "cannot have the VALUE 'soon'"),
        ("error-string:99", "cannot have the VALUE '99'"),
    ],
)
def test_invalid_fault_text_raises_value_error_with_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_fault(text)
