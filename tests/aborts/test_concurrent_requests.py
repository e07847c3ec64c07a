"""Concurrent and denied abort requests: at most one is sent, and all users get its true state."""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError

from dashboard.aborts import send as abort_send
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort
from dashboard.sandbox import parse_fault
from tests.support.live import Live, token
from tests.support.live_runs import (
    abort_message,
    abort_path,
    create_run_in_flight,
    notice_text,
    submit_abort,
    wait_until,
)


@pytest.fixture
def colleague(manager: User) -> User:
    user = User.objects.create_user("colleague", password="colleague")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return user


def test_second_abort_request_joins_first(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    first, second = notice_text(submit_abort(client, run)), notice_text(submit_abort(client, run))
    assert first == second
    assert Abort.objects.count() == 1
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_abort_request_by_deleted_account_raises_integrity_error(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    deleted_user = User.objects.create_superuser("gone")
    request = AbortRequest(deleted_user, "Stuck")
    User.objects.filter(pk=deleted_user.pk).delete()
    with pytest.raises(IntegrityError):
        request_abort(run, request)
    assert not Abort.objects.exists()


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("zero \u202eltr\u202c end", "zero ltr end"),
        ("red \x1b[31m", "red [31m"),
        ("a\u2066b\u2069c", "a b c"),
        ("family 👩‍👧 and עברית", "family 👩‍👧 and עברית"),
    ],
)
def test_reason_is_stored_without_control_characters(
    live: Live, manager: User, typed: str, stored: str
) -> None:
    run = create_run_in_flight(live)
    submit_abort(live.sign_in("manager"), run, reason=typed)
    assert Abort.objects.get().reason == stored


def test_concurrent_abort_request_waits_for_same_answer(live: Live, colleague: User) -> None:
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault("latency:0.6@/abort")]
    client, other_client = live.sign_in("manager"), live.sign_in("colleague")
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(submit_abort, client, run)
        wait_until(Abort.objects.exists)
        second = executor.submit(submit_abort, other_client, run)
        assert "accepted" in notice_text(first.result())
        assert "Abort requested by manager." in notice_text(second.result())
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_abort_request_waits_for_answer_to_another_process(
    live: Live, colleague: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_in_flight(live)
    calls: list[Any] = []

    async def record_call(*args: Any) -> Any:
        calls.append(args)
        return await db_threads.run_in_db_thread(*args)

    monkeypatch.setattr(abort_send, "run_in_db_thread", record_call)
    # The state while another process sends it.
    abort = Abort.objects.create(
        run=run, user=colleague, username="colleague",
        requested_at=run.synced_at, claimed_at=run.synced_at, sent_at=run.synced_at,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        response = executor.submit(submit_abort, live.sign_in("manager"), run)
        wait_until(lambda: len(calls) >= 3)
        assert not response.done()
        Abort.objects.filter(pk=abort.pk).update(state="accepted", responded_at=run.synced_at)
        assert notice_text(response.result()) == f"{abort_message()} Abort requested by colleague."
    assert "accepted" in abort_message()
    assert live.sandbox.abort_request_counts[run.run_id] == 0


@pytest.mark.parametrize(
    ("switch", "value", "reason"),
    [("READ_ONLY", True, "read-only"), ("ABORTS_ENABLED", False, "Aborts are disabled")],
)
def test_abort_request_is_forbidden_when_aborting_is_disabled(
    live: Live, manager: User, settings: Any, switch: str, value: bool, reason: str
) -> None:
    run = create_run_in_flight(live)
    setattr(settings, switch, value)
    answer = submit_abort(live.sign_in("manager"), run)
    assert answer.status_code == 403
    assert reason in answer.text
    assert not Abort.objects.exists()


def test_abort_request_whose_client_disconnects_is_still_sent(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault("latency:0.5@/abort")]
    client = live.sign_in("manager")
    body = f"csrfmiddlewaretoken={token(client)}"
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    host, port = live.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as browser:
        browser.sendall(
            f"POST {abort_path(run)} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookies}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_until(Abort.objects.exists)
    wait_until(Abort.objects.filter(state="accepted").exists)
    assert live.sandbox.abort_request_counts[run.run_id] == 1
