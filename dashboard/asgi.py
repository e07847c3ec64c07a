"""Django on ASGI with its whole synchronous chain in one hop onto a few long-lived threads.

Django's own handler costs about twenty thread hops, a new thread and a new database connection a
request. This one keeps the threads and their connections, streams on the event loop, and lets an
answer wait for Northflank without holding a thread (web/http/deferred.py). It leans on internals of
Django's ASGIHandler, so Django is pinned exactly and tests/server holds this module to its word.
"""

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import IO, Any, cast

import django
from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted, RequestDataTooBig
from django.core.handlers import base
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.exception import response_for_exception
from django.db import connection
from django.http import HttpResponse, HttpResponseBase
from django.urls import set_script_prefix
from django.utils import timezone
from django.utils.translation import gettext as _

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
django.setup(set_prefix=False)

from dashboard.web.http import timezones  # (they need the settings)
from dashboard.web.http.deferred import RESULT_KEY, Deferred

type Receive = Callable[[], Awaitable[Mapping[str, Any]]]
type Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_BODY_HEADERS = {"Content-Length", "Content-Type"}  # headers that stay the final answer's own


def _thread_count() -> int:
    # More threads are slower on SQLite (each step drops the GIL); two keep one slow page from
    # holding up the rest.
    return 2 if connection.vendor == "sqlite" else 4


class PooledASGIHandler(ASGIHandler):
    """An ASGI application that answers each request on one of `threads` threads."""

    def __init__(self, threads: int | None = None) -> None:
        base.BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        self.executor = ThreadPoolExecutor(threads or _thread_count(), thread_name_prefix="django")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"This application speaks HTTP, not {scope['type']}.")
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        except RequestDataTooBig:
            # Before any middleware, or a stranger could fill the disk. The server drops the rest.
            await self.send_response(
                HttpResponse("Too large\n", status=413, content_type="text/plain"), send
            )
            return
        scope = _with_full_path(scope)
        loop = asyncio.get_running_loop()
        with closing(body):
            response = await loop.run_in_executor(self.executor, self._handle, scope, body)
        if isinstance(response, Deferred):
            work = asyncio.ensure_future(response.work())
            try:
                await asyncio.wait({work})  # what it raises is the view's to meet: an ordinary 500
            except asyncio.CancelledError:  # this process ends; the database knows how far it came
                message = _(
                    "This dashboard is being stopped. Open the page again to see how it went on."
                )
                response = HttpResponse(
                    message, status=503, content_type="text/plain; charset=utf-8"
                )
            else:
                response = await loop.run_in_executor(self.executor, self._resume, response, work)
        try:
            if response.streaming:
                async with asyncio.TaskGroup() as group:
                    disconnect_task = group.create_task(self.listen_for_disconnect(receive))
                    await self.send_response(response, send)
                    disconnect_task.cancel()
            else:
                await self.send_response(response, send)
        except* (RequestAborted, ConnectionError):
            pass  # the person has left; there is nobody to tell
        finally:
            if response.streaming:
                await loop.run_in_executor(self.executor, response.close)

    async def read_body(self, receive: Receive) -> IO[bytes]:
        """Return the body. Raises RequestAborted, and RequestDataTooBig where it is over the limit.

        Django's own puts a body of any size on the disk before a view can refuse it. Nothing is
        uploaded here, so the limit of a form is that of every body.
        """
        body = io.BytesIO()
        more_body = True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                body.close()
                raise RequestAborted
            body.write(message.get("body", b""))
            if body.tell() > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                body.close()
                raise RequestDataTooBig
            more_body = message.get("more_body", False)
        body.seek(0)
        return body

    def _handle(self, scope: dict[str, Any], body: IO[bytes]) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, error_response = self.create_request(scope, body)
        response: Any = error_response if request is None else self.get_response(request)
        response._handler_class = self.__class__
        if response.streaming and not response.is_async:
            # A file from disk: small, and reading it here spares the loop a thread hop a chunk.
            response = _buffer_stream(response)
        elif isinstance(response, Deferred):
            response.request = request
        elif not response.streaming:
            response.close()  # the database is done with
        return cast("HttpResponseBase", response)

    def _resume(self, deferred: Deferred, work: asyncio.Future[Any]) -> HttpResponseBase:
        """Ask the view again, now that what it waited for is there.

        The middleware has passed the request in and its answer out; that answer's headers and
        cookies are the final one's too.
        """
        request: Any = deferred.request
        request.scope = {**request.scope, RESULT_KEY: work}
        set_script_prefix(get_script_prefix(request.scope))  # another thread, maybe
        view, args, kwargs = request.resolver_match
        try:
            with timezone.override(timezones.of(request)):
                response = view(request, *args, **kwargs)
        except Exception as error:  # told and logged by Django, as on the first pass
            response = response_for_exception(request, error)
        for name, value in deferred.items():
            if name not in _BODY_HEADERS:
                response.headers.setdefault(name, value)
        for name, cookie in deferred.cookies.items():
            response.cookies.setdefault(name, cookie)
        if hasattr(request, "_messages"):
            request._messages.update(response)
        deferred.close()
        return cast("HttpResponseBase", response)


def _with_full_path(scope: dict[str, Any]) -> dict[str, Any]:
    """Return a request's scope with its whole path: some proxies cut the prefix off, some don't."""
    prefix, path = settings.FORCE_SCRIPT_NAME or "", scope["path"]
    if path == prefix or path.startswith(f"{prefix}/"):
        return scope
    return {**scope, "path": prefix + path}


def _buffer_stream(response: Any) -> HttpResponse:
    """Turn an answer that streams a file into one that holds it."""
    with closing(response):
        buffered = HttpResponse(b"".join(response), status=response.status_code)
    buffered.headers = response.headers
    buffered.cookies = response.cookies
    return buffered


application = PooledASGIHandler()
