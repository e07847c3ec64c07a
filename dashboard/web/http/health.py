"""Probes: whether the process answers, whether the database does, and whether the sync reads."""

from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import __version__
from dashboard.db import health as db_health
from dashboard.db.threads import now
from dashboard.sync.reports import sync_state


def answer_probes(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: answer the probes for every Host header."""
    probes = {"/healthz": healthz, "/healthz/sync": healthz_sync, "/readyz": readyz}

    def middleware(request: HttpRequest) -> HttpResponseBase:
        probe = probes.get(request.path_info)
        if probe is None:
            return get_response(request)
        response = probe(request)
        response["Content-Length"] = str(len(response.content))  # CommonMiddleware is skipped
        return response

    return middleware


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 with the version: the process handles requests."""
    return HttpResponse(f"ok {__version__}\n", content_type="text/plain; charset=utf-8")


@require_safe
def healthz_sync(request: HttpRequest) -> HttpResponse:
    """Answer 200 if any process reads from Northflank, or will after a pause; else 503.

    For alerts: a proxy that took web processes out by this probe would take out all of them.
    """
    if not db_health.is_available():
        return _not_ready(f"database: {db_health.outage_cause()}")
    try:
        outage = sync_state.load(now()).outage
    except (DatabaseError, InterfaceError) as error:
        return _not_ready(f"database: {type(error).__name__}")
    if outage is not None and not outage.is_syncing:
        return _not_ready(outage.reason)
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if the database accepts changes, else 503 with the cause.

    Nothing is written: a full disk, or a SQLite file that is locked or read-only, counts from the
    first change of this process that fails. An outage of Northflank has no effect.
    """
    # A database that drops packets occupies a thread for seconds: during an outage only that of the
    # probe, so that `healthz` finds a free one.
    if not db_health.is_available():
        return _not_ready(f"database: {db_health.outage_cause()}")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM dashboard_upstream")
            is_read_only = False
            if connection.vendor == "postgresql":
                cursor.execute("SELECT current_setting('transaction_read_only')")
                is_read_only = cursor.fetchone() == ("on",)
    except (DatabaseError, InterfaceError) as error:
        if not db_health.record_failure(error):
            return _not_ready(f"database: {type(error).__name__}")
        return _not_ready(f"database: {db_health.outage_cause()}")
    if is_read_only and not db_health.probe():  # which records the outage for pages, too
        return _not_ready(f"database: {db_health.outage_cause()}")
    return HttpResponse("ready\n", content_type="text/plain; charset=utf-8")


def _not_ready(reason: str) -> HttpResponse:
    response = HttpResponse(f"{reason}\n", status=503, content_type="text/plain; charset=utf-8")
    response._has_been_logged = True  # type: ignore[attr-defined]  # by what found it, once
    return response
