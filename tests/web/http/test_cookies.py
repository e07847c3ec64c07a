"""The cookies of a sign-in: scripts and other sites do not get those that sign in."""

from http.cookies import SimpleCookie

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.models.accounts.sessions import SessionStore, is_session_key
from tests.support.live import WAIT_TIMEOUT, Live
from tests.support.sessions import CSRF_TOKEN, session_key
from tests.support.sign_in import SignInBrowser


def test_cookies_of_a_sign_in_are_for_this_site_and_not_for_scripts(
    live: Live, viewer: User
) -> None:
    with SignInBrowser(live) as browser:
        answer = browser.submit("viewer", "viewer")
    cookies: SimpleCookie = SimpleCookie()
    for header in answer.headers.get_list("set-cookie"):
        cookies.load(header)
    assert {name: cookie["samesite"] for name, cookie in cookies.items()} == dict.fromkeys(
        ("sessionid", "csrftoken"), "Lax"
    )
    # The token is in each page anyway.
    assert {name for name, cookie in cookies.items() if cookie["httponly"]} == {"sessionid"}


# Octal escapes in a quoted value are decoded: this is a NUL, which PostgreSQL takes in no text.
@pytest.mark.parametrize("value", [r'"\000aaaaaaaa"', '""'])
@pytest.mark.parametrize("name", ["sessionid", "csrftoken", "theme", "messages"])
def test_cookie_that_this_site_has_not_set_counts_as_none(
    live: Live, viewer: User, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    cookies = {"sessionid": session_key("viewer"), "csrftoken": CSRF_TOKEN, name: value}
    header = {"Cookie": "; ".join(f"{cookie}={text}" for cookie, text in cookies.items())}
    with httpx.Client(base_url=live.base_url, headers=header, timeout=WAIT_TIMEOUT) as browser:
        status = browser.get("/health/").status_code
        assert browser.get("/accounts/login/").status_code in {200, 302}
        refused = browser.post("/accounts/login/", data={"username": "viewer", "password": "no"})
    assert status == (302 if name == "sessionid" else 200)
    assert refused.status_code in {302, 403}  # without a token, or with a session
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    "key", ["", "a" * 31, "a" * 33, "a" * 31 + "\0", "a" * 31 + "\n", "a" * 31 + "A", "\xe4" * 32]
)
def test_session_key_that_django_does_not_create_is_none(key: str) -> None:
    assert not is_session_key(key)
    assert SessionStore(key).session_key is None


def test_new_session_has_a_valid_key(db: None) -> None:
    store = SessionStore()
    store.create()
    assert store.session_key is not None
    assert is_session_key(store.session_key)
    assert SessionStore(store.session_key).session_key == store.session_key
