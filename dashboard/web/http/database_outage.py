"""Responses during a database outage: 503, and whether a submitted form was saved.

Open pages keep their content and show a notice; requested pages load once the database is back. A
form or API request is never resent, so the response says whether it was saved.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from enum import Enum
from typing import Any

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext_lazy

from dashboard.db import health as db_health
from dashboard.texts import local_time
from dashboard.texts.rich_text import Message, MessageTable, join_texts, to_text
from dashboard.web.http import links, site_context
from dashboard.web.http.methods import SAFE_METHODS
from dashboard.web.http.responses.htmx import is_htmx
from dashboard.web.http.responses.json_responses import ApiError, error_response

RETRY_SECONDS = 5  # seconds until a page reloads
RETRY_SECONDS_AFTER_WRITE = (
    15  # seconds; longer, so that the user can read the result of the submitted form
)

# Bookkeeping of the session, the token and the sign-in: not part of the reported outcome.
_IGNORED_TABLES = "dashboard_accessevent|dashboard_failurecounter"
_IGNORED_UPDATES = (
    'auth_user" SET "last_login|dashboard_apitoken" SET "(last_used_at|window_requests)'
)
_WRITE_STATEMENT = re.compile(
    r"\s*(INSERT (OR \w+ )?INTO|UPDATE|DELETE FROM) "
    rf'"(?!({_IGNORED_TABLES}|{_IGNORED_UPDATES})")'
)
_SESSION_USE = re.compile(r'(INSERT INTO|UPDATE) "dashboard_session"')  # not its end
_text = MessageTable(
    {
        # By the cause of the outage.
        "no_response": gettext_lazy("The database has not responded since %(time)s."),
        "no_changes": gettext_lazy("The database has accepted no changes since %(time)s."),
        # By what a request has saved.
        "nothing": gettext_lazy("Nothing was saved and nothing was sent to Northflank. Try again."),
        "all": gettext_lazy("Your request was saved before the outage and will be completed."),
        "unknown": gettext_lazy(
            "Your request may or may not have been saved. Check once the database responds."
        ),
        "retrying": gettext_lazy("Showing last known data. Retrying."),
    }
)


class WriteOutcome(Enum):
    """What a request has saved in the database up to its failure."""

    NOTHING = False
    ALL = True
    UNKNOWN = None  # the connection was lost between a commit and its response


class WriteTracker:
    """Tracks a request's writes; called for each SQL statement (see `track_writes`)."""

    def __init__(self) -> None:
        self.outcome = WriteOutcome.NOTHING

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        is_atomic = connection.in_atomic_block
        is_write = _WRITE_STATEMENT.match(sql) and not _SESSION_USE.match(sql)
        if self.outcome is WriteOutcome.NOTHING and is_write and not is_atomic:
            self.outcome = WriteOutcome.UNKNOWN
        try:
            result = execute(sql, params, many, context)
        except Exception as error:
            # A transaction that fails before its commit saves nothing.
            if is_atomic and self.outcome is WriteOutcome.UNKNOWN and db_health.is_outage(error):
                self.outcome = WriteOutcome.NOTHING
            raise
        if is_write and is_atomic and self.outcome is not WriteOutcome.ALL:
            self.outcome = WriteOutcome.UNKNOWN
            transaction.on_commit(self._mark_committed)
        elif is_write:
            self.outcome = WriteOutcome.ALL
        return result

    def _mark_committed(self) -> None:
        self.outcome = WriteOutcome.ALL


class OutageMiddleware:
    """Answer 503 immediately during a database outage, and track the writes of unsafe requests."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        # A server that does not respond would block one of few threads for seconds. One that only
        # accepts no changes can be read; SQLite without waiting for the lock.
        db_health.close_outdated_connection()
        is_available = db_health.is_available()
        if not (is_available or connection.vendor == "sqlite" or db_health.is_responding()):
            return unavailable_response(request)
        waiting = nullcontext() if is_available else db_health.without_lock_wait()
        with waiting, track_writes(request):
            return self.get_response(request)


@contextmanager
def track_writes(request: HttpRequest) -> Iterator[None]:
    """Track what an unsafe request writes in this thread, for `write_outcome`.

    For the part of a deferred request after its wait, entered again, it goes on from its outcome.
    """
    if request.method in SAFE_METHODS:
        yield
        return
    tracker: WriteTracker | None = getattr(request, "write_tracker", None)
    if tracker is None:
        request.write_tracker = tracker = WriteTracker()  # type: ignore[attr-defined]
    # Not by `execute_wrapper`, which removes the last one: a new connection may add its own.
    connection.execute_wrappers.append(tracker)
    try:
        yield
    finally:
        connection.execute_wrappers.remove(tracker)


def write_outcome(request: HttpRequest) -> WriteOutcome:
    """Return what a failed request has saved in the database."""
    tracker: WriteTracker | None = getattr(request, "write_tracker", None)
    outcome = tracker.outcome if tracker is not None else WriteOutcome.NOTHING
    if outcome is WriteOutcome.UNKNOWN and connection.vendor == "sqlite":
        return WriteOutcome.NOTHING  # no response can be lost: the commit has failed
    return outcome


def outage_sentence(time: str) -> Message:
    """Return the sentence with the cause of the outage and its start, as the caller shows it."""
    return _text(db_health.outage_cause(), time=time)


def outage_message() -> Message:
    """Return a sentence with the start and the cause of the outage."""
    return outage_sentence(local_time.format_clock(_down_since()))


def _down_since() -> datetime:
    return db_health.down_since() or timezone.now()  # it is over since this request met it


def write_outcome_message(request: HttpRequest) -> Message | str:
    """Return whether a form or an API's POST was saved, as a sentence; empty for a safe request."""
    if request.method in SAFE_METHODS:
        return ""
    return _text(write_outcome(request).name.lower())


def unavailable_response(request: HttpRequest) -> HttpResponse:
    """Return a 503: start of the outage, whether a form was saved, and an automatic reload."""
    write_message = write_outcome_message(request)
    is_unsafe = request.method not in SAFE_METHODS
    if request.path_info.startswith("/api/"):
        message = to_text(join_texts(outage_message(), write_message))
        extra = {"recorded": write_outcome(request).value} if is_unsafe else {}
        response = error_response(ApiError("database_outage", message, extra=extra))
    elif is_htmx(request) or not request.accepts("text/html"):
        retry_message = write_message or _text("retrying")
        message = to_text(join_texts(outage_message(), retry_message))
        response = HttpResponse(message, status=503, content_type="text/plain; charset=utf-8")
    else:
        next_url = links.form_page_url(request) if is_unsafe else request.get_full_path()
        template_context = {
            "site": site_context.for_request(request),
            "down_since": _down_since(),
            "write_result": write_message,
            "continue_url": next_url,
            "reload_seconds": RETRY_SECONDS_AFTER_WRITE if is_unsafe else RETRY_SECONDS,
        }
        response = HttpResponse(render_to_string("errors/503.html", template_context), status=503)
    response["Retry-After"] = str(RETRY_SECONDS)
    response._has_been_logged = True  # type: ignore[attr-defined]  # by db/health.py
    return response
