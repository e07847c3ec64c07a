"""What pages with a password share: the queue, refusals, and a session saved after the wait."""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta

from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.accounts.authentication import password_queue
from dashboard.web.http.deferred import Deferred

REFUSAL_DELAY = 2.0  # seconds
MAX_SECONDS_IN_WORDS = 90  # longer waits are given in minutes

type Refuse = Callable[[str], HttpResponse]  # returns the form with a message


def queue_check[T](
    check: Callable[[], T], *, is_reserved: bool, then: Callable[[T], HttpResponse], refuse: Refuse
) -> HttpResponse:
    """Return the response of `then` to the result of `check`, which waits for its turn.

    With `is_reserved`, it may take a reserved place. If the queue is full, the response is that of
    `refuse`, with 503 and Retry-After.
    """
    try:
        checked = password_queue.queue.submit(is_reserved, check)
    except password_queue.QueueFull:
        text = _("Many people are signing in right now.")
        wait = timedelta(seconds=password_queue.RETRY_SECONDS)
        return delay(_refuse(refuse, text, 503, wait))
    return Deferred(lambda: asyncio.wrap_future(checked), then)


def delay(response: HttpResponse) -> HttpResponse:
    """Return the response in REFUSAL_DELAY, without a thread: a program that guesses waits, too."""
    return Deferred(lambda: asyncio.sleep(REFUSAL_DELAY), lambda _: response)


def refuse_throttled(refuse: Refuse, wait: timedelta) -> HttpResponse:
    """Return that there were too many failures, with 429; its client may try again after `wait`."""
    return _refuse(refuse, _("Too many failed attempts."), 429, wait)


def save_session(request: HttpRequest, response: HttpResponse) -> None:
    """Save the session and set its cookies, as the middleware does; it ran before the wait."""
    for middleware in (SessionMiddleware, CsrfViewMiddleware):
        middleware(_no_view).process_response(request, response)


def _no_view(_: HttpRequest) -> HttpResponse:
    raise NotImplementedError("Middleware that only processes a response calls no view.")


def _refuse(refuse: Refuse, text: str, status: int, wait: timedelta) -> HttpResponse:
    response = refuse(f"{text} {_retry_message(wait)}")
    response.status_code = status
    response["Retry-After"] = str(math.ceil(wait.total_seconds()))
    response._has_been_logged = True  # type: ignore[attr-defined]  # strangers can send thousands
    return response


def _retry_message(wait: timedelta) -> str:
    seconds = math.ceil(wait.total_seconds())
    if seconds <= MAX_SECONDS_IN_WORDS:
        text = ngettext("Try again in %(n)d second.", "Try again in %(n)d seconds.", seconds)
        return text % {"n": seconds}
    minutes = math.ceil(seconds / 60)
    text = ngettext("Try again in %(n)d minute.", "Try again in %(n)d minutes.", minutes)
    return text % {"n": minutes}
