"""Concurrent and denied abort requests: at most one is sent, and all users get its true state."""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError
from structlog.testing import capture_logs

from dashboard import aborts
from dashboard.aborts import send as abort_send
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts import permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from dashboard.sandbox import parse_fault
from tests.support.live import Live, token
from tests.support.live_runs import (
    advance_time,
    in_flight,
    notice,
    path,
    press,
    read,
    story,
    wait_until,
)


@pytest.fixture
def colleague(manager: User) -> User:
    user = User.objects.create_user("colleague", password="colleague")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return user


def test_second_abort_request_joins_first(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    first, second = notice(press(person, run)), notice(press(person, run))
    assert first == second
    assert Abort.objects.count() == 1
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_joined_abort_request_names_first_requester(live: Live, colleague: User) -> None:
    run = in_flight(live)
    press(live.person("manager"), run)
    message = notice(press(live.person("colleague"), run))
    assert message == f"{story()} Abort requested by manager."
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def timeline_texts(of: Abort) -> list[str]:
    return [line.text for line in abort_timeline.entries(of, of.events.all())]


def test_joined_abort_request_is_in_timeline_with_user_address_and_reason(
    live: Live, colleague: User
) -> None:
    run = in_flight(live)
    press(live.person("manager"), run)
    press(live.person("colleague"), run, reason="It blocks us")
    message = "Also requested by colleague (127.0.0.1): “It blocks us”."
    assert message in timeline_texts(Abort.objects.get())


def test_repeated_abort_request_with_same_reason_is_in_timeline_once(
    live: Live, colleague: User
) -> None:
    run = in_flight(live)
    person = live.person("manager")
    for _ in range(3):
        press(person, run)
    assert Abort.objects.get().events.filter(event_type="joined").count() == 1


def test_abort_request_by_deleted_account_raises_integrity_error(live: Live, manager: User) -> None:
    run = in_flight(live)
    gone = User.objects.create_superuser("gone")
    pressed = aborts.AbortRequest(gone, "Stuck")
    User.objects.filter(pk=gone.pk).delete()
    with pytest.raises(IntegrityError):
        aborts.request_abort(run, pressed)
    assert not Abort.objects.exists()


def test_denied_abort_request_is_logged(live: Live, viewer: User) -> None:
    run = in_flight(live)
    with capture_logs() as logs:
        assert press(live.person("viewer"), run).status_code == 403
    [message] = [line for line in logs if line["event"] == "abort.denied"]
    assert (message["by"], message["run"], message["via"]) == ("viewer", run.run_id, "page")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("zero \u202eltr\u202c end", "zero ltr end"),
        ("red \x1b[31m", "red [31m"),
        ("a\u2066b\u2069c", "a b c"),
        ("family 👩‍👧 and עברית", "family 👩‍👧 and עברית"),
    ],
)
def test_reason_is_stored_without_control_characters(
    live: Live, manager: User, typed: str, kept: str
) -> None:
    run = in_flight(live)
    press(live.person("manager"), run, reason=typed)
    assert Abort.objects.get().reason == kept


def test_concurrent_abort_request_waits_for_same_answer(live: Live, colleague: User) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("latency:0.6@/abort")]
    one, other = live.person("manager"), live.person("colleague")
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(press, one, run)
        wait_until(Abort.objects.exists)
        second = executor.submit(press, other, run)
        assert "accepted" in notice(first.result())
        assert "Abort requested by manager." in notice(second.result())
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_fifty_concurrent_abort_requests_send_one_abort_and_show_its_state(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("latency:1@/abort")]
    names = [f"person-{number}" for number in range(50)]
    for name in names:
        User.objects.create_user(name, password=name).groups.set(manager.groups.all())
    people = [live.person(name) for name in names]
    with ThreadPoolExecutor(50) as executor:
        messages = dict(
            zip(names, executor.map(lambda one: notice(press(one, run)), people), strict=True)
        )
    author = Abort.objects.get().username
    assert messages.pop(author) == story()
    assert set(messages.values()) == {f"{story()} Abort requested by {author}."}
    assert len(messages) == 49
    assert "accepted" in story()
    assert live.sandbox.abort_request_counts == {run.run_id: 1}


