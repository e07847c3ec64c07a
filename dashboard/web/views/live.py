"""The stream of changes that an open page listens to."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_GET

from dashboard import access
from dashboard.models import Pipeline, Run, Stage
from dashboard.web.feed import feed
from dashboard.web.fragments import PAGES, Channel


@require_GET
def live(request: HttpRequest) -> HttpResponseBase:
    """Stream what changes on a page: `page` and `key` say which, `since` what it shows already."""
    channel = _channel(request)
    source = feed()
    if source is None:  # pages then ask for their live region again and again
        return HttpResponse("No stream here.", status=503, content_type="text/plain")
    last = request.headers.get("Last-Event-ID") or request.GET.get("since", "")
    since = int(last) if last.isascii() and last.isdecimal() and len(last) < 19 else None
    return StreamingHttpResponse(
        source.follow(channel, since),
        content_type="text/event-stream",
        headers={
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx would hold messages back
            "Content-Encoding": "identity",  # compressing would cost each viewer 100 KB
        },
    )


def _channel(request: HttpRequest) -> Channel:
    page, key = request.GET.get("page", ""), request.GET.get("key", "0")
    if page not in PAGES or not (key.isascii() and key.isdecimal() and len(key) < 19):
        raise Http404
    pk = int(key)
    stage = None
    found = pk == 0
    if page == "pipeline":
        found = Pipeline.objects.filter(pk=pk).exists()
    elif page == "stage":
        stage = Stage.objects.filter(pk=pk).first()
        found = stage is not None
    elif page == "run":
        run = Run.objects.select_related("stage").without_detail().filter(pk=pk).first()
        stage = run.stage if run else None
        found = run is not None
    if not found:
        raise Http404
    return Channel(page, pk, access.may_abort(request.user, stage))
