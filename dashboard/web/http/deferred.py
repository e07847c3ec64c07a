"""A response that waits for Northflank without holding a web thread.

A view returns `Deferred` with the work to be awaited on the event loop; the handler (asgi.py)
awaits it, then calls the same view again, which reads the result by `deferred_result(request)`.
The first pass does what must be done once, the second only renders. The middleware is passed once:
the final response gets the headers and cookies that it put on the first, and may have any status.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

RESULT_KEY = "dashboard.waited_for"  # the key in the ASGI scope


class Deferred(HttpResponse):
    """A placeholder until `work` is done; only another ASGI handler would ever send it."""

    status_code = 503
    _has_been_logged = True  # by Django's own word: it is no failure to be told of

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("Run this application by its own handler: dashboard.asgi.application.")
        self.work = work
        self.request: HttpRequest | None = None  # set by the handler


def deferred_result(request: HttpRequest) -> Any:
    """Return the result of the awaited work, None in the first pass; raises what it raised."""
    work = getattr(request, "scope", {}).get(RESULT_KEY)
    return None if work is None else work.result()
