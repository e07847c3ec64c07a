"""Refusals that say when to try again, in words and in Retry-After."""

import math
from collections.abc import Callable
from datetime import timedelta

from django.http import HttpResponse
from django.utils.translation import gettext as _

from dashboard.texts import durations

type Render = Callable[[str], HttpResponse]  # returns the page with a message


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
