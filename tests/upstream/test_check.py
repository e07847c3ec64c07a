"""The check of a token: what it sees, what it sends, and what it calls a difference.

A real sandbox answers, with each of its choices and faults.
"""

import asyncio
import io
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from dashboard.db import threads as db_threads
from dashboard.models import CatalogSync, RateBudget, Upstream
from dashboard.sandbox import Sandbox, parse_fault
from dashboard.sandbox.choices import CHOICES
from dashboard.sandbox.faults import FAULT_KINDS
from dashboard.upstream import check as checks
from dashboard.upstream.check import Report
from dashboard.upstream.check_client import MAX_REQUESTS
from tests.support import live, payloads, processes
from tests.support.scripted_server import ScriptedServer, respond_with

PAYMENTS = ("payments",)
IDENTITY = ("identity",)  # has a stage without a release flow


@pytest.fixture
def upstream() -> Iterator[tuple[str, Sandbox]]:
    with processes.upstream() as running:
        yield running


@pytest.fixture
def url(upstream: tuple[str, Sandbox]) -> str:
    return upstream[0]


@pytest.fixture
def sandbox(
    upstream: tuple[str, Sandbox], transactional_db: None, settings: Settings
) -> Iterator[Sandbox]:
    settings.NORTHFLANK_API_BASE_URL, sandbox = upstream
    yield sandbox
    live.close_connections(db_threads.executor)


def check(url: str, *project_ids: str, token: str = "sandbox", **fields: Any) -> Report:
    return asyncio.run(checks.check(token, url, "", project_ids, **fields))


def sent(sandbox: Sandbox) -> list[str]:
    """Return what was sent; the check must never send anything but GET, nor too much."""
    assert {method for method, _ in sandbox.requests} <= {"GET"}
    assert len(sandbox.requests) <= MAX_REQUESTS
    return [path for _, path in sandbox.requests]


def problems(report: Report) -> list[tuple[str, str, str]]:
    return [
        (difference.route, difference.field, difference.problem)
        for difference in report.differences
    ]


# --- an account as documented --------------------------------------------------------------------


def test_check_of_documented_answers_finds_no_difference(sandbox: Sandbox, url: str) -> None:
    report = check(url)
    assert (report.exit_status, problems(report), report.errors) == (0, [], [])
    assert (report.stopped, report.hint) == ("", "")
    assert len(sent(sandbox)) == report.request_count


def test_check_reports_token_access_and_what_it_has_seen(sandbox: Sandbox, url: str) -> None:
    report = check(url, *PAYMENTS)
    assert report.token is not None
    assert (report.token.owner, report.token.role) == ("team acme", "Release manager")
    assert report.token.projects == "all"
    assert set(report.access.values()) == {
        "yes", "not tried; /v1/auth lists Pipelines > General > Update",
    }  # fmt: skip
    assert report.projects is not None
    assert "payments" in report.projects
    assert list(report.pipelines) == ["payments"]
    assert {stage.stage for stage in report.stages} == {"Production", "Staging", "Development"}
    assert any(stage.run_count for stage in report.stages)
    assert report.rate_limit is not None
    assert report.rate_limit_headers.keys() == {
        "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("question", "value"),
    [
        (question, value)
        for question, values in CHOICES.items()
        if question in ("run-order", "timestamps", "updated-at", "stage-without-flow",
                        "stage-spelling", "last-cursor", "rate-limit-headers")
        for value in values
    ],
)  # fmt: skip
def test_check_observes_what_documentation_leaves_open(
    sandbox: Sandbox, url: str, question: str, value: str
) -> None:
    sandbox.choices[question] = value
    report = check(url, *IDENTITY)
    assert report.observations[question] == [value]
    assert report.exit_status == (1 if value == "absent" else 0), problems(report)
    sent(sandbox)


def test_check_observes_filters_unknown_run_and_counting(sandbox: Sandbox, url: str) -> None:
    observations = check(url).observations
    assert observations["concluded-filter"] == observations["status-filter"] == ["honoured"]
    assert observations["unknown-run"] == ["404 with message, status, id"]
    assert observations["counted-requests"] == ["/v1/auth too"]
    assert observations["step-times"] == ["seconds"]


