"""Refusals that say when to try again, in words and in Retry-After."""

import math
from collections.abc import Callable
from datetime import timedelta

from django.http import HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.texts.rich_text import Message, MessageTable

MAX_SECONDS_IN_WORDS = 90  # longer waits are given in minutes
_text = MessageTable(
    {
        "seconds": lambda n: ngettext(
            "Try again in %(n)d second.", "Try again in %(n)d seconds.", n
        ),
        "minutes": lambda n: ngettext(
            "Try again in %(n)d minute.", "Try again in %(n)d minutes.", n
        ),
    }
)

type Render = Callable[[str], HttpResponse]  # returns the page with a message


def refuse_throttled(render: Render, wait: timedelta) -> HttpResponse:
    """Return that there were too many attempts, with 429; its client may try again after `wait`."""
    return refuse(render, _("Too many attempts."), 429, wait)


def refuse(render: Render, text: str, status: int, wait: timedelta) -> HttpResponse:
    """Return the page with the text and when to try again."""
    response = render(f"{text} {_retry_message(wait)}")
    response.status_code = status
    response["Retry-After"] = str(math.ceil(wait.total_seconds()))
    response._has_been_logged = True  # type: ignore[attr-defined]  # a 503 would be an error
    return response


def _retry_message(wait: timedelta) -> Message:
    seconds = math.ceil(wait.total_seconds())
    if seconds <= MAX_SECONDS_IN_WORDS:
        return _text("seconds", n=seconds)
    return _text("minutes", n=math.ceil(seconds / 60))
