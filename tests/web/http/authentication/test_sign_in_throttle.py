"""Sign-in is throttled by account and address."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts.authentication import password_queue, throttle
from dashboard.accounts.authentication.sign_in import Attempt
from dashboard.models import AccessEvent, FailureCounter
from dashboard.models.accounts.access import AccessKind
from tests.support import counting_hasher
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
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
    fail(browser, username, throttle.ACCOUNT_AT_ADDRESS.burst)
    answer = browser.submit(username, "viewer")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert error_of(answer).startswith("Too many attempts. Try again in ")
    assert "sessionid" not in browser.cookies


def test_account_is_not_kept_out_by_guesses_at_another_address(
    open_browser: OpenBrowser, viewer: User
) -> None:
    fail(open_browser(OFFICE), "viewer", throttle.ACCOUNT_AT_ADDRESS.burst)
    assert open_browser(ELSEWHERE).submit("viewer", "viewer").status_code == 302


def test_account_is_throttled_after_failures_at_many_addresses(
    open_browser: OpenBrowser, viewer: User
) -> None:
    for _ in range(throttle.ACCOUNT.burst):
        throttle.count([throttle.Counter(throttle.ACCOUNT, "viewer")], timezone.now())
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 429


def test_break_glass_account_is_not_kept_out_from_many_addresses(
    open_browser: OpenBrowser, viewer: User, settings: Settings
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "viewer"
    for _ in range(throttle.ACCOUNT.burst):
        throttle.count([throttle.Counter(throttle.ACCOUNT, "viewer")], timezone.now())
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 302


def test_account_in_other_case_shares_its_throttle(open_browser: OpenBrowser, viewer: User) -> None:
    fail(open_browser(OFFICE), "VIEWER", throttle.ACCOUNT_AT_ADDRESS.burst)
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 429


def test_other_account_at_address_is_not_throttled(open_browser: OpenBrowser, viewer: User) -> None:
    browser = open_browser(OFFICE)
    fail(browser, "somebody", throttle.ACCOUNT_AT_ADDRESS.burst)
    assert browser.submit("viewer", "viewer").status_code == 302


@pytest.mark.slow
@pytest.mark.usefixtures("stopped_clock")
def test_address_is_throttled(open_browser: OpenBrowser, viewer: User) -> None:
    browser = open_browser(OFFICE)
    for number in range(throttle.ADDRESS.burst):
        fail(browser, f"guess-{number}", 1)
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 429
    assert open_browser(ELSEWHERE).submit("viewer", "viewer").status_code == 302


def test_throttle_ends_by_itself(open_browser: OpenBrowser, viewer: User) -> None:
    browser = open_browser(OFFICE)
    fail(browser, "viewer", throttle.ACCOUNT_AT_ADDRESS.burst)
    for row in FailureCounter.objects.all():
        row.drained_at -= throttle.ACCOUNT_AT_ADDRESS.interval
        row.save()
    assert browser.submit("viewer", "viewer").status_code == 302


def test_parallel_attempts_do_not_exceed_the_limit(open_browser: OpenBrowser, viewer: User) -> None:
    browsers = [open_browser(OFFICE) for _ in range(4)]
    fail(browsers[0], "viewer", throttle.ACCOUNT_AT_ADDRESS.burst - 1)
    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(lambda browser: browser.submit("viewer", "no"), browsers))
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429]
    assert AccessEvent.objects.filter(kind=AccessKind.SIGN_IN_FAILED).count() == 10


def test_success_writes_no_counter(open_browser: OpenBrowser, viewer: User) -> None:
    assert open_browser(OFFICE).submit("viewer", "viewer").status_code == 302
    assert not FailureCounter.objects.exists()


def test_full_queue_is_told(live: Live, open_browser: OpenBrowser, viewer: User) -> None:
    released = threading.Event()
    for _ in range(1 + password_queue.CAPACITY):
        waiting = password_queue.run(Attempt("", OFFICE), partial(released.wait, 60))
        asyncio.run_coroutine_threadsafe(waiting, live.loop)
    answer = open_browser(OFFICE).submit("viewer", "viewer")
    released.set()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert error_of(answer) == "Many people are signing in right now. Try again in 5 s."


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
