"""Views that wait, stream, fail or report, beside the dashboard's own; for tests of the handler."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters

from dashboard.northflank import NorthflankClient
from dashboard.upstream.connection import get_connection
from dashboard.urls import *  # noqa: F403
from dashboard.urls import urlpatterns as dashboard_urlpatterns
from dashboard.web.http.responses.deferred import Deferred
from tests.support import factories

form_reads: list[str] = []  # the form data read by each call of a waiting view
streams_open: set[object] = set()


def thread(request: HttpRequest) -> HttpResponse:
    return HttpResponse(threading.current_thread().name)


def wait(request: HttpRequest, end: str) -> HttpResponse:
    """Wait, then respond as `end` specifies."""
    form_reads.append(request.POST.get("word", ""))
    return Deferred(lambda: _work(end), lambda result: _answer(request, end, result))


def _answer(request: HttpRequest, end: str, result: str) -> HttpResponse:
    form_reads.append(request.POST.get("word", ""))
    match end:
        case "elsewhere":
            return HttpResponse(status=303, headers={"Location": "/elsewhere/"})
        case "missing":
            raise Http404("Nothing is here.")
        case "saved":
            factories.project("shop")
            raise OperationalError("the connection was lost")
    answer = HttpResponse(f"{result} {request.POST['word']}", headers={"X-Waited": "yes"})
    answer.set_cookie("waited", "yes")
    return answer


async def _work(end: str) -> str:
    await asyncio.sleep(0.01)
    if end == "broken":
        raise LookupError("the awaited work has failed")
    return "done"


def broken(request: HttpRequest) -> HttpResponse:
    raise LookupError("a view has failed")


def upstream_defect(request: HttpRequest) -> HttpResponse:
    """Fail in a request to Northflank, as a defect of ours would."""
    form_reads.append(request.POST.get("word", ""))
    return Deferred(lambda: get_connection().call(_fail), lambda _: HttpResponse())


async def _fail(client: NorthflankClient) -> None:
    raise LookupError("a request has failed")


@sensitive_post_parameters("password")
def broken_password_form(request: HttpRequest) -> HttpResponse:
    raise LookupError("a form has failed")


def size(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.POST.get("word", ""))))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_ticks(), content_type="text/event-stream")


async def _ticks() -> AsyncIterator[str]:
    key = object()
    streams_open.add(key)
    try:
        while True:
            yield ": tick\n\n"
            await asyncio.sleep(0.01)
    finally:
        streams_open.discard(key)


def _open(view: Any) -> Any:
    return csrf_exempt(login_not_required(view))


urlpatterns = [
    *dashboard_urlpatterns,
    path("thread/", _open(thread)),
    path("wait/<str:end>/", _open(wait)),
    path("broken/", _open(broken)),
    path("upstream-defect/", _open(upstream_defect)),
    path("broken-password-form/", _open(broken_password_form)),
    path("size/", _open(size)),
    path("stream/", _open(stream)),
]