def test_abort_request_waits_for_answer_to_another_process(
    live: Live, colleague: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = in_flight(live)
    calls: list[Any] = []

    async def record_call(*args: Any) -> Any:
        calls.append(args)
        return await db_threads.run_in_db_thread(*args)

    monkeypatch.setattr(abort_send, "run_in_db_thread", record_call)
    # As another process leaves it while it sends.
    abort = Abort.objects.create(
        run=run, user=colleague, username="colleague",
        requested_at=run.synced_at, claimed_at=run.synced_at, sent_at=run.synced_at,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        pressed = executor.submit(press, live.person("manager"), run)
        wait_until(lambda: len(calls) >= 3)
        assert not pressed.done()
        Abort.objects.filter(pk=abort.pk).update(state="accepted", answered_at=run.synced_at)
        assert notice(pressed.result()) == f"{story()} Abort requested by colleague."
    assert "accepted" in story()
    assert live.sandbox.abort_request_counts[run.run_id] == 0


def test_abort_request_for_concluded_run_sends_nothing(live: Live, manager: User) -> None:
    run = in_flight(live)
    advance_time(live, 3600)
    read(live, run)
    message = notice(press(live.person("manager"), run))
    assert message == "The run had already ended; nothing was sent."
    assert not Abort.objects.exists()
    assert live.sandbox.abort_request_counts[run.run_id] == 0


@pytest.mark.parametrize("htmx", [True, False])
def test_abort_request_by_viewer_is_forbidden(live: Live, viewer: User, htmx: bool) -> None:
    run = in_flight(live)
    answer = press(live.person("viewer"), run, htmx=htmx)
    assert answer.status_code == 403
    assert permissions.RELEASE_MANAGERS in answer.text
    assert not Abort.objects.exists()
    assert live.sandbox.abort_request_counts[run.run_id] == 0


@pytest.mark.parametrize(
    ("switch", "value", "why"),
    [("READ_ONLY", True, "read-only"), ("ABORTS_ENABLED", False, "Aborts are disabled")],
)
def test_abort_request_is_forbidden_when_aborting_is_disabled(
    live: Live, manager: User, settings: Any, switch: str, value: bool, why: str
) -> None:
    run = in_flight(live)
    setattr(settings, switch, value)
    answer = press(live.person("manager"), run)
    assert answer.status_code == 403
    assert why in answer.text
    assert not Abort.objects.exists()


def test_abort_request_when_signed_out_leads_to_sign_in(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    person.cookies.delete("sessionid")
    assert press(person, run, htmx=True).status_code == 401
    assert press(person, run, htmx=False).headers["location"].startswith("/accounts/login/?next=")
    assert not Abort.objects.exists()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_abort_page_get_or_head_sends_nothing(live: Live, manager: User, method: str) -> None:
    run = in_flight(live)
    person = live.person("manager")
    person.request(method, path(run))
    person.request(method, path(run), headers={"HX-Request": "true"})
    assert not Abort.objects.exists()
    assert live.sandbox.abort_request_counts[run.run_id] == 0


def test_abort_page_get_shows_confirmation_form(live: Live, manager: User) -> None:
    run = in_flight(live)
    answer = live.person("manager").get(path(run))
    assert answer.status_code == 200
    assert 'method="post"' in answer.text


@pytest.mark.parametrize("sent", ["", "x" * 64])
def test_abort_request_without_csrf_token_is_forbidden(
    live: Live, manager: User, sent: str
) -> None:
    run = in_flight(live)
    answer = live.person("manager").post(path(run), data={"csrfmiddlewaretoken": sent})
    assert answer.status_code == 403
    assert not Abort.objects.exists()


def test_abort_request_for_unknown_run_is_not_found(live: Live, manager: User) -> None:
    run = in_flight(live)
    Run.objects.update(run_id="other")
    assert press(live.person("manager"), run).status_code == 404


def test_abort_request_without_htmx_redirects_to_run(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    answer = press(person, run, htmx=False)
    assert answer.status_code == 302
    assert answer.headers["location"] == path(run).removesuffix("abort/")
    page = person.get(answer.headers["location"]).text
    assert "Northflank accepted the abort" in page


def test_abort_request_whose_client_disconnects_is_still_sent(live: Live, manager: User) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("latency:0.5@/abort")]
    person = live.person("manager")
    body = f"csrfmiddlewaretoken={token(person)}"
    cookies = "; ".join(f"{name}={value}" for name, value in person.cookies.items())
    host, port = live.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as browser:
        browser.sendall(
            f"POST {path(run)} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookies}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_until(Abort.objects.exists)
    wait_until(Abort.objects.filter(state="accepted").exists)
    assert live.sandbox.abort_request_counts[run.run_id] == 1
