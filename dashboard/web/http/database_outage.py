"""What people and machines are told while the database is away: 503, and how it goes on.

No page is blanked: an open one keeps what it shows and says so; one that was asked for comes by
itself. Nothing that was sent is sent again, so whoever sent something is told whether it was kept.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Any

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _

from dashboard.db import health as db_health
from dashboard.web.api.responses import Failed, failure
from dashboard.web.http import sign_in, site_context, timezones

RETRY_AFTER = 5  # seconds until a page asks again
READ_FIRST = 15  # seconds: whoever sent something reads what became of it before the page goes on

_READING = {"GET", "HEAD", "OPTIONS", "TRACE"}
# A request's own bookkeeping, of which nobody wants to know whether it was kept.
_ASIDE = "django_session|dashboard_apitoken"
_WRITE = re.compile(rf'\s*(INSERT (OR \w+ )?INTO|UPDATE|DELETE FROM) "(?!({_ASIDE})")')


class Kept(Enum):
    """What a request has left in the database by the time that it failed."""

    NOTHING = False
    ALL = True
    NOT_KNOWN = None  # it went away between a commit and its answer


class Writes:
    """What a request writes: called for each of its statements (`connection.execute_wrapper`)."""

    def __init__(self) -> None:
        self.kept = Kept.NOTHING

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        writes, atomic = _WRITE.match(sql), connection.in_atomic_block
        if self.kept is Kept.NOTHING and writes and not atomic:
            self.kept = Kept.NOT_KNOWN
        try:
            done = execute(sql, params, many, context)
        except Exception as error:
            # A transaction that breaks off before its commit leaves nothing.
            if atomic and self.kept is Kept.NOT_KNOWN and db_health.is_outage(error):
                self.kept = Kept.NOTHING
            raise
        if writes and atomic and self.kept is not Kept.ALL:
            self.kept = Kept.NOT_KNOWN
            transaction.on_commit(self._committed)
        elif writes:
            self.kept = Kept.ALL
        return done

    def _committed(self) -> None:
        self.kept = Kept.ALL


class OutageMiddleware:
    """Answers 503 at once while the database is away, and knows what each form has left in it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        # Who waits for a server that is silent waits for seconds, on one of a few threads. A file
        # that can't be written is read as ever, and its lock not waited for.
        if not db_health.check():
            if connection.vendor != "sqlite":
                return answer(request)
            with db_health.unwaiting():
                return self._answer(request)
        return self._answer(request)

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        if request.method in _READING:
            return self.get_response(request)
        # Opened first: a connection has wrappers of its own from its beginning, if any.
        connection.ensure_connection()
        request._writes = writes = Writes()  # type: ignore[attr-defined]
        with connection.execute_wrapper(writes):
            return self.get_response(request)


def kept(request: HttpRequest) -> Kept:
    """Return what a request has left in the database."""
    writes: Writes | None = getattr(request, "_writes", None)
    return writes.kept if writes is not None else Kept.NOTHING


def sentence() -> str:
    """Say since when the database is away."""
    since = db_health.away_since()
    if since is None:  # it is back by now
        return _("The database did not answer.")
    local = timezone.localtime(since)
    time = f"{local:%H:%M:%S} {timezones.label(local)}"
    return _("The database has not answered since %(time)s.") % {"time": time}


def of_what_was_sent(request: HttpRequest) -> str:
    """Say what became of a form or an API's POST; nothing of a request that only reads."""
    if request.method in _READING:
        return ""
    match kept(request):
        case Kept.NOTHING:
            return _("Nothing was written and nothing was sent to Northflank. Try again.")
        case Kept.ALL:
            return _("What you sent was written down before that, and goes on by itself.")
        case Kept.NOT_KNOWN:
            return _("Whether it was written down will be seen once the database answers.")


def answer(request: HttpRequest) -> HttpResponse:
    """503: say since when, what became of a form, and that the page goes on by itself."""
    sent = of_what_was_sent(request)
    acted = request.method not in _READING
    if request.path_info.startswith("/api/"):
        told = " ".join(filter(None, [sentence(), sent]))
        beside = {"written": kept(request).value} if acted else {}
        response = failure(Failed(503, "database_away", told, beside=beside))
    elif request.headers.get("HX-Request") == "true" or not request.accepts("text/html"):
        goes_on = "" if acted else _("What you see is from before. Trying again.")
        told = " ".join(filter(None, [sentence(), sent, goes_on]))
        response = HttpResponse(told, status=503, content_type="text/plain; charset=utf-8")
    else:
        onward = sign_in.page_about(request) if acted else request.get_full_path()
        parts = {
            "everywhere": site_context.of(request),
            "since": sentence(),
            "sent": sent,
            "onward_to": onward,
            "seconds": READ_FIRST if acted else RETRY_AFTER,
        }
        response = HttpResponse(render_to_string("503.html", parts), status=503)
    response["Retry-After"] = str(RETRY_AFTER)
    response["Cache-Control"] = "no-store"
    response._has_been_logged = True  # type: ignore[attr-defined]  # once: by database_health
    return response
