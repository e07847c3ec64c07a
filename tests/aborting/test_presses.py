"""Who presses, how often, and who may: at most one request goes out, and all are told the truth."""

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
from tests.support.flights import eventually, in_flight, notice, pass_time, path, press, read, story
from tests.support.live import Live, token


@pytest.fixture
def colleague(manager: User) -> User:
    user = User.objects.create_user("colleague", password="colleague")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return user


def test_a_second_press_joins_the_first(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    first, second = notice(press(person, run)), notice(press(person, run))
    assert first == second
    assert Abort.objects.count() == 1
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_a_colleagues_press_is_told_whose_abort_it_is(live: Live, colleague: User) -> None:
    run = in_flight(live)
    press(live.person("manager"), run)
    said = notice(press(live.person("colleague"), run))
    assert said == f"{story()} It was requested by manager."
    assert live.sandbox.abort_posts[run.run_id] == 1


def trail(of: Abort) -> list[str]:
    return [line.text for line in abort_timeline.lines(of, of.events.all())]


def test_a_press_that_joins_is_kept_with_who_from_where_and_why(
    live: Live, colleague: User
) -> None:
    run = in_flight(live)
    press(live.person("manager"), run)
    press(live.person("colleague"), run, reason="It blocks us")
    said = "Pressed meanwhile by colleague (127.0.0.1): “It blocks us”."
    assert said in trail(Abort.objects.get())


def test_pressing_twice_for_the_same_reason_is_kept_once(live: Live, colleague: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    for _ in range(3):
        press(person, run)
    assert Abort.objects.get().events.filter(what="joined").count() == 1


def test_whoever_is_gone_when_the_press_arrives_ends_in_no_circle(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    gone = User.objects.create_superuser("gone")
    pressed = aborts.Press(gone, "Stuck")
    User.objects.filter(pk=gone.pk).delete()
    with pytest.raises(IntegrityError):
        aborts.request(run, pressed)
    assert not Abort.objects.exists()


def test_who_may_not_is_logged(live: Live, viewer: User) -> None:
    run = in_flight(live)
    with capture_logs() as logs:
        assert press(live.person("viewer"), run).status_code == 403
    [said] = [line for line in logs if line["event"] == "abort.not_allowed"]
    assert (said["by"], said["run"], said["via"]) == ("viewer", run.run_id, "page")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("zero \u202eltr\u202c end", "zero ltr end"),
        ("red \x1b[31m", "red [31m"),
        ("a\u2066b\u2069c", "a b c"),
        ("family 👩‍👧 and עברית", "family 👩‍👧 and עברית"),
    ],
)
def test_a_reason_reads_as_it_was_written(live: Live, manager: User, typed: str, kept: str) -> None:
    run = in_flight(live)
    press(live.person("manager"), run, reason=typed)
    assert Abort.objects.get().reason == kept


def test_a_colleague_who_presses_meanwhile_waits_for_the_same_answer(
    live: Live, colleague: User
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("latency:0.6@/abort")]
    one, other = live.person("manager"), live.person("colleague")
    with ThreadPoolExecutor(2) as hands:
        first = hands.submit(press, one, run)
        eventually(Abort.objects.exists)
        second = hands.submit(press, other, run)
        assert "accepted" in notice(first.result())
        assert "It was requested by manager." in notice(second.result())
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_fifty_people_at_once_send_one_request_and_are_told_the_truth(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    live.sandbox.faults = [parse_fault("latency:1@/abort")]
    names = [f"person-{number}" for number in range(50)]
    for name in names:
        User.objects.create_user(name, password=name).groups.set(manager.groups.all())
    people = [live.person(name) for name in names]
    with ThreadPoolExecutor(50) as hands:
        told = dict(zip(names, hands.map(lambda one: notice(press(one, run)), people), strict=True))
    author = Abort.objects.get().username
    assert told.pop(author) == story()
    assert set(told.values()) == {f"{story()} It was requested by {author}."}
    assert len(told) == 49
    assert "accepted" in story()
    assert live.sandbox.abort_posts == {run.run_id: 1}


def test_a_press_in_another_process_waits_for_the_first_ones_answer(
    live: Live, colleague: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = in_flight(live)
    looks: list[Any] = []

    async def look(*asked: Any) -> Any:
        looks.append(asked)
        return await db_threads.in_database(*asked)

    monkeypatch.setattr(abort_send, "in_database", look)
    # As another process leaves it while it sends.
    abort = Abort.objects.create(
        run=run, user=colleague, username="colleague",
        requested_at=run.seen_at, claimed_at=run.seen_at, sent_at=run.seen_at,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as hands:
        pressed = hands.submit(press, live.person("manager"), run)
        eventually(lambda: len(looks) >= 3)
        assert not pressed.done()
        Abort.objects.filter(pk=abort.pk).update(state="accepted", answered_at=run.seen_at)
        assert notice(pressed.result()) == f"{story()} It was requested by colleague."
    assert "accepted" in story()
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_a_run_known_to_have_concluded_is_not_aborted(live: Live, manager: User) -> None:
    run = in_flight(live)
    pass_time(live, 3600)
    read(live, run)
    said = notice(press(live.person("manager"), run))
    assert said == "The run had already ended; nothing was sent."
    assert not Abort.objects.exists()
    assert live.sandbox.abort_posts[run.run_id] == 0


@pytest.mark.parametrize("htmx", [True, False])
def test_a_viewer_may_not(live: Live, viewer: User, htmx: bool) -> None:
    run = in_flight(live)
    answer = press(live.person("viewer"), run, htmx=htmx)
    assert answer.status_code == 403
    assert permissions.RELEASE_MANAGERS in answer.text
    assert not Abort.objects.exists()
    assert live.sandbox.abort_posts[run.run_id] == 0


@pytest.mark.parametrize(
    ("switch", "value", "why"),
    [("READ_ONLY", True, "read-only"), ("ABORTS_ENABLED", False, "Aborting is switched off")],
)
def test_a_switch_stops_even_those_who_may(
    live: Live, manager: User, settings: Any, switch: str, value: bool, why: str
) -> None:
    run = in_flight(live)
    setattr(settings, switch, value)
    answer = press(live.person("manager"), run)
    assert answer.status_code == 403
    assert why in answer.text
    assert not Abort.objects.exists()


def test_whoever_is_signed_out_is_sent_to_sign_in(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    person.cookies.delete("sessionid")
    assert press(person, run, htmx=True).status_code == 401
    assert press(person, run, htmx=False).headers["location"].startswith("/accounts/login/?next=")
    assert not Abort.objects.exists()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_never_acts(live: Live, manager: User, method: str) -> None:
    run = in_flight(live)
    person = live.person("manager")
    person.request(method, path(run))
    person.request(method, path(run), headers={"HX-Request": "true"})
    assert not Abort.objects.exists()
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_a_get_asks_before_anything_is_done(live: Live, manager: User) -> None:
    run = in_flight(live)
    answer = live.person("manager").get(path(run))
    assert answer.status_code == 200
    assert 'method="post"' in answer.text


@pytest.mark.parametrize("sent", ["", "x" * 64])
def test_a_post_without_the_sessions_token_is_refused(live: Live, manager: User, sent: str) -> None:
    run = in_flight(live)
    answer = live.person("manager").post(path(run), data={"csrfmiddlewaretoken": sent})
    assert answer.status_code == 403
    assert not Abort.objects.exists()


def test_an_unknown_run_is_not_found(live: Live, manager: User) -> None:
    run = in_flight(live)
    Run.objects.update(run_id="other")
    assert press(live.person("manager"), run).status_code == 404


def test_without_scripts_the_answer_is_a_redirect_to_the_run(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    answer = press(person, run, htmx=False)
    assert answer.status_code == 302
    assert answer.headers["location"] == path(run).removesuffix("abort/")
    page = person.get(answer.headers["location"]).text
    assert "Northflank accepted the abort" in page


def test_a_browser_that_leaves_does_not_take_the_abort_with_it(live: Live, manager: User) -> None:
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
        eventually(Abort.objects.exists)
    eventually(Abort.objects.filter(state="accepted").exists)
    assert live.sandbox.abort_posts[run.run_id] == 1
