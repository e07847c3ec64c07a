"""What pages with a password share: the queue, and a session saved after the wait."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.translation import gettext as _

from dashboard.accounts.authentication import password_queue, sign_in
from dashboard.accounts.authentication.sign_in import Attempt, Refusal
from dashboard.db.threads import now
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.http.responses.retry_later import (
    REFUSAL_DELAY,
    Render,
    refuse,
    refuse_throttled,
    when_done,
)


def check_attempt[T](
    attempt: Attempt,
    check: Callable[[], T | Refusal],
    *,
    then: Callable[[T], HttpResponse],
    wrong: Callable[[], HttpResponse],
    render: Render,
) -> HttpResponse:
    """Return the response of `then` to the result of `check`, or of `wrong` to a wrong password.

    If the attempt is throttled, the response is that of `render`, with 429 and Retry-After; if the
    queue is full, with 503.
    """

    def finish(outcome: T | Refusal) -> HttpResponse:
        if not isinstance(outcome, Refusal):
            return then(outcome)
        return refuse_throttled(render, outcome.wait) if outcome.wait else wrong()

    if wait := sign_in.remaining_wait(attempt, now()):
        return _delay(refuse_throttled(render, wait))
    return queue_check(attempt, check, then=finish, render=render)


def queue_check[T](
    attempt: Attempt,
    check: Callable[[], T],
    *,
    then: Callable[[T], HttpResponse],
    render: Render,
) -> HttpResponse:
    """Return the response of `then` to the result of `check`, which waits for its turn.

    If the queue is full, the response is that of `render`, with 503 and Retry-After.
    """

    def refuse_full() -> HttpResponse:
        wait = timedelta(seconds=password_queue.RETRY_SECONDS)
        return refuse(render, _("Many people are signing in right now."), 503, wait)

    return when_done(partial(password_queue.run, attempt, check), then, refuse_full)


def own_attempt(request: HttpRequest) -> Attempt:
    """Return the attempt of a signed-in user who sets a password."""
    return Attempt(signed_in_user(request).get_username(), client_address(request))


def _delay(response: HttpResponse) -> HttpResponse:
    """Return the response after REFUSAL_DELAY, without holding a thread."""
    return Deferred(lambda: asyncio.sleep(REFUSAL_DELAY), lambda _: response)


def save_session(request: HttpRequest, response: HttpResponse) -> None:
    """Save the session and set its cookies, as the middleware does; it ran before the wait."""
    for middleware in (SessionMiddleware, CsrfViewMiddleware):
        middleware(_no_view).process_response(request, response)


def _no_view(_: HttpRequest) -> HttpResponse:
    raise NotImplementedError("Middleware that only processes a response calls no view.")
