"""The stream of changes that an open page listens to."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_GET

from dashboard.accounts import permissions
from dashboard.models import AbortBatch, Pipeline, Run, Stage
from dashboard.web.http import keys, timezones
from dashboard.web.live.feed import feed
from dashboard.web.live.parts import PAGES, Channel


@require_GET
def live(request: HttpRequest) -> HttpResponseBase:
    """Stream what changes on a page: `page` and `key` say which, `since` what it shows already."""
    channel = _channel(request)
    source = feed()
    if source is None:  # pages then ask for their live region again and again
        return HttpResponse("No stream here.", status=503, content_type="text/plain")
    since = keys.read(request.headers.get("Last-Event-ID") or request.GET.get("since", ""))
    return StreamingHttpResponse(
        source.follow(channel, since, request.user.pk or 0),
        content_type="text/event-stream",
        headers={
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx would hold messages back
            "Content-Encoding": "identity",  # compressing would cost each viewer 100 KB
        },
    )


def _channel(request: HttpRequest) -> Channel:
    rights = permissions.rights(request.user)
    page, pk = request.GET.get("page", ""), keys.read(request.GET.get("key", "0"))
    if page not in PAGES or pk is None:
        raise Http404
    seen = {
        "pipeline": Pipeline.objects.filter(rights.projects("project")),
        "stage": Stage.objects.filter(rights.places()),
        "run": Run.objects.filter(rights.places("stage")),
        "batch": AbortBatch.objects.filter(rights.places("items__run__stage")),
    }
    found = seen[page].filter(pk=pk).exists() if page in seen else pk == 0
    if not found:
        raise Http404
    return Channel(page, pk, rights, timezones.of(request))