def test_check_of_empty_account_names_role_to_check(sandbox: Sandbox, url: str) -> None:
    sandbox.world.projects = ()
    report = check(url)
    assert (report.exit_status, report.projects) == (0, [])
    assert report.hint.startswith("The token has access to no project.")


def test_check_of_account_without_pipelines_finds_no_difference(sandbox: Sandbox, url: str) -> None:
    report = check(url, "skunkworks")
    assert (report.exit_status, report.pipelines) == (0, {"skunkworks": []})


def test_check_with_configured_project_that_is_not_listed_reports_it(
    sandbox: Sandbox, url: str
) -> None:
    report = check(url, "payments", "atlantis")
    assert (report.exit_status, report.missing_projects) == (1, ["atlantis"])


def test_check_shows_no_secrets_and_no_ids_in_what_can_be_pasted(
    sandbox: Sandbox, url: str
) -> None:
    sandbox.faults = [
        parse_fault("unknown-status:on-hold"),
        parse_fault("missing-fields:createdAt"),
    ]
    report = check(url, *PAYMENTS)
    assert ("GET runs", "data.runs[].status", "value “on-hold” is not documented") in problems(
        report
    )
    assert "s3cr3t" not in str(report)
    pasted = f"{report.differences} {report.observations}"
    assert not [word for word in ("payments", "ledger", "billing", "acme") if word in pasted]


# --- the rate budget -----------------------------------------------------------------------------


def budget(**fields: Any) -> RateBudget:
    now = timezone.now()
    defaults = {"limit": 1000, "remaining": 1000, "synced_at": now}
    return RateBudget.objects.create(
        pk=1, resets_at=now + timedelta(minutes=30), **defaults | fields
    )


