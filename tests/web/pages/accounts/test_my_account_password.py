"""Change one's own password: in the password queue, throttled, and ending all other sessions."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from dashboard.accounts.authentication import password_queue, throttle
from dashboard.models import AccessEvent, Session
from dashboard.models.accounts.access import AccessKind
from tests.support import counting_hasher
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.live_runs import wait_until
from tests.support.sign_in import SignInBrowser

NEW = "correct horse battery staple"
type OpenBrowser = Callable[[], SignInBrowser]


@pytest.fixture
def open_browser(live: Live, viewer: User) -> Iterator[OpenBrowser]:
    """Return a function that opens a browser in which the viewer has signed in."""

    with ExitStack() as stack:

        def open_() -> SignInBrowser:
            browser = stack.enter_context(SignInBrowser(live, "192.0.2.1"))
            assert browser.submit("viewer", "viewer").status_code == 302
            return browser

        yield open_


def submit(
    browser: SignInBrowser, old: str = "viewer", new: str = NEW, again: str | None = None
) -> httpx.Response:
    form = {
        "old_password": old,
        "new_password1": new,
        "new_password2": new if again is None else again,
        "csrfmiddlewaretoken": browser.cookies["csrftoken"],
    }
    return browser.post("/account/", data=form)


def error_of(answer: httpx.Response) -> str:
    return text_of(select_one(parse_html(answer), 'main [role="alert"]'))


def recorded(kind: AccessKind) -> list[tuple[str, str | None, str]]:
    events = AccessEvent.objects.filter(kind=kind)
    return list(events.values_list("username", "client_address", "detail"))


def test_new_password_ends_all_other_sessions(open_browser: OpenBrowser, viewer: User) -> None:
    here, *others = open_browser(), open_browser(), open_browser()
    key = here.cookies["sessionid"]
    answer = submit(here)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account/")
    page = here.get("/account/")
    assert "Password changed. Your other sessions have ended." in page.text
    assert [browser.get("/").status_code for browser in others] == [302, 302]
    assert here.cookies["sessionid"] != key  # a copy of the cookie is of no use
    assert Session.objects.count() == 1
    viewer.refresh_from_db()
    assert viewer.check_password(NEW)
    assert recorded(AccessKind.PASSWORD_CHANGED) == [
        ("viewer", "192.0.2.1", "On My account. Other sessions ended: 2.")
    ]


def test_wrong_password_is_refused_and_recorded(open_browser: OpenBrowser, viewer: User) -> None:
    here, other = open_browser(), open_browser()
    answer = submit(here, "wrong")
    assert (answer.status_code, error_of(answer)) == (200, "Wrong password.")
    assert NEW not in answer.text
    assert other.get("/").status_code == 200
    viewer.refresh_from_db()
    assert viewer.check_password("viewer")
    assert recorded(AccessKind.PASSWORD_REFUSED) == [("viewer", "192.0.2.1", "Wrong password.")]


@pytest.mark.parametrize(
    ("new", "again", "error"),
    [
        (NEW, "other", "The two new passwords differ."),
        ("12345678", None, "too common"),
        ("viewer12", None, "too similar"),
        ("short", None, "too short"),
    ],
)
def test_unsuitable_password_is_refused_before_the_queue(
    new: str, again: str | None, error: str, open_browser: OpenBrowser, settings: Settings
) -> None:
    here = open_browser()
    settings.PASSWORD_HASHERS = ["tests.support.counting_hasher.CountingHasher"]
    hashed = len(counting_hasher.hashed)
    assert error in error_of(submit(here, new=new, again=again))
    assert len(counting_hasher.hashed) == hashed
    assert not recorded(AccessKind.PASSWORD_CHANGED)


def test_guesses_in_a_stolen_session_are_throttled(open_browser: OpenBrowser) -> None:
    here = open_browser()
    for number in range(throttle.ACCOUNT_AT_ADDRESS.burst):
        assert submit(here, f"wrong-{number}").status_code == 200
    answer = submit(here)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert error_of(answer).startswith("Too many attempts. Try again in ")


def test_session_that_ends_during_the_check_keeps_the_password(
    open_browser: OpenBrowser, viewer: User
) -> None:
    here = open_browser()
    released = threading.Event()
    password_queue.queue.executor.submit(released.wait, 60)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(submit, here)
        wait_until(lambda: password_queue.queue.executor._work_queue.qsize() == 1)
        Session.objects.all().delete()
        released.set()
        assert waiting.result().status_code == 303
    assert here.get("/account/").status_code == 302
    viewer.refresh_from_db()
    assert viewer.check_password("viewer")
    assert not recorded(AccessKind.PASSWORD_CHANGED)


def test_password_that_cannot_be_used_is_not_changed(
    viewer_client: Client, settings: Settings
) -> None:
    def reason() -> str:
        page = parse_html(viewer_client.get("/account/"))
        assert bool(page.css("input[type=password]")) != bool(page.css("[data-reason]"))
        return "".join(text_of(element) for element in page.css("[data-reason]"))

    assert reason() == ""
    settings.PASSWORD_SIGN_IN = False
    assert reason() == "Password sign-in is disabled."
    assert viewer_client.post("/account/", {"old_password": "viewer"}).status_code == 403
    settings.BREAK_GLASS_ACCOUNT = "viewer"
    assert reason() == ""
