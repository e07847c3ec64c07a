"""Django on ASGI with its whole synchronous chain in one hop onto a few long-lived threads.

Django's own handler costs about twenty thread hops, a new thread and a new database connection a
request. This one keeps the threads and their connections, streams on the event loop, and lets an
answer wait for Northflank without holding a thread (web/waiting.py). It leans on internals of
Django's ASGIHandler, so Django is pinned exactly and tests/server holds this module to its word.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from typing import Any, cast

import django
from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers import base
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.db import connection
from django.http import HttpResponse, HttpResponseBase
from django.urls import set_script_prefix

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
django.setup(set_prefix=False)

from dashboard.web.waiting import RESULT, Waiting  # (needs the settings)

type Receive = Callable[[], Awaitable[Mapping[str, Any]]]
type Send = Callable[[Mapping[str, Any]], Awaitable[None]]

STOPPING = "This dashboard is being stopped. Open the page again to see how it went on."


def _threads() -> int:
    # More threads are slower on SQLite (each step drops the GIL); two keep one slow page from
    # holding up the rest.
    return 2 if connection.vendor == "sqlite" else 4


class PooledASGIHandler(ASGIHandler):
    """An ASGI application that answers each request on one of `threads` threads."""

    def __init__(self, threads: int | None = None) -> None:
        base.BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        self.pool = ThreadPoolExecutor(threads or _threads(), thread_name_prefix="django")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"This application speaks HTTP, not {scope['type']}.")
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        loop = asyncio.get_running_loop()
        with closing(body):
            # Django closes the body once it has read it; an answer that waits needs it twice.
            # One byte over the limit is enough for Django to refuse it.
            content = body.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        response = await loop.run_in_executor(self.pool, self._answer, scope, content)
        if isinstance(response, Waiting):
            work = asyncio.ensure_future(response.work())
            try:
                await asyncio.wait({work})  # what it raises is the view's to meet: an ordinary 500
            except asyncio.CancelledError:  # this process ends; the database knows how far it came
                response = HttpResponse(STOPPING, status=503, content_type="text/plain")
            else:
                scope = {**scope, RESULT: work}
                response = await loop.run_in_executor(self.pool, self._answer, scope, content)
        try:
            if response.streaming:
                async with asyncio.TaskGroup() as group:
                    gone = group.create_task(self.listen_for_disconnect(receive))
                    await self.send_response(response, send)
                    gone.cancel()
            else:
                await self.send_response(response, send)
        except* (RequestAborted, ConnectionError):
            pass  # the person has left; there is nobody to tell
        finally:
            if response.streaming:
                await loop.run_in_executor(self.pool, response.close)

    def _answer(self, scope: dict[str, Any], body: bytes) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, error_response = self.create_request(scope, BytesIO(body))
        response: Any = error_response if request is None else self.get_response(request)
        response._handler_class = self.__class__
        if response.streaming and not response.is_async:
            # A file from disk: small, and reading it here spares the loop a thread hop a chunk.
            response = _read(response)
        elif not isinstance(response, Waiting) and not response.streaming:
            # The database is done with, unless the view is asked again.
            response.close()
        return cast("HttpResponseBase", response)


def _read(response: Any) -> HttpResponse:
    """Turn an answer that streams a file into one that holds it."""
    with closing(response):
        whole = HttpResponse(b"".join(response), status=response.status_code)
    whole.headers = response.headers
    whole.cookies = response.cookies
    return whole


application = PooledASGIHandler()
