"""Aborts by the API: the same use case as on pages; the response waits for Northflank's."""

from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, Run
from dashboard.runs import dismissals
from dashboard.sandbox import parse_fault
from tests.support import factories
from tests.support.api import CreateApiClient, abort, create_token_secret, error_status_and_code
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    SEARCH,
    advance_time,
    backdate_abort,
    create_run_in_flight,
    read,
    shorten_upstream_timeout,
)


@pytest.fixture
def run(live: Live) -> Run:
    return create_run_in_flight(live)


@pytest.fixture
def manager_api_client(api_client: CreateApiClient, manager: User) -> httpx.Client:
    return api_client(manager)


def success_json(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_abort_returns_northflank_result(
    live: Live, manager_api_client: httpx.Client, run: Run
) -> None:
    body = success_json(abort(manager_api_client, run, "  Stuck on\nmigrate "))
    assert body["joined"] is False
    assert (body["abort"]["state"], body["abort"]["response_status"]) == ("accepted", 200)
    assert body["abort"]["reason"] == "Stuck on migrate"
    assert (body["run"]["status"], body["run"]["concluded"]) == ("aborting", False)
    assert live.sandbox.abort_request_counts == {run.run_id: 1}


def test_abort_records_api_as_origin_with_token_and_address(
    manager_api_client: httpx.Client, run: Run
) -> None:
    abort(manager_api_client, run)
    row = Abort.objects.get()
    assert (row.via, row.token_name, row.username) == ("api", "PagerDuty", "manager")
    assert row.client_address == "127.0.0.1"
    assert [event.event_type for event in row.events.all()][:2] == ["requested", "sent"]


def test_repeated_abort_joins_open_abort(
    live: Live, manager_api_client: httpx.Client, run: Run
) -> None:
    first, second = (
        success_json(abort(manager_api_client, run)),
        success_json(abort(manager_api_client, run, "again")),
    )
    assert (first["joined"], second["joined"]) == (False, True)
    assert first["abort"]["id"] == second["abort"]["id"]
    assert live.sandbox.abort_request_counts == {run.run_id: 1}


def test_abort_of_what_a_run_has_left_running_has_its_rules(
    manager_api_client: httpx.Client, live: Live, viewer: User, api_client: CreateApiClient
) -> None:
    run = factories.run(
        factories.stage("Staging"), status="aborted", steps=factories.steps_naming("j1", "j2")
    )
    running = factories.work(run)
    factories.work(run, work_id="j2", concluded=True, ended_at=timezone.now())

    def abort_left(client: httpx.Client, work_id: str) -> httpx.Response:
        return client.post(f"/api/runs/{run.run_id}/abort/", json={"left_running": work_id})

    assert error_status_and_code(abort_left(api_client(viewer), "j1")) == (403, "not_allowed")
    for work_id in ("", run.run_id):  # a variable that a script has not set aborts nothing
        assert error_status_and_code(abort_left(manager_api_client, work_id)) == (422, "bad_field")
    ended = abort_left(manager_api_client, "j2")
    assert error_status_and_code(ended) == (409, "not_in_flight")
    assert ended.json()["error"]["message"] == "It had already ended; nothing was sent."
    assert not Abort.every.exists()
    # The sandbox does not know this job run.
    settled = success_json(abort_left(manager_api_client, "j1"))
    assert (settled["abort"]["state"], settled["joined"]) == ("too_late", False)
    abort_row = Abort.every.get()
    assert (abort_row.work, abort_row.via, abort_row.token_name) == (running, "api", "PagerDuty")


# --- what Northflank answers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "code", "state"),
    [
        ("403@/abort", 502, "refused", "refused"),
        ("error-string:409@/abort", 502, "refused", "refused"),
        ("rate-limited@/abort", 503, "not_sent", "not_sent"),
        ("500@/abort", 504, "no_response", "unknown"),
    ],
)
def test_failed_abort_returns_error_status_and_abort(
    live: Live,
    manager_api_client: httpx.Client,
    run: Run,
    fault: str,
    status: int,
    code: str,
    state: str,
) -> None:
    live.sandbox.faults = [parse_fault(fault)]
    answer = abort(manager_api_client, run)
    assert error_status_and_code(answer) == (status, code)
    body = answer.json()
    assert (body["abort"]["state"], body["joined"]) == (state, False)
    assert body["error"]["message"] == body["abort"]["message"]
    assert body["run"]["run_id"] == run.run_id


