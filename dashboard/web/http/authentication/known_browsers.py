"""Known browsers: those in which an account has signed in before, by a signed cookie.

The cookie opens nothing. It only gives the browser a throttle of its own
(accounts/authentication/throttle.py), so that strangers who guess cannot keep its user out:
https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies
"""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import get_random_string, salted_hmac

MAX_AGE = timedelta(days=180)
MAX_ACCOUNTS = 5  # of one browser; the latest
_SALT = "dashboard.known_browser"


def browser_id(request: HttpRequest, username: str | None = None) -> str:
    """Return the id of the browser if this account has signed in with it before, else "".

    Without a user name: if any account has.
    """
    cookie = _load(request)
    accounts = cookie["accounts"]
    is_known = bool(accounts) if username is None else _digest(username) in accounts
    return cookie["id"] if is_known else ""


def remember(request: HttpRequest, response: HttpResponse, username: str) -> None:
    """Have the browser remember that this account has signed in with it."""
    cookie = _load(request)
    accounts = [_digest(username), *(a for a in cookie["accounts"] if a != _digest(username))]
    response.set_cookie(
        settings.KNOWN_BROWSER_COOKIE_NAME,
        signing.dumps({"id": cookie["id"], "accounts": accounts[:MAX_ACCOUNTS]}, salt=_SALT),
        max_age=MAX_AGE,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _load(request: HttpRequest) -> dict[str, Any]:
    """Return the cookie's content; that of a new browser if it has none that is valid."""
    text = request.COOKIES.get(settings.KNOWN_BROWSER_COOKIE_NAME, "")
    try:
        cookie: dict[str, Any] = signing.loads(text, salt=_SALT, max_age=MAX_AGE)
    except signing.BadSignature:
        return {"id": get_random_string(16), "accounts": []}
    return cookie


def _digest(username: str) -> str:
    # The next person at this computer must not learn who has used it.
    return salted_hmac(_SALT, username, algorithm="sha256").hexdigest()[:16]
