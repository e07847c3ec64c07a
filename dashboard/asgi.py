"""ASGI handler that runs Django's whole synchronous chain in one hop to a long-lived thread.

Django's own handler costs about twenty thread hops, a new thread and a new database connection per
request. This one reuses a few threads and their connections, streams on the event loop, and lets a
response wait for Northflank without holding a thread (web/http/responses/deferred.py). It depends
on internals of Django's ASGIHandler, so Django is pinned exactly, and tests/server covers this
module.
"""

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import IO, Any, cast

import django
from django.conf import settings
from django.core import signals
from django.core.exceptions import BadRequest, RequestAborted, RequestDataTooBig
from django.core.handlers import base
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.handlers.exception import response_for_exception
from django.db import close_old_connections, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse, set_script_prefix
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
django.setup(set_prefix=False)

from dashboard.db.request_priority import request_priority
from dashboard.web.http import unread_requests, webhook
from dashboard.web.http.database_outage import track_writes
from dashboard.web.http.responses.deferred import Deferred  # after django.setup()

type Receive = Callable[[], Awaitable[Mapping[str, Any]]]
type Send = Callable[[Mapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024  # of a request; a form that aborts 200 runs has 11 KB at most
MAX_WEBHOOK_BYTES = 256 * 1024  # with the webhook's token

_BODY_HEADERS = {"Content-Length", "Content-Type"}  # not copied from a deferred response


class Request(ASGIRequest):
    """Django's, with a Content-Type that Django cannot decode as its read error."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]  # django-stubs lack it
            # Django decodes such a form by any codec, such as `hex`, which fails later.
            is_multipart = self.content_type == "multipart/form-data"
            if is_multipart and (self.encoding or "utf-8").lower() != "utf-8":
                raise BadRequest("Forms must be UTF-8.")
        except (BadRequest, ValueError) as error:
            self.content_type, self.content_params = "", {}
            self.scope = {**self.scope, unread_requests.ERROR: error}


class PooledASGIHandler(ASGIHandler):
    """ASGI application that handles each request on one of `threads` threads."""

    request_class = Request

    def __init__(self, threads: int | None = None) -> None:
        base.BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        # More threads are slower on SQLite (each step drops the GIL); with two, one slow page does
        # not block the rest.
        threads = threads or (2 if connection.vendor == "sqlite" else 4)
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="django")
        # Anybody can send any number of sign-ins: they wait for each other, not pages for them.
        self.sign_in_executor = ThreadPoolExecutor(1, thread_name_prefix="sign-in")
        executors = {"login": self.sign_in_executor}
        if settings.OIDC_ISSUER:
            # These wait for an identity provider: neither pages nor passwords wait for it.
            oidc_executor = ThreadPoolExecutor(4, thread_name_prefix="oidc")
            executors |= dict.fromkeys(("oidc_sign_in", "oidc_callback"), oidc_executor)
        self.webhook_path = _without_prefix(reverse("northflank_webhook"))
        self.executors = {_without_prefix(reverse(name)): executors[name] for name in executors}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"Only HTTP is supported, not {scope['type']}.")
        try:
            body = await self._read_body(scope, receive)
        except RequestAborted:
            return
        except (BadRequest, RequestDataTooBig) as error:
            # `refuse_unread` refuses it, and the server drops the rest of the body.
            body, scope = io.BytesIO(), {**scope, unread_requests.ERROR: error}
        scope = _with_full_path(scope)
        executor = self.executors.get(_without_prefix(scope["path"]), self.executor)
        with closing(body):
            response = await self._run(executor, partial(self._handle, scope, body))
        if isinstance(response, Deferred):
            work = asyncio.ensure_future(response.work())
            try:
                await asyncio.wait({work})  # errors are raised by _resume
            except asyncio.CancelledError:  # the process is stopping; the database has the progress
                message = _("The server is restarting. Reload to see the result.")
                response = HttpResponse(
                    message, status=503, content_type="text/plain; charset=utf-8"
                )
            else:
                response = await self._run(executor, partial(self._resume, response, work))
        try:
            if response.streaming:
                async with asyncio.TaskGroup() as group:
                    disconnect_task = group.create_task(self.listen_for_disconnect(receive))
                    await self.send_response(response, send)
                    disconnect_task.cancel()
            else:
                await self.send_response(response, send)
        except* (RequestAborted, ConnectionError):
            pass  # the client has disconnected
        finally:
            if response.streaming:
                await self._run(executor, response.close)
                _release(cast("Any", response).request)

    async def _run[T](self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if executor is self.executor:
            return await request_priority.run(executor, work)
        # Mostly waits, for passwords of strangers or for a provider: nothing else waits for it.
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    async def _read_body(self, scope: dict[str, Any], receive: Receive) -> IO[bytes]:
        """Return the request body.

        Raise RequestAborted if the client disconnects, BadRequest if the length is no number, and
        RequestDataTooBig as soon as the body is known to exceed its limit. Django's own method
        writes a body of any size to disk before a view can refuse it. Nothing is uploaded here, so
        every body gets the limit of a form.
        """
        headers, limit = dict(scope["headers"]), MAX_BODY_BYTES
        if _without_prefix(scope["path"]) == self.webhook_path:
            token = headers.get(webhook.TOKEN_HEADER.lower().encode(), b"").decode("latin1")
            if webhook.is_valid_token(token):
                limit = MAX_WEBHOOK_BYTES
        try:
            length = int(headers.get(b"content-length", 0))
        except ValueError as error:  # Python converts 4,300 digits at most
            raise BadRequest("Invalid Content-Length header.") from error
        if length > limit:
            raise RequestDataTooBig
        body = io.BytesIO()
        more_body = True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestAborted
            body.write(message.get("body", b""))
            if body.tell() > limit:
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
        if isinstance(response, Deferred) or (response.streaming and response.is_async):
            response.request = request
            return cast("HttpResponseBase", response)
        if response.streaming:
            # A small file from disk: reading it here saves the loop a thread hop per chunk.
            response = _buffer_stream(response)
        else:
            response.close()  # the request needs no more database access
        _release(request)
        return cast("HttpResponseBase", response)

    def _resume(self, deferred: Deferred[Any], work: asyncio.Future[Any]) -> HttpResponseBase:
        """Return the final response of a deferred one, whose work is done.

        The middleware is not run again: the headers and cookies that it set on the deferred
        response are copied to the final one.
        """
        request: Any = deferred.request
        close_old_connections()  # this thread's may have been closed during the wait
        set_script_prefix(get_script_prefix(request.scope))  # may be another thread
        try:
            with track_writes(request):
                response = deferred.finish(work)
        except Exception as error:  # reported and logged by Django, as an exception of the view
            response = response_for_exception(request, error)
        for name, value in deferred.items():
            if name == "Vary":
                patch_vary_headers(response, value.split(", "))
            elif name not in _BODY_HEADERS:
                response.headers.setdefault(name, value)
        for name, cookie in deferred.cookies.items():
            response.cookies.setdefault(name, cookie)
        if hasattr(request, "_messages"):
            request._messages.update(response)
        deferred.close()
        _release(request)
        return cast("HttpResponseBase", response)


def _with_full_path(scope: dict[str, Any]) -> dict[str, Any]:
    """Return the scope with the full path: some proxies strip the prefix, some do not."""
    prefix, path = settings.FORCE_SCRIPT_NAME or "", scope["path"]
    if path == prefix or path.startswith(f"{prefix}/"):
        return scope
    return {**scope, "path": prefix + path}


def _without_prefix(path: str) -> str:
    return path.removeprefix(settings.FORCE_SCRIPT_NAME or "")


def _release(request: HttpRequest | None) -> None:
    """Let go of all that a request refers to, which refers to it.

    Else Python keeps hundreds of answered requests until it looks for unreachable objects.
    """
    if request is not None:
        vars(request).clear()


def _buffer_stream(response: Any) -> HttpResponse:
    """Return a streamed file response as one that holds the whole file."""
    with closing(response):
        buffered = HttpResponse(b"".join(response), status=response.status_code)
    buffered.headers = response.headers
    buffered.cookies = response.cookies
    return buffered


application = PooledASGIHandler()