def test_rate_limited_abort_returns_retry_after(
    live: Live, manager_api_client: httpx.Client, run: Run
) -> None:
    live.sandbox.faults = [parse_fault("rate-limited@/abort")]
    answer = abort(manager_api_client, run)
    row = Abort.objects.get()
    assert row.retry_at is not None
    assert row.responded_at is not None
    seconds = (row.retry_at - row.responded_at).total_seconds()
    assert 0 < seconds - 5 <= int(answer.headers["retry-after"]) <= seconds + 1


def test_unsent_abort_without_retry_time_returns_default_retry_after(
    live: Live, manager_api_client: httpx.Client, run: Run
) -> None:
    from dashboard.northflank import NorthflankClient
    from tests.support.live_runs import replace_client

    replace_client(live, NorthflankClient("sandbox", base_url="http://127.0.0.1:9"))
    answer = abort(manager_api_client, run)
    assert error_status_and_code(answer) == (503, "not_sent")
    assert answer.headers["retry-after"] == "10"


def test_abort_that_times_out_returns_504_and_stays_open(
    live: Live, manager_api_client: httpx.Client, run: Run
) -> None:
    shorten_upstream_timeout(live)
    live.sandbox.faults = [parse_fault("reset:2@abort-")]
    assert error_status_and_code(abort(manager_api_client, run)) == (504, "no_response")
    assert Abort.objects.get().settled_at is None


def test_abort_of_ended_run_returns_409_and_sends_nothing(
    live: Live, manager_api_client: httpx.Client, run: Run
) -> None:
    advance_time(live, 3600)
    ended_run = read(live, run)
    answer = abort(manager_api_client, run)
    assert error_status_and_code(answer) == (409, "not_in_flight")
    assert answer.json()["run"]["status"] == ended_run.status
    assert not Abort.objects.exists()


@pytest.mark.parametrize(
    ("projects", "message"),
    [
        ([], "Removed from Northflank and from the list; its end is unknown. Restore the run to"),
        (
            ["payments"],
            "This dashboard no longer follows project “shop” (NORTHFLANK_PROJECTS).",
        ),
    ],
)
def test_abort_of_run_with_unknown_end_returns_409_of_its_own(
    projects: list[str], message: str, manager: User, settings: Settings
) -> None:
    run = factories.run(factories.stage(), "r-1", removed_at=timezone.now())
    dismissals.dismiss(run, manager)
    settings.NORTHFLANK_PROJECTS = projects
    headers = {"Authorization": f"Bearer {create_token_secret(manager)}"}
    answer = Client().post(
        "/api/runs/r-1/abort/", "{}", content_type="application/json", headers=headers
    )
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (409, "end_unknown")
    assert body["error"]["message"].startswith(f"Nothing was sent. {message}")
    assert (body["run"]["concluded"], body["run"]["in_flight"]) == (False, False)
    assert not Abort.objects.exists()


# --- trying again ------------------------------------------------------------------------------


@pytest.fixture
def run_with_overdue_abort(live: Live, manager_api_client: httpx.Client) -> Run:
    """A run whose abort was accepted long ago, without effect."""
    run = create_run_in_flight(live, SEARCH, condition=lambda chance: chance < 1 / 3)
    advance_time(live, 60)
    success_json(abort(manager_api_client, run))
    backdate_abort(Abort.objects.get(), requested_at=3600)
    return run


