"""What a run waits for, in the API, and its log to those who may see it."""

from collections.abc import Iterator

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.models import AccessEvent, Run
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from tests.support import factories, live_runs
from tests.support.api import CreateApiClient, error_status_and_code
from tests.support.live import Live


@pytest.fixture
def scenario() -> str:
    return "jobs-and-builds"


@pytest.fixture
def run(live: Live) -> Iterator[Run]:
    """A run that waits for a silent job run, while a worker reads."""
    with live.ticking():
        yield live_runs.waiting_run(live, "silent")


@pytest.fixture
def client(api_client: CreateApiClient, manager: User) -> httpx.Client:
    return api_client(manager, scope=Scope.LOGS)


def fetch(client: httpx.Client, run: Run, query: str = "") -> httpx.Response:
    return client.get(f"/api/runs/{run.run_id}/{query}")


def test_log_has_its_newest_lines_and_what_they_are_of(client: httpx.Client, run: Run) -> None:
    answer = fetch(client, run, "?log=3").json()
    lines = [line["text"] for line in answer["log"]["lines"]]
    assert len(lines) == 3
    assert lines[-1].startswith("waiting for lock on table orders")
    waiting = answer["waiting_for"]
    assert (waiting["kind"], waiting["status"], waiting["probable"]) == (
        "job_run",
        "RUNNING",
        False,
    )
    assert waiting["name"].startswith("clean-up-")
    assert waiting["silent_since"] == answer["log"]["lines"][-1]["at"]
    event = AccessEvent.objects.get(kind=AccessKind.LOGS_OPENED)
    assert (event.username, event.token_name) == ("manager", "PagerDuty")


def test_run_says_what_it_waits_for_without_a_request(client: httpx.Client, run: Run) -> None:
    waiting = fetch(client, run).json()["waiting_for"]
    assert (waiting["kind"], waiting["name"], waiting["status"]) == ("job_run", "", "")
    assert waiting["id"]


def test_run_that_waits_for_no_job_run_has_none(client: httpx.Client, run: Run) -> None:
    other = factories.run(factories.stage())
    answer = fetch(client, other, "?log=50").json()
    assert (answer["waiting_for"], answer["log"]) == (None, None)


@pytest.mark.parametrize("count", ["0", "x", "1001"])
def test_number_of_lines_is_checked(client: httpx.Client, run: Run, count: str) -> None:
    assert error_status_and_code(fetch(client, run, f"?log={count}")) == (400, "bad_parameter")


def test_log_needs_a_token_for_logs(api_client: CreateApiClient, manager: User, run: Run) -> None:
    client = api_client(manager, scope=Scope.READ)
    assert error_status_and_code(fetch(client, run, "?log=50")) == (403, "not_allowed")


def test_log_needs_the_right_of_the_account(
    api_client: CreateApiClient, viewer: User, run: Run
) -> None:
    client = api_client(viewer, scope=Scope.LOGS)
    assert error_status_and_code(fetch(client, run, "?log=50")) == (403, "not_allowed")
