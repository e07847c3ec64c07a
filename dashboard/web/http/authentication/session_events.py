"""Begin a session for whoever signs in, and record who signs in and out, however they do it."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, load_backend
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.http import HttpRequest

from dashboard.accounts import access_log, sessions
from dashboard.db.threads import now
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.sessions import LABEL_LENGTH
from dashboard.web.http.client_address import client_address


def register(app_config: AppConfig) -> None:
    """Begin sessions, and record each sign-in and sign-out, from now on."""
    user_logged_in.connect(_record_sign_in, dispatch_uid=f"{app_config.label}.sign_in")
    user_logged_out.connect(_record_sign_out, dispatch_uid=f"{app_config.label}.sign_out")


def _record_sign_in(*, request: HttpRequest, user: User, **_: Any) -> None:
    at, address = now(), client_address(request)
    sessions.begin(request.session, at, client_address=address, browser=browser_label(request))
    is_break_glass = user.get_username() == settings.BREAK_GLASS_ACCOUNT
    backend = load_backend(request.session[BACKEND_SESSION_KEY])
    access_log.record(
        AccessKind.BREAK_GLASS if is_break_glass else AccessKind.SIGNED_IN,
        at,
        user=user,
        client_address=address,
        detail=getattr(backend, "source", ""),  # of a password: none
    )


def _record_sign_out(*, request: HttpRequest, user: User | None, **_: Any) -> None:
    if user is not None:  # None: the session had ended
        access_log.record(
            AccessKind.SIGNED_OUT, now(), user=user, client_address=client_address(request)
        )


# The first that the header contains: Edge also names Chrome, and everybody Safari.
_BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
_SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "Macintosh": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}


def browser_label(request: HttpRequest) -> str:
    """Return a label such as “Firefox, Windows”; else the start of the User-Agent; or nothing."""
    user_agent = request.headers.get("User-Agent", "")
    tables = (_BROWSERS, _SYSTEMS)
    if label := ", ".join(filter(None, [_find(user_agent, names) for names in tables])):
        return label
    # Without control and formatting characters, such as those that change the direction.
    printable = "".join(c if c.isprintable() else " " for c in user_agent[: 10 * LABEL_LENGTH])
    return " ".join(printable.split())[:LABEL_LENGTH]


def _find(user_agent: str, names: dict[str, str]) -> str:
    return next((name for text, name in names.items() if text in user_agent), "")
