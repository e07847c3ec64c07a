"""Endpoint of Northflank's notification webhook; sync/webhooks/events.py handles the events."""

import hmac
import json
import math

import structlog
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from dashboard.accounts.authentication import throttle
from dashboard.accounts.authentication.throttle import Counter
from dashboard.db.threads import now
from dashboard.sync.webhooks import events as webhook_events
from dashboard.sync.webhooks.events import Event

log = structlog.get_logger(__name__)

HEADER_PREFIX = "X-Northflank-Notification-Integration-"
TOKEN_HEADER = f"{HEADER_PREFIX}Token"


@csrf_exempt
@login_not_required
@require_POST
def northflank_webhook(request: HttpRequest) -> HttpResponse:
    """Store a webhook event: 200 once stored, 401 without the token, 400 if invalid.

    403 by HTTP if BASE_URL has https.
    Requests without the token get a 429 after the first ones; those with it are never throttled.
    """
    if not settings.NORTHFLANK_WEBHOOK_SECRET:
        raise Http404
    if settings.HTTPS and not request.is_secure():
        return _text_response(403, "Use HTTPS; replace the secret: it was not encrypted.")
    if not is_valid_token(request.headers.get(TOKEN_HEADER, "")):
        return _refuse()
    event = _parse_event(request)
    if event is None:
        return _text_response(400, "Not an event")
    webhook_events.handle_event(event, now())
    return _text_response(200, "ok")


def _refuse() -> HttpResponse:
    # One counter for all addresses: strangers write to the database once in some seconds at most.
    counters, at = [Counter(throttle.WEBHOOK, "")], now()
    if wait := throttle.remaining_wait(counters, at):
        response = _text_response(429, "Too many requests")
        response["Retry-After"] = str(math.ceil(wait.total_seconds()))
    else:
        throttle.count(counters, at)
        if webhook_events.record_rejection(at):
            log.warning("webhook.refused", why="wrong or missing token")
        response = _text_response(401, "Unauthorized")
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def is_valid_token(token: str) -> bool:
    """Return whether this is one of the webhook's secrets."""
    # As bytes: compare_digest rejects non-ASCII text. Every secret is compared, so that the
    # response time does not show which one was nearly right.
    secrets = settings.NORTHFLANK_WEBHOOK_SECRET
    matches = [hmac.compare_digest(token.encode(), secret.encode()) for secret in secrets]
    return any(matches)


def _parse_event(request: HttpRequest) -> Event | None:
    try:
        payload = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(payload, dict):
        return None
    name = payload.get("event") or request.headers.get(f"{HEADER_PREFIX}Event-Type", "")
    if not isinstance(name, str):
        return None
    return Event(name, payload.get("data"), request.headers.get(f"{HEADER_PREFIX}Event-Id", ""))


def _text_response(status: int, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")