def test_check_counts_its_requests_in_the_shared_budget(sandbox: Sandbox, url: str) -> None:
    report = check(url)
    row = RateBudget.objects.get()
    assert (report.database_note, row.own_requests) == ("", report.request_count)
    assert report.rate_limit is not None
    assert row.remaining == report.rate_limit.remaining


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no clock of its own")
def test_check_counts_its_requests_by_the_clock_of_the_database(sandbox: Sandbox, url: str) -> None:
    with time_machine.travel(timezone.now() + timedelta(minutes=5)):  # of this machine
        check(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        [now] = cursor.fetchone()
    assert abs(RateBudget.objects.get().synced_at - now) < timedelta(minutes=2)


@pytest.mark.parametrize(("left", "most"), [(0, 0), (1, 0), (6, 6)])
def test_check_leaves_the_reserve_for_aborts(
    sandbox: Sandbox, url: str, left: int, most: int
) -> None:
    budget(remaining=100 + left)  # a tenth of the limit is the reserve
    report = check(url)
    assert len(sent(sandbox)) <= most
    assert report.exit_status == (2 if most == 0 else 0)


@pytest.mark.parametrize(
    ("left", "count"),
    [(0, "Nothing was"), (1, "Nothing was"), (2, "1 request was"), (6, "5 requests were")],
)
def test_check_with_few_requests_left_for_reading_says_when_the_hour_ends(
    sandbox: Sandbox, url: str, left: int, count: str, settings: Settings
) -> None:
    settings.TIME_ZONE = "UTC"
    row = budget(remaining=100 + left)
    assert check(url).stopped == (
        f"{count} sent; too few of the hour's requests are left for reading, until "
        f"{row.resets_at:%H:%M:%S} UTC."
    )


@pytest.mark.parametrize("left", [0, 1])
def test_check_command_that_has_sent_nothing_does_not_blame_the_token(
    sandbox: Sandbox, url: str, left: int, settings: Settings
) -> None:
    settings.SANDBOX, settings.NORTHFLANK_API_TOKEN = False, "sandbox"
    budget(remaining=100 + left)
    output = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("check_upstream", stdout=output)
    verdict = output.getvalue().splitlines()[1]
    assert verdict.startswith("Nothing was sent; too few of the hour's requests are left")


def test_check_during_pause_sends_nothing(sandbox: Sandbox, url: str) -> None:
    budget(backoff_until=timezone.now() + timedelta(minutes=5), refusals=1)
    report = check(url)
    assert (sent(sandbox), report.exit_status) == ([], 2)
    assert "paused after a 429" in report.stopped


@pytest.mark.parametrize("fault", ["too-fast:300@/runs", "too-fast:300"])
def test_check_stops_at_429_and_pauses_all_processes(
    sandbox: Sandbox, url: str, fault: str
) -> None:
    sandbox.faults = [parse_fault(fault)]
    report = check(url)
    assert report.exit_status == (1 if "@" in fault else 2)
    assert "rate limit reached" in report.stopped
    assert report.observations["retry-after"] == ["present"]
    assert report.observations["429-body"] == ["error"]
    if "@" in fault:  # the first answers had headers
        backoff_until = RateBudget.objects.get().backoff_until
        assert backoff_until is not None
        assert backoff_until > timezone.now() + timedelta(seconds=200)
    count = len(sent(sandbox))
    assert check(url).request_count == 0
    assert len(sent(sandbox)) == count


def test_check_of_another_northflank_than_the_database_mirrors_is_not_counted(
    sandbox: Sandbox, url: str
) -> None:
    Upstream.objects.create(pk=1, source="https://api.northflank.com")
    report = check(url)
    assert report.exit_status == 0
    assert report.database_note.startswith("This database mirrors https://api.northflank.com")
    assert not RateBudget.objects.exists()


def test_check_with_refused_token_leaves_the_recorded_outage_alone(
    sandbox: Sandbox, url: str
) -> None:
    Upstream.objects.create(pk=1, source=url)
    assert check(url, token="mistyped").exit_status == 2
    assert Upstream.objects.get().error == ""
    assert not CatalogSync.objects.exists()


# --- an upstream that refuses or does not answer -------------------------------------------------


def test_check_with_refused_token_names_setting_after_one_request(
    sandbox: Sandbox, url: str
) -> None:
    report = check(url, token="mistyped")
    assert (report.exit_status, len(sent(sandbox))) == (2, 1)
    assert report.stopped == "Northflank rejected the API token (401): Unauthorized"
    assert report.hint.startswith("Check NORTHFLANK_API_TOKEN: ")
    assert problems(report) == [("GET auth", "", "401 (unauthorised)")]


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
    assert (report.exit_status, report.access[access]) == (exit_status, "no (forbidden)")
    assert report.hint.startswith("Check the role of NORTHFLANK_API_TOKEN: ")
    assert report.observations["no-access"] == ["403"]


@pytest.mark.parametrize(
    ("no_access", "hint"),
    [("403", "Check the role of NORTHFLANK_API_TOKEN: "), ("404", "Check NORTHFLANK_TEAM_ID ")],
)
def test_check_of_foreign_team_names_setting(
    sandbox: Sandbox, url: str, no_access: str, hint: str
) -> None:
    sandbox.choices["no-access"] = no_access
    report = asyncio.run(checks.check("sandbox", url, "another-team", ()))
    assert (report.exit_status, report.projects) == (2, None)
    assert report.hint.startswith(hint)
    assert "NORTHFLANK_TEAM_ID" in report.hint


def test_check_of_api_without_auth_endpoint_finds_no_difference(sandbox: Sandbox, url: str) -> None:
    sandbox.faults = [parse_fault("404@/v1/auth")]
    report = check(url)
    assert (report.exit_status, report.token, problems(report)) == (0, None, [])
    assert report.access["abort runs"] == "not tried; /v1/auth lists no permissions"


def test_check_of_unreachable_host_names_address_setting(transactional_db: None) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        report = check(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert (report.exit_status, report.request_count) == (2, 0)
    assert report.stopped == "Northflank is unreachable."
    assert report.hint.startswith("Check NORTHFLANK_API_BASE_URL and the network")
    live.close_connections(db_threads.executor)


@pytest.mark.parametrize(("target", "exit_status"), [("", 2), ("@/runs", 1)])
def test_check_stops_at_answer_that_is_too_slow(
    sandbox: Sandbox, url: str, target: str, exit_status: int
) -> None:
    sandbox.faults = [parse_fault(f"latency:60{target}")]
    report = check(url, timeout_seconds=1)
    assert report.exit_status == exit_status
    assert report.stopped == "Northflank did not respond within 1 seconds."
    assert len([path for path in sent(sandbox) if "/runs" in path or not target]) == 1


# --- every odd answer ----------------------------------------------------------------------------

# Exit status if all answers have the fault, and if only those about a project have it.
EXIT_STATUSES = {
    "latency:0.01": (0, 0),
    "500": (2, 1),
    "503": (2, 1),
    "502-html": (2, 1),
    "404": (2, 1),
    "404-html": (2, 1),
    "bad-token": (2, 1),
    "feature-401": (2, 1),
    "forbidden:shop": (1, 1),
    "rate-limited": (2, 1),
    "too-fast": (2, 1),
    "error-without-wrapper": (2, 1),
    "error-string": (2, 1),
    "reset": (2, 1),
    "reset-after": (2, 1),
    "truncated": (2, 1),
    "not-json": (2, 1),
    "empty-body": (2, 1),
    "huge:6": (2, 1),
    "data": (2, 1),
    "unreadable": (1, 1),
    "hidden:shop": (0, 0),
    "surplus": (0, 0),
    "missing-fields:id,status": (2, 1),
    "unknown-status": (1, 1),
    "abort-timeout": (0, 0),
    "abort-lost": (0, 0),
}
MORE_DATA = ['"maintenance"', "7", '{"message":"maintenance"}', '{"projects":null}', "[null,7,{}]"]


def test_every_fault_of_the_sandbox_is_tried() -> None:
    assert {parse_fault(fault).name for fault in EXIT_STATUSES} == FAULT_KINDS.keys()


def check_with_fault(sandbox: Sandbox, url: str, fault: str) -> Report:
    """Check with this fault alone, whatever an earlier one has left."""
    sandbox.faults = [parse_fault(fault)]
    sandbox.requests.clear()
    sandbox.rate_limit_window.opened_at = None
    RateBudget.objects.all().delete()
    report = check(url)
    sent(sandbox)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("target", ["", "@/v1/projects/"])
def test_check_with_fault_ends_with_exit_status(sandbox: Sandbox, url: str, target: str) -> None:
    for fault, statuses in EXIT_STATUSES.items():
        report = check_with_fault(sandbox, url, f"{fault}{target}")
        seen = (problems(report), report.errors, report.stopped)
        assert report.exit_status == statuses[bool(target)], (fault, seen)
        assert bool(report.differences or report.errors) == (report.exit_status != 0), (fault, seen)


@pytest.mark.parametrize("target", ["@/v1/auth", "@/v1/projects$", "@/pipelines", "@/runs"])
def test_check_with_odd_data_reports_difference(sandbox: Sandbox, url: str, target: str) -> None:
    for data in MORE_DATA:
        report = check_with_fault(sandbox, url, f"data:{data}{target}")
        assert report.exit_status == (2 if target == "@/v1/projects$" else 1), data
        assert report.differences, data


def test_check_never_shows_a_token_that_the_upstream_quotes(transactional_db: None) -> None:
    token = "TKN-quoted-by-the-upstream"
    names = {"id": token, "name": token, token: token}
    auth = {"role": {"name": token}, "permissions": {"teamScope": [token]}, "entityId": token}
    bodies = [
        payloads.data(auth | {"tokenKind": token, token: 1}),
        payloads.page("projects", names),
        payloads.page("pipelines", names),
        payloads.page("runs", payloads.run(token, status=token, **{token: token})),
        *[payloads.error(f"{token} is odd", id=token)] * 20,
    ]

    async def run() -> Report:
        async with ScriptedServer() as server:
            headers = {"X-RateLimit-Limit": token, "Content-Type": token}
            for number, body in enumerate(bodies):
                server.enqueue(
                    respond_with(body, status=200 if number < 4 else 403, headers=headers)
                )
            report = await checks.check(token, server.url, "", ())
            assert len(server.requests) > 5
            return report

    report = asyncio.run(run())
    assert report.projects == ["…"]
    assert token not in str(report)
    live.close_connections(db_threads.executor)
