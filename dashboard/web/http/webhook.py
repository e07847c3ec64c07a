"""Northflank's notification webhook: a doorbell. Authentic events are heeded by sync/doorbell."""

import hmac
import json

import structlog
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from dashboard.db.threads import now
from dashboard.sync import webhook_events
from dashboard.sync.webhook_events import Event

log = structlog.get_logger(__name__)

HEADER = "X-Northflank-Notification-Integration-"
LARGEST = 64 * 1024  # bytes of a body; the documented one has a few hundred


@csrf_exempt
@login_not_required
@require_POST
def northflank(request: HttpRequest) -> HttpResponse:
    """Take an event: 200 once it is kept, 401 without the token, 413 or 400 for what is none."""
    if not settings.NORTHFLANK_WEBHOOK_SECRET:
        raise Http404
    if not _knows_the_secret(request):
        if webhook_events.note_refusal(now()):
            log.warning("webhook.refused", why="wrong or missing token")
        refusal = _answer(401, "Unauthorized")
        # Django would log each one, and anybody can send thousands.
        refusal._has_been_logged = True  # type: ignore[attr-defined]
        return refusal
    if len(request.body) > LARGEST:
        return _answer(413, "Too large")
    event = _decoded(request)
    if event is None:
        return _answer(400, "Not an event")
    webhook_events.heed(event, now())
    return _answer(200, "ok")


def _knows_the_secret(request: HttpRequest) -> bool:
    # As bytes: text with other letters than ASCII is refused by compare_digest. Each secret is
    # compared, so that the time tells nothing of which one was nearly right.
    sent = request.headers.get(f"{HEADER}Token", "").encode()
    same = [hmac.compare_digest(sent, s.encode()) for s in settings.NORTHFLANK_WEBHOOK_SECRET]
    return any(same)


def _decoded(request: HttpRequest) -> Event | None:
    try:
        said = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    name = said.get("event") or request.headers.get(f"{HEADER}Event-Type", "")
    if not isinstance(name, str):
        return None
    return Event(name, said.get("data"), request.headers.get(f"{HEADER}Event-Id", ""))


def _answer(status: int, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain")
