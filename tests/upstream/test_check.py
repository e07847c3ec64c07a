"""The check of a token: what it sees, what it sends, and what it says is missing.

A real sandbox answers.
"""

import asyncio
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from dashboard.sandbox import Sandbox, parse_fault
from dashboard.upstream import check as checks
from dashboard.upstream.check import Report
from tests.support import processes

PAYMENTS = ("payments",)


@pytest.fixture
def upstream() -> Iterator[tuple[str, Sandbox]]:
    with processes.upstream() as running:
        yield running


@pytest.fixture
def url(upstream: tuple[str, Sandbox]) -> str:
    return upstream[0]


@pytest.fixture
def sandbox(
    upstream: tuple[str, Sandbox],
) -> Sandbox:
    return upstream[1]


def check(url: str, *project_ids: str, token: str = "sandbox", **fields: Any) -> Report:
    return asyncio.run(checks.check(token, url, "", project_ids, **fields))


def sent(sandbox: Sandbox) -> list[str]:
    """Return what was sent; the check must never send anything but GET, nor too much."""
    assert {method for method, _ in sandbox.requests} <= {"GET"}
    assert len(sandbox.requests) <= 20
    return [path for _, path in sandbox.requests]


# --- what the token can see ----------------------------------------------------------------------


def test_check_reports_token_access_and_what_it_has_seen(sandbox: Sandbox, url: str) -> None:
    report = check(url, *PAYMENTS)
    assert report.exit_status == 0
    verdict, requests, token, *rest = report.lines
    assert verdict == "All that was tried can be read."
    sent_count = len(sent(sandbox))
    assert re.fullmatch(rf"Requests: {sent_count}; \d+ of \d+ an hour are left", requests)
    assert token == (
        "Token: kind api, owner team acme, role Release manager, projects all, expires never"
    )
    assert [line.split("  ")[-1].strip() for line in rest[1:6]] == [
        *["yes"] * 4, "not tried; /v1/auth lists Pipelines > General > Update",
    ]  # fmt: skip
    projects, pipelines, *stages = rest[6:]
    assert re.match(r"Projects: \d+; .*payments", projects)
    assert re.match(r"  payments: \d+ pipelines; billing-api", pipelines)
    for name, line in zip(("Production", "Staging", "Development"), stages, strict=True):
        assert re.fullmatch(rf"  payments / billing-api / {name}: \d+\+? runs, \d+ in flight", line)


@pytest.mark.parametrize("answer", ["404", "empty-list"])
def test_check_of_stage_without_release_flow_is_no_error(
    sandbox: Sandbox, url: str, answer: str
) -> None:
    sandbox.choices["stage-without-flow"] = answer
    report = check(url, "identity")
    assert report.exit_status == 0
    text = "no release flow, or no permission" if answer == "404" else "0 runs, 0 in flight"
    assert any(line.endswith(text) for line in report.lines)


def test_check_of_empty_account_names_role_to_check(sandbox: Sandbox, url: str) -> None:
    sandbox.world.projects = ()
    report = check(url)
    assert report.exit_status == 0
    assert report.lines[1].startswith("The token has access to no project.")


def test_check_with_configured_project_that_is_not_listed_reports_it(
    sandbox: Sandbox, url: str
) -> None:
    report = check(url, "payments", "atlantis")
    assert report.exit_status == 1
    assert "  atlantis, of NORTHFLANK_PROJECTS, is not among them" in report.lines


# --- the rate budget -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["too-fast:300@/runs", "too-fast:300"])
def test_check_stops_at_429(sandbox: Sandbox, url: str, fault: str) -> None:
    sandbox.faults = [parse_fault(fault)]
    report = check(url)
    assert report.exit_status == (1 if "@" in fault else 2)
    assert any("rate limit reached" in line for line in report.lines)


# --- an upstream that refuses or does not answer -------------------------------------------------


def test_check_with_refused_token_names_setting_after_one_request(
    sandbox: Sandbox, url: str
) -> None:
    report = check(url, token="mistyped")
    assert (report.exit_status, len(sent(sandbox))) == (2, 1)
    _verdict, error, hint, *_ = report.lines
    assert error.endswith("Northflank rejected the API token (401): Unauthorized")
    assert hint.startswith("Check NORTHFLANK_API_TOKEN: ")


@pytest.mark.parametrize(
    ("targets", "exit_status", "access"),
    [
        (["/v1/projects$"], 2, "list projects"),
        (["/pipelines$"], 1, "list pipelines"),
        (["/runs$"], 1, "read runs"),
        (
            ["/production$", "/staging$", "/development$"],
            1,
            "read release flows",
        ),
    ],
)
def test_check_with_missing_permission_names_role(
    sandbox: Sandbox, url: str, targets: list[str], exit_status: int, access: str
) -> None:
    sandbox.faults = [parse_fault(f"error-without-wrapper:403@{target}") for target in targets]
    report = check(url, *PAYMENTS)
    assert report.exit_status == exit_status
    is_read = exit_status != 2  # else there is nothing to say about it
    assert (f"  {access:24}no (forbidden)" in report.lines) == is_read
    assert any(line.startswith("Check the role of NORTHFLANK_API_TOKEN: ") for line in report.lines)


@pytest.mark.parametrize(
    ("no_access", "hint"),
    [("403", "Check the role of NORTHFLANK_API_TOKEN: "), ("404", "Check NORTHFLANK_TEAM_ID ")],
)
def test_check_of_foreign_team_names_setting(
    sandbox: Sandbox, url: str, no_access: str, hint: str
) -> None:
    sandbox.choices["no-access"] = no_access
    report = asyncio.run(checks.check("sandbox", url, "another-team", ()))
    assert report.exit_status == 2
    [line] = [line for line in report.lines if line.startswith(hint)]
    assert "NORTHFLANK_TEAM_ID" in line


def test_check_of_api_without_auth_endpoint_finds_no_error(sandbox: Sandbox, url: str) -> None:
    sandbox.faults = [parse_fault("404@/v1/auth")]
    report = check(url)
    assert report.exit_status == 0
    assert "Token:" not in "".join(report.lines)
    assert any(line.endswith("not tried; /v1/auth lists no permissions") for line in report.lines)


def test_check_of_unreachable_host_names_address_setting() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        report = check(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert report.exit_status == 2
    assert report.lines[1].endswith("Northflank is unreachable.")
    assert report.lines[2].startswith("Check NORTHFLANK_API_BASE_URL and the network")


@pytest.mark.parametrize(("target", "exit_status"), [("", 2), ("@/runs", 1)])
def test_check_stops_at_answer_that_is_too_slow(
    sandbox: Sandbox, url: str, target: str, exit_status: int
) -> None:
    sandbox.faults = [parse_fault(f"latency:60{target}")]
    report = check(url, timeout_seconds=1)
    assert report.exit_status == exit_status
    assert report.lines[1].endswith("Northflank did not respond within 1 seconds.")
    assert len([path for path in sent(sandbox) if "/runs" in path or not target]) == 1
