"""The event stream of an open page's changes."""

from django.core.exceptions import TooManyFieldsSent
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    QueryDict,
    StreamingHttpResponse,
)
from django.views.decorators.http import require_GET

from dashboard.accounts import permissions
from dashboard.accounts.sessions import SignedInSession
from dashboard.web.http import keys
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.responses import encodings
from dashboard.web.live import event_ids
from dashboard.web.live.changes import Channel
from dashboard.web.live.feed import current_broadcaster
from dashboard.web.live.page import PAGES

MAX_QUERY_LENGTH = 8_000  # characters; longer than any filter


@require_GET
def live_stream(request: HttpRequest) -> HttpResponseBase:
    """Stream the changes of the page given by `page` and `key`, after the event `since`."""
    channel = _channel(request)
    broadcaster = current_broadcaster()
    if broadcaster is None:  # pages then poll their live region
        return HttpResponse("No stream here.", status=503, content_type="text/plain; charset=utf-8")
    event_id = request.headers.get("Last-Event-ID") or request.GET.get("since", "")
    since = event_ids.decode(event_id, channel.permissions)
    session = SignedInSession(request.session.session_key or "", signed_in_user(request).password)
    if broadcaster.hub.is_full(session):
        return HttpResponse(
            "Too many open streams.", status=429, content_type="text/plain; charset=utf-8"
        )
    messages = broadcaster.stream(channel, since, session)
    is_compressed = "gzip" in encodings.accepted_encodings(request)
    return StreamingHttpResponse(
        encodings.compress_stream(messages) if is_compressed else messages,
        content_type="text/event-stream",
        headers={
            "X-Accel-Buffering": "no",  # nginx would hold messages back
            "Content-Encoding": "gzip" if is_compressed else "identity",
        },
    )


def _channel(request: HttpRequest) -> Channel:
    user_permissions = permissions.for_user(request.user)
    page, pk = request.GET.get("page", ""), keys.parse_pk(request.GET.get("key", "0"))
    query = request.GET.get("query", "")
    if page not in PAGES or pk is None or not _is_parsable(query):
        raise Http404
    if not PAGES[page].is_visible(user_permissions, pk):
        raise Http404
    return Channel(page, pk, user_permissions, query)


def _is_parsable(query: str) -> bool:
    """Return whether a page's query can be parsed in every round: no page has such an address."""
    try:
        QueryDict(query)
    except TooManyFieldsSent:
        return False
    return len(query) <= MAX_QUERY_LENGTH
