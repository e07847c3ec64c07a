"""What pages that check a password share: slow refusals, and a session saved after the wait."""

import asyncio
import math
from datetime import timedelta

from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.web.http.deferred import Deferred

REFUSAL_DELAY = 2.0  # seconds
MAX_SECONDS_IN_WORDS = 90  # longer waits are told in minutes


def delayed(response: HttpResponse) -> HttpResponse:
    """Return the response in REFUSAL_DELAY, without a thread: a program that guesses waits, too."""
    return Deferred(lambda: asyncio.sleep(REFUSAL_DELAY), lambda _: response)


def throttled_message(wait: timedelta) -> str:
    """Return that there were too many failures, and when to try again."""
    return f"{_('Too many failed attempts.')} {_retry_message(wait)}"


def queue_full_message(wait: timedelta) -> str:
    """Return that too many passwords wait to be checked, and when to try again."""
    return f"{_('Many people are signing in right now.')} {_retry_message(wait)}"


def mark_refused(response: HttpResponse, status: int, wait: timedelta) -> HttpResponse:
    """Give the response the status of a refusal; its client may try again after `wait`."""
    response.status_code = status
    response["Retry-After"] = str(math.ceil(wait.total_seconds()))
    response._has_been_logged = True  # type: ignore[attr-defined]  # strangers can send thousands
    return response


def save_session(request: HttpRequest, response: HttpResponse) -> None:
    """Save the session and set its cookies, as the middleware does; it ran before the wait."""
    for middleware in (SessionMiddleware, CsrfViewMiddleware):
        middleware(_no_view).process_response(request, response)


def _no_view(_: HttpRequest) -> HttpResponse:
    raise NotImplementedError("Middleware that only processes a response calls no view.")


def _retry_message(wait: timedelta) -> str:
    seconds = math.ceil(wait.total_seconds())
    if seconds <= MAX_SECONDS_IN_WORDS:
        text = ngettext("Try again in %(n)d second.", "Try again in %(n)d seconds.", seconds)
        return text % {"n": seconds}
    minutes = math.ceil(seconds / 60)
    text = ngettext("Try again in %(n)d minute.", "Try again in %(n)d minutes.", minutes)
    return text % {"n": minutes}
