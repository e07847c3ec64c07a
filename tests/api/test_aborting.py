"""Machines that abort: the same use case as on pages, answered once Northflank has answered."""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.models import Abort, ApiToken, Run
from dashboard.sandbox import parse_fault
from tests.support.api import Machine, abort, failed, secret_of
from tests.support.flights import (
    LEDGER,
    SEARCH,
    eventually,
    impatient,
    in_flight,
    long_ago,
    pass_time,
    press,
    read,
)
from tests.support.live import Live


@pytest.fixture
def run(live: Live) -> Run:
    return in_flight(live)


@pytest.fixture
def pager(machine: Machine, manager: User) -> httpx.Client:
    return machine(manager)


def told(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


def test_an_abort_is_answered_with_what_northflank_said(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    said = told(abort(pager, run, "  Stuck on\nmigrate "))
    assert said["joined"] is False
    assert (said["abort"]["state"], said["abort"]["answer_status"]) == ("accepted", 200)
    assert said["abort"]["reason"] == "Stuck on migrate"
    assert (said["run"]["status"], said["run"]["concluded"]) == ("aborting", False)
    assert live.sandbox.abort_posts == {run.run_id: 1}


def test_the_audit_tells_by_which_way_it_came(pager: httpx.Client, run: Run) -> None:
    abort(pager, run)
    act = Abort.objects.get()
    assert (act.via, act.token_name, act.username) == ("api", "PagerDuty", "manager")
    assert act.client_address == "127.0.0.1"
    assert [event.what for event in act.events.all()][:2] == ["requested", "sent"]


def test_the_answer_comes_when_northflanks_has(live: Live, pager: httpx.Client, run: Run) -> None:
    live.sandbox.faults = [parse_fault("latency:0.5@/abort")]
    with ThreadPoolExecutor(1) as hands:
        pressed = hands.submit(abort, pager, run)
        eventually(Abort.objects.filter(sent_at__isnull=False).exists)
        assert not pressed.done()
        assert told(pressed.result())["abort"]["state"] == "accepted"


def test_a_request_that_waits_counts_once(pager: httpx.Client, run: Run, settings: Any) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    told(abort(pager, run))
    assert ApiToken.objects.get().window_used == 1


def test_a_repeat_joins(live: Live, pager: httpx.Client, run: Run) -> None:
    first, second = told(abort(pager, run)), told(abort(pager, run, "again"))
    assert (first["joined"], second["joined"]) == (False, True)
    assert first["abort"]["id"] == second["abort"]["id"]
    assert live.sandbox.abort_posts == {run.run_id: 1}


def test_a_press_on_the_page_is_joined(live: Live, pager: httpx.Client, run: Run) -> None:
    press(live.person("manager"), run)
    said = told(abort(pager, run))
    assert (said["joined"], said["abort"]["via"]) == (True, "page")


def test_twenty_posts_at_once_send_one_request(
    live: Live, machine: Machine, manager: User, run: Run
) -> None:
    boss = User.objects.create_superuser("boss")
    live.sandbox.faults = [parse_fault("latency:0.3@/abort")]
    machines = [machine(manager), machine(boss, name="Runbook")]
    with ThreadPoolExecutor(20) as hands:
        answers = list(hands.map(lambda n: told(abort(machines[n % 2], run)), range(20)))
    assert {answer["abort"]["state"] for answer in answers} == {"accepted"}
    assert sorted(answer["joined"] for answer in answers) == [False] + [True] * 19
    assert Abort.objects.count() == 1
    assert live.sandbox.abort_posts == {run.run_id: 1}


def test_a_caller_that_leaves_does_not_take_the_abort_with_it(
    live: Live, manager: User, run: Run
) -> None:
    live.sandbox.faults = [parse_fault("latency:0.5@/abort")]
    host, port = live.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(
            f"POST /api/runs/{run.run_id}/abort/ HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Authorization: Bearer {secret_of(manager)}\r\nContent-Type: application/json\r\n"
            "Content-Length: 2\r\n\r\n{}".encode()
        )
        eventually(Abort.objects.exists)
    eventually(Abort.objects.filter(state="accepted").exists)
    assert live.sandbox.abort_posts == {run.run_id: 1}


# --- what Northflank answers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "code", "state"),
    [
        ("forbidden:payments@/abort", 502, "refused", "refused"),
        ("error-string:409@/abort", 502, "refused", "refused"),
        ("rate-limited@/abort", 503, "not_sent", "not_sent"),
        ("500@/abort", 504, "no_answer", "unknown"),
    ],
)
def test_an_abort_that_failed_is_no_2xx(
    live: Live, pager: httpx.Client, run: Run, fault: str, status: int, code: str, state: str
) -> None:
    live.sandbox.faults = [parse_fault(fault)]
    answer = abort(pager, run)
    assert failed(answer) == (status, code)
    said = answer.json()
    assert (said["abort"]["state"], said["joined"]) == (state, False)
    assert said["error"]["message"] == said["abort"]["sentence"]
    assert said["run"]["run_id"] == run.run_id


def test_it_is_said_when_the_next_abort_can_be_sent(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    live.sandbox.faults = [parse_fault("rate-limited@/abort")]
    answer = abort(pager, run)
    act = Abort.objects.get()
    assert act.retry_at is not None
    assert act.answered_at is not None
    seconds = (act.retry_at - act.answered_at).total_seconds()
    assert 0 < seconds - 5 <= int(answer.headers["retry-after"]) <= seconds + 1


def test_where_nobody_knows_it_is_soon(live: Live, pager: httpx.Client, run: Run) -> None:
    from dashboard.northflank import NorthflankClient
    from tests.support.flights import ask_with

    ask_with(live, NorthflankClient("sandbox", base_url="http://127.0.0.1:9"))
    answer = abort(pager, run)
    assert failed(answer) == (503, "not_sent")
    assert answer.headers["retry-after"] == "10"


def test_an_abort_that_is_not_answered_in_time_is_in_doubt(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    impatient(live)
    live.sandbox.faults = [parse_fault("abort-lost:2")]
    assert failed(abort(pager, run)) == (504, "no_answer")
    assert Abort.objects.get().settled_at is None


def test_after_a_failure_the_next_request_is_a_new_abort(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    live.sandbox.faults = [parse_fault("error-string:409*1@/abort")]
    assert abort(pager, run).status_code == 502
    assert told(abort(pager, run))["joined"] is False


def test_a_run_that_had_ended_meanwhile_is_no_failure(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    pass_time(live, 3600)
    said = told(abort(pager, run))
    assert said["abort"]["state"] == "too_late"
    assert said["abort"]["outcome"] == said["run"]["status"]
    assert said["run"]["concluded"] is True


def test_an_answer_that_shows_the_end_is_told_as_the_end(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    live.sandbox.choices["abort-answer"] = "aborted"
    said = told(abort(pager, run))["abort"]
    assert (said["state"], said["outcome"]) == ("concluded", "aborted")


def test_a_run_that_is_known_to_have_ended_is_told_and_nothing_is_sent(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    pass_time(live, 3600)
    ended = read(live, run)
    answer = abort(pager, run)
    assert failed(answer) == (409, "not_in_flight")
    assert answer.json()["run"]["status"] == ended.status
    assert not Abort.objects.exists()


# --- trying again ------------------------------------------------------------------------------


@pytest.fixture
def overdue(live: Live, pager: httpx.Client) -> Run:
    """A run whose abort was accepted and has come to nothing for a long time."""
    run = in_flight(live, SEARCH, wanted=lambda chance: chance < 1 / 3)
    pass_time(live, 60)
    told(abort(pager, run))
    long_ago(Abort.objects.get(), requested_at=3600)
    return run


def test_an_overdue_abort_is_tried_again_where_it_is_asked_for(
    live: Live, pager: httpx.Client, overdue: Run
) -> None:
    first = Abort.objects.get()
    said = told(abort(pager, overdue, again=True))
    assert said["joined"] is False
    assert Abort.objects.get(pk=said["abort"]["id"]).retry_of == first
    assert live.sandbox.abort_posts == {overdue.run_id: 2}


def test_an_overdue_abort_is_joined_where_it_is_not(
    live: Live, pager: httpx.Client, overdue: Run
) -> None:
    assert told(abort(pager, overdue))["joined"] is True
    assert live.sandbox.abort_posts == {overdue.run_id: 1}


def test_an_abort_of_a_moment_ago_is_not_tried_again(
    live: Live, pager: httpx.Client, run: Run
) -> None:
    told(abort(pager, run))
    assert told(abort(pager, run, again=True))["joined"] is True
    assert live.sandbox.abort_posts == {run.run_id: 1}


# --- what is sent ------------------------------------------------------------------------------


def post(by: httpx.Client, run: Run, body: bytes, kind: str = "application/json") -> httpx.Response:
    headers = {"Content-Type": kind} if kind else {}
    return by.post(f"/api/runs/{run.run_id}/abort/", content=body, headers=headers)


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
        (b'{"reason": "' + b"x" * 17_000 + b'"}', 413, "too_large"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_done(
    live: Live, pager: httpx.Client, run: Run, body: bytes, status: int, code: str
) -> None:
    assert failed(post(pager, run, body)) == (status, code)
    assert not Abort.objects.exists()
    assert live.sandbox.abort_posts[run.run_id] == 0


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_what_is_not_called_json_is_refused(pager: httpx.Client, run: Run, kind: str) -> None:
    assert failed(post(pager, run, b'{"reason": "x"}', kind)) == (415, "not_json")
    assert not Abort.objects.exists()


def test_a_charset_may_be_named(pager: httpx.Client, run: Run) -> None:
    said = told(post(pager, run, b"{}", "application/json; charset=utf-8"))
    assert said["abort"]["state"] == "accepted"


def test_a_body_beyond_all_measure_is_refused_before_it_is_read(
    pager: httpx.Client, run: Run
) -> None:
    assert post(pager, run, b"x" * 3_000_000).status_code == 413


def test_a_reason_is_required_where_one_is_on_the_page(live: Live, pager: httpx.Client) -> None:
    run = in_flight(live, SEARCH)
    answer = abort(pager, run, "  \n\0")
    assert failed(answer) == (422, "reason_missing")
    assert "Production" in answer.json()["error"]["message"]
    assert not Abort.objects.exists()


def test_elsewhere_it_may_be_left_out(pager: httpx.Client, run: Run) -> None:
    assert told(post(pager, run, b"{}"))["abort"]["reason"] == ""


def test_a_place_chooses_among_runs_of_one_id(live: Live, pager: httpx.Client, run: Run) -> None:
    other = in_flight(live, SEARCH)
    Run.objects.filter(pk=other.pk).update(run_id=run.run_id)
    assert failed(abort(pager, run)) == (409, "ambiguous_run")
    place = "?project={}&pipeline={}&stage={}".format(*LEDGER)
    answer = pager.post(f"/api/runs/{run.run_id}/abort/{place}", json={"reason": "Stuck"})
    assert told(answer)["run"]["project"] == "payments"


def test_a_misspelt_place_aborts_nothing(pager: httpx.Client, run: Run) -> None:
    answer = pager.post(f"/api/runs/{run.run_id}/abort/?projet=shop", json={"reason": "Stuck"})
    assert failed(answer) == (400, "bad_parameter")
    assert not Abort.objects.exists()


def test_an_unknown_run_is_not_found(pager: httpx.Client, run: Run) -> None:
    assert failed(abort(pager, "r-9")) == (404, "unknown_run")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_nothing_but_a_post_aborts(live: Live, pager: httpx.Client, run: Run, method: str) -> None:
    address = f"/api/runs/{run.run_id}/abort/"
    assert pager.request(method, address).status_code == 405
    assert live.sandbox.abort_posts[run.run_id] == 0
