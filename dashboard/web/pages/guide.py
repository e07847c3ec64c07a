"""Help: a guide, rendered by the dashboard itself, so that it needs no internet."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from dashboard.web.components import guides


@require_safe
def guide(request: HttpRequest, name: str) -> HttpResponse:
    """Show a guide; without a name redirect to the first."""
    if not name:
        return redirect("guide", guides.NAMES[0])
    if name not in guides.NAMES:
        raise Http404
    all_guides = [guides.load(each) for each in guides.NAMES]
    context = {"guide": guides.load(name), "guides": all_guides}
    return render(request, "pages/guide.html", context)
