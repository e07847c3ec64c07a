"""A response that waits for Northflank without holding a web thread.

A view returns `Deferred(work, then)`: the handler (asgi.py) awaits `work()` on the event loop, and
calls `then` with its result in a web thread for the final response. The request's body is closed by
then. The middleware runs once: the final response gets the headers and cookies that it set on the
deferred one, and may have any status.
"""

from asyncio import Future
from collections.abc import Awaitable, Callable

from django.http import HttpRequest, HttpResponse


class Deferred[T](HttpResponse):
    """A placeholder until `work` is done; an ASGI handler other than ours would send it as it is.

    An exception from `work` or `then` is handled like an exception from the view.
    """

    # An error, so that nobody takes it for the answer. Of 500 or more, it would keep the middleware
    # from saving a session that began with the request.
    status_code = 421
    _has_been_logged = True  # Django logs other responses with a status of 400 or more

    def __init__(self, work: Callable[[], Awaitable[T]], then: Callable[[T], HttpResponse]) -> None:
        super().__init__("Run this application by its own handler: dashboard.asgi.application.")
        self.work = work
        self.then = then
        self.request: HttpRequest | None = None  # set by the handler

    def finish(self, work: Future[T]) -> HttpResponse:
        """Return the final response; raise the exceptions of `work` and `then`."""
        return self.then(work.result())
