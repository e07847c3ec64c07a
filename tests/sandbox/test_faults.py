"""Faults: each over HTTP, and the syntax to request them."""

from argparse import ArgumentTypeError
from typing import Any

import pytest

from dashboard.sandbox import Fault, Options, parse_fault
from tests.support.sandbox import SandboxServer
from tests.support.sandbox_paths import BILLING


@pytest.fixture
def set_faults(sandbox_server: SandboxServer) -> Any:
    def set_faults(*texts: str) -> None:
        sandbox_server.sandbox.faults = [parse_fault(text) for text in texts]

    return set_faults


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("500", 500, "Internal server error"),
        ("503", 503, "Unavailable"),
        ("404", 404, "Not found"),
        ("bad-token", 401, "Unauthorized"),
        ("rate-limited", 429, "Rate limit exceeded"),
        ("too-fast", 429, "Slow down"),
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


@pytest.mark.parametrize("status", ["403", "404"])
def test_forbidden_fault_denies_one_project(sandbox_server: SandboxServer, status: str) -> None:
    sandbox_server.configure(Options(choices={"no-access": status}))
    sandbox_server.sandbox.faults = [parse_fault("403@/projects/payments")]
    assert sandbox_server.get("/projects/payments").status_code == int(status)
    assert sandbox_server.get(f"/teams/acme{BILLING}/runs").status_code == int(status)
    assert sandbox_server.get("/projects/shop").status_code == 200


def test_fault_with_path_end_applies_to_list_only(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("404@GET /v1/projects$")
    assert sandbox_server.get("/projects").status_code == 404
    assert sandbox_server.get("/projects/payments").status_code == 200


# --- how often and where ---------------------------------------------------------------------


def test_fault_with_count_applies_that_often(
    sandbox_server: SandboxServer, set_faults: Any
) -> None:
    set_faults("500*2")
    assert [sandbox_server.get("/auth").status_code for _ in range(3)] == [500, 500, 200]


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
        ("500@/runs", Fault("500", target="/runs")),
        ("reset*3", Fault("reset", count=3)),
        ("503+60", Fault("503", after_seconds=60)),
        ("latency:2*4@POST /v1", Fault("latency", "2", 4, "POST /v1")),
        ("latency:2+1.5*4@/a+b", Fault("latency", "2", 4, "/a+b", after_seconds=1.5)),
        ("missing-fields:a,b", Fault("missing-fields", "a,b")),
    ],
)
def test_fault_text_is_parsed(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "unknown fault 'nope'; known are: latency, "),
        ("", "write NAME"),
        ("500*x", "write NAME"),
        ("500+", "write NAME"),
        ("500+soon", "write NAME"),
    ],
)
def test_invalid_fault_text_is_refused_with_reason(text: str, message: str) -> None:
    with pytest.raises(ArgumentTypeError, match=message):
        parse_fault(text)
