"""Refusals that say when to try again, in words and in Retry-After."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta

from django.http import HttpResponse
from django.utils.translation import gettext as _

from dashboard.db.fair_queue import QueueFull
from dashboard.texts import durations
from dashboard.web.http.responses.deferred import Deferred

REFUSAL_DELAY = 2.0  # seconds, without a thread: a program that tries again at once waits, too

type Render = Callable[[str], HttpResponse]  # returns the page with a message


def when_done[T](
    work: Callable[[], Awaitable[T]],
    then: Callable[[T], HttpResponse],
    full: Callable[[], HttpResponse],
) -> HttpResponse:
    """Return the response of `then` to the result of `work`, or that of `full` to QueueFull."""

    async def wait() -> T | QueueFull:
        try:
            return await work()
        except QueueFull as error:
            await asyncio.sleep(REFUSAL_DELAY)
            return error

    return Deferred(wait, lambda result: full() if isinstance(result, QueueFull) else then(result))


def refuse_throttled(render: Render, wait: timedelta) -> HttpResponse:
    """Return that there were too many attempts, with 429; its client may try again after `wait`."""
    return refuse(render, _("Too many attempts."), 429, wait)


def refuse(render: Render, text: str, status: int, wait: timedelta) -> HttpResponse:
    """Return the page with the text and when to try again."""
    time = durations.format_rounded(timedelta(seconds=math.ceil(wait.total_seconds())))
    response = render(f"{text} {_('Try again in %(time)s.') % {'time': time}}")
    response.status_code = status
    response["Retry-After"] = str(math.ceil(wait.total_seconds()))
    response._has_been_logged = True  # type: ignore[attr-defined]  # a 503 would be an error
    return response