def test_overdue_abort_with_again_is_followed_by_another(
    live: Live, manager_api_client: httpx.Client, run_with_overdue_abort: Run
) -> None:
    first = Abort.objects.get()
    body = success_json(abort(manager_api_client, run_with_overdue_abort, again=True))
    assert body["joined"] is False
    assert Abort.objects.get(pk=body["abort"]["id"]).again_of == first
    assert live.sandbox.abort_request_counts == {run_with_overdue_abort.run_id: 2}


# --- what is sent ------------------------------------------------------------------------------


def post(
    client: httpx.Client, run: Run, body: bytes, content_type: str = "application/json"
) -> httpx.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    return client.post(f"/api/runs/{run.run_id}/abort/", content=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_json"),
        (b'{"reason"', 400, "bad_json"),
        (b"\xff\xfe", 400, "bad_json"),
        (b'{"reason": "\xff"}', 400, "bad_json"),
        (b'{"reason": "\\ud800"}', 400, "bad_json"),
        (b'{"reason": "\\ud800 and more"}', 400, "bad_json"),
        (b'{"reason": "x"} {}', 400, "bad_json"),
        (b"[" * 16_000, 422, "bad_field"),
        (b'{"again": ' + b"[" * 16_000, 422, "bad_field"),
        (b"[]", 422, "bad_field"),
        (b"null", 422, "bad_field"),
        (b'{"reason": null}', 422, "bad_field"),
        (b'{"reason": 1}', 422, "bad_field"),
        (b'{"again": "yes"}', 422, "bad_field"),
        (b'{"resaon": "x"}', 422, "bad_field"),
    ],
)
def test_abort_with_invalid_body_is_rejected(
    live: Live, manager_api_client: httpx.Client, run: Run, body: bytes, status: int, code: str
) -> None:
    assert error_status_and_code(post(manager_api_client, run, body)) == (status, code)
    assert not Abort.objects.exists()
    assert live.sandbox.abort_request_counts[run.run_id] == 0


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_abort_with_other_content_type_returns_415(
    manager_api_client: httpx.Client, run: Run, kind: str
) -> None:
    assert error_status_and_code(post(manager_api_client, run, b'{"reason": "x"}', kind)) == (
        415,
        "not_json",
    )
    assert not Abort.objects.exists()


def test_abort_with_huge_body_returns_413(manager_api_client: httpx.Client, run: Run) -> None:
    assert post(manager_api_client, run, b"x" * 3_000_000).status_code == 413


def test_abort_in_production_without_reason_returns_422(
    live: Live, manager_api_client: httpx.Client
) -> None:
    run = create_run_in_flight(live, SEARCH)
    answer = abort(manager_api_client, run, "  \n\0")
    assert error_status_and_code(answer) == (422, "reason_missing")
    assert "Production" in answer.json()["error"]["message"]
    assert not Abort.objects.exists()


def test_abort_of_ambiguous_run_id_needs_stage_parameters(
    live: Live, manager_api_client: httpx.Client, run: Run
) -> None:
    other = create_run_in_flight(live, SEARCH)
    Run.objects.filter(pk=other.pk).update(run_id=run.run_id)
    assert error_status_and_code(abort(manager_api_client, run)) == (409, "ambiguous_run")
    query = "?project={}&pipeline={}&stage={}".format(*LEDGER)
    answer = manager_api_client.post(
        f"/api/runs/{run.run_id}/abort/{query}", json={"reason": "Stuck"}
    )
    assert success_json(answer)["run"]["project"] == "payments"


def test_abort_with_misspelled_parameter_returns_400(
    manager_api_client: httpx.Client, run: Run
) -> None:
    answer = manager_api_client.post(
        f"/api/runs/{run.run_id}/abort/?projet=shop", json={"reason": "Stuck"}
    )
    assert error_status_and_code(answer) == (400, "bad_parameter")
    assert not Abort.objects.exists()
