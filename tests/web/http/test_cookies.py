"""The cookies of a sign-in: scripts and other sites do not get those that sign in."""

from http.cookies import SimpleCookie

from django.contrib.auth.models import User

from tests.support.live import Live
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
        ("sessionid", "csrftoken", "browser"), "Lax"
    )
    # The token is in each page anyway.
    assert {name for name, cookie in cookies.items() if cookie["httponly"]} == {
        "sessionid",
        "browser",
    }
