"""/metrics, for Prometheus: off unless METRICS_TOKEN or METRICS_ALLOW is set."""

import hmac
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.db import health as db_health
from dashboard.db.threads import run_in_db_thread
from dashboard.metrics import collector
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.live.feed import current_broadcaster


def answer_scrapes(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: answer /metrics for every Host header, unless it is off."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        is_on = settings.METRICS_TOKEN or settings.METRICS_ALLOW
        if request.path_info != "/metrics" or not is_on:
            return get_response(request)
        return metrics(request)

    return middleware


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with the metrics; 401 without the token, 403 to other addresses, if they are set."""
    if not _is_allowed(request):
        return _refusal(403, "Forbidden: see METRICS_ALLOW.")
    if not _has_token(request):
        response = _refusal(401, "Unauthorized")
        response["WWW-Authenticate"] = "Bearer"
        return response
    if not db_health.is_available():
        return _refusal(503, f"database: {db_health.outage_cause()}")
    broadcaster = current_broadcaster()
    viewers = broadcaster.hub.viewers if broadcaster is not None else 0
    accept = request.headers.get("Accept", "")
    # Not on the threads of pages.
    return Deferred(partial(run_in_db_thread, _render, accept, viewers), lambda answer: answer)


def _render(accept: str, viewers: int) -> HttpResponse:
    try:
        body, content_type = collector.render(accept, viewers)
    except (DatabaseError, InterfaceError) as error:
        db_health.record_failure(error)
        return _refusal(503, f"database: {type(error).__name__}")
    return HttpResponse(body, content_type=content_type)


def _is_allowed(request: HttpRequest) -> bool:
    address = client_address(request)
    networks = [ip_network(text) for text in settings.METRICS_ALLOW]
    return not networks or (
        address is not None and any(ip_address(address) in network for network in networks)
    )


def _has_token(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    # As bytes: compare_digest rejects non-ASCII text.
    is_equal = hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())
    return not settings.METRICS_TOKEN or (scheme.lower() == "bearer" and is_equal)


def _refusal(status: int, reason: str) -> HttpResponse:
    response = HttpResponse(f"{reason}\n", status=status, content_type="text/plain; charset=utf-8")
    response._has_been_logged = True  # type: ignore[attr-defined]  # a scrape repeats it for ever
    return response
