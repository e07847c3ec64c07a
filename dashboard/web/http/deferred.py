"""An answer that has to wait for Northflank, without a web thread waiting with it.

A view returns `Waiting` with the work to be awaited on the event loop; the handler (asgi.py)
awaits it and then asks the same view again, which finds the result in `result_of(request)`. The
first pass does what must be done once, the second only renders. The middleware is passed once: the
final answer gets the headers and cookies that it put on the first, and may have any status.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

RESULT_KEY = "dashboard.waited_for"  # the key in the ASGI scope


class Deferred(HttpResponse):
    """Not an answer yet: `work` comes first. Seen by a person only under a foreign server."""

    status_code = 503
    _has_been_logged = True  # by Django's own word: it is no failure to be told of

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("Run this application by its own handler: dashboard.asgi.application.")
        self.work = work
        self.request: HttpRequest | None = None  # set by the handler


def deferred_result(request: HttpRequest) -> Any:
    """Return what the awaited work returned, or None in the first pass; raises what it raised."""
    work = getattr(request, "scope", {}).get(RESULT_KEY)
    return None if work is None else work.result()
