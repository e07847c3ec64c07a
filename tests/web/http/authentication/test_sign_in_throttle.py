"""Sign-in is throttled by account and address; a known browser is not held up by either."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from dashboard.accounts.authentication import password_queue, throttle
from dashboard.models import AccessEvent, FailureCounter
from dashboard.models.accounts.access import AccessKind
from tests.support import counting_hasher
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.live_runs import wait_until
from tests.support.sign_in import SignInBrowser

OFFICE, ELSEWHERE = "192.0.2.1", "198.51.100.7"
type OpenBrowser = Callable[[str], SignInBrowser]


@pytest.fixture
def open_browser(live: Live) -> Iterator[OpenBrowser]:
    """Return a function that opens a new browser at an address."""
    with ExitStack() as stack:
        yield lambda address: stack.enter_context(SignInBrowser(live, address))


def error_of(answer: httpx.Response) -> str:
    return text_of(select_one(parse_html(answer), '[role="alert"]'))


def fail(browser: SignInBrowser, username: str, times: int) -> None:
    for number in range(times):
        assert browser.submit(username, f"wrong-{number}").status_code == 200


@pytest.mark.parametrize("username", ["viewer", "nobody-of-this-name"])
def test_account_is_throttled_after_failures_whether_it_exists_or_not(
    username: str, open_browser: OpenBrowser, viewer: User
) -> None:
    browser = open_browser(OFFICE)
    fail(browser, username, throttle.ACCOUNT.burst)
    answer = browser.submit(username, "viewer")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert error_of(answer).startswith("Too many attempts. Try again in ")
    assert "sessionid" not in browser.cookies


def test_account_is_throttled_at_all_addresses(open_browser: OpenBrowser, viewer: User) -> None:
    fail(open_browser(OFFICE), "viewer", throttle.ACCOUNT.burst)
    assert open_browser(ELSEWHERE).submit("viewer", "viewer").status_code == 429


def test_account_in_other_case_shares_its_throttle(open_browser: OpenBrowser, viewer: User) -> None:
    fail(open_browser(OFFICE), "VIEWER", throttle.ACCOUNT.burst)
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 429


def test_other_account_at_address_is_not_throttled(open_browser: OpenBrowser, viewer: User) -> None:
    browser = open_browser(OFFICE)
    fail(browser, "somebody", throttle.ACCOUNT.burst)
    assert browser.submit("viewer", "viewer").status_code == 302


@pytest.mark.slow
@pytest.mark.usefixtures("stopped_clock")
def test_address_is_throttled_for_new_browsers(open_browser: OpenBrowser, viewer: User) -> None:
    browser = open_browser(OFFICE)
    for number in range(throttle.ADDRESS.burst):
        fail(browser, f"guess-{number}", 1)
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 429
    assert open_browser(ELSEWHERE).submit("viewer", "viewer").status_code == 302


@pytest.mark.slow
def test_known_browser_signs_in_while_account_and_address_are_throttled(
    open_browser: OpenBrowser, viewer: User
) -> None:
    known, stranger = open_browser(OFFICE), open_browser(OFFICE)
    assert known.submit("viewer", "viewer").status_code == 302
    known.post("/accounts/logout/", data={"csrfmiddlewaretoken": known.cookies["csrftoken"]})
    fail(stranger, "viewer", throttle.ACCOUNT.burst)
    for number in range(throttle.ADDRESS.burst - throttle.ACCOUNT.burst):
        fail(stranger, f"guess-{number}", 1)
    assert stranger.submit("viewer", "viewer").status_code == 429
    assert known.submit("viewer", "viewer").status_code == 302


def test_known_browser_has_a_throttle_of_its_own(open_browser: OpenBrowser, viewer: User) -> None:
    known = open_browser(OFFICE)
    known.submit("viewer", "viewer")
    del known.cookies["sessionid"]
    fail(known, "viewer", throttle.BROWSER.burst)
    assert known.submit("viewer", "viewer").status_code == 429
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 302


def test_known_browser_of_one_account_is_unknown_to_another(
    open_browser: OpenBrowser, viewer: User, manager: User
) -> None:
    browser = open_browser(OFFICE)
    browser.submit("viewer", "viewer")
    del browser.cookies["sessionid"]
    fail(open_browser(OFFICE), "manager", throttle.ACCOUNT.burst)
    assert browser.submit("manager", "manager").status_code == 429


def test_forged_cookie_makes_no_known_browser(open_browser: OpenBrowser, viewer: User) -> None:
    known, stranger = open_browser(OFFICE), open_browser(OFFICE)
    known.submit("viewer", "viewer")
    stranger.cookies.set("browser", known.cookies["browser"][:-1] + "x", domain="127.0.0.1")
    fail(open_browser(OFFICE), "viewer", throttle.ACCOUNT.burst)
    assert stranger.submit("viewer", "viewer").status_code == 429


def test_throttle_ends_by_itself(open_browser: OpenBrowser, viewer: User) -> None:
    browser = open_browser(OFFICE)
    fail(browser, "viewer", throttle.ACCOUNT.burst)
    for row in FailureCounter.objects.all():
        row.drained_at -= throttle.ACCOUNT.interval
        row.save()
    assert browser.submit("viewer", "viewer").status_code == 302


def test_parallel_attempts_do_not_exceed_the_limit(open_browser: OpenBrowser, viewer: User) -> None:
    browsers = [open_browser(OFFICE) for _ in range(4)]
    fail(browsers[0], "viewer", throttle.ACCOUNT.burst - 1)
    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(lambda browser: browser.submit("viewer", "no"), browsers))
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429]
    assert AccessEvent.objects.filter(kind=AccessKind.SIGN_IN_FAILED).count() == 10


def test_success_writes_no_counter(open_browser: OpenBrowser, viewer: User) -> None:
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 302
    assert not FailureCounter.objects.exists()


def test_break_glass_account_is_not_kept_out_by_strangers(
    open_browser: OpenBrowser, viewer: User, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "viewer"
    fail(open_browser(OFFICE), "viewer", throttle.ACCOUNT.burst)
    assert open_browser(ELSEWHERE).submit("viewer", "viewer").status_code == 302


@pytest.mark.slow
@pytest.mark.usefixtures("stopped_clock")
def test_break_glass_account_is_not_kept_out_by_colleagues(
    open_browser: OpenBrowser, viewer: User, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "viewer"
    for number in range(throttle.ADDRESS.burst):
        fail(open_browser(OFFICE), f"guess-{number}", 1)
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 302


def test_full_queue_of_new_browsers_holds_up_only_new_browsers(
    open_browser: OpenBrowser, viewer: User, manager: User, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "manager"
    known = open_browser(OFFICE)
    known.submit("viewer", "viewer")
    del known.cookies["sessionid"]
    released = threading.Event()
    for _ in range(password_queue.CAPACITY - 1):
        password_queue.new_browsers.submit(released.wait, 60)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(open_browser(OFFICE).submit, "viewer", "viewer")
        wait_until(lambda: password_queue.new_browsers.length == password_queue.CAPACITY)
        answer = open_browser(OFFICE).submit("viewer", "viewer")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert error_of(answer) == "Many people are signing in right now. Try again in 5 s."
        assert known.submit("viewer", "viewer").status_code == 302
        assert open_browser(OFFICE).submit("manager", "manager").status_code == 302
        released.set()
        assert waiting.result().status_code == 302


@pytest.mark.parametrize("username", ["viewer", "nobody-of-this-name", "inactive", "passwordless"])
def test_every_wrong_password_is_hashed_once_and_gets_the_same_answer(
    username: str, open_browser: OpenBrowser, viewer: User, settings: Settings
) -> None:
    settings.PASSWORD_HASHERS = ["tests.support.counting_hasher.CountingHasher"]
    User.objects.create_user("inactive", password="x", is_active=False)
    User.objects.create_user("passwordless")
    counting_hasher.hashed.clear()
    answer = open_browser(OFFICE).submit(username, "wrong")
    assert len(counting_hasher.hashed) == 1
    assert (answer.status_code, error_of(answer)) == (200, "Wrong user name or password.")
