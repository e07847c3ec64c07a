"""Ask that a channel be told when a run ends, or take that back."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.notices import end_requests
from dashboard.web.http import links, lookup
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.responses.htmx import is_htmx, text_response
from dashboard.web.pages.run import RunCard


@require_http_methods(["GET", "HEAD", "POST"])
def end_request(request: HttpRequest, **ids: str) -> HttpResponse:
    """Render the user's form (GET), or ask for the channel `request`, or `withdraw` (POST)."""
    user_permissions = permissions.for_user(request.user)
    run = lookup.get_run_or_404(user_permissions, **ids)
    user = sign_in.signed_in_user(request)
    if request.method == "POST":
        withdrawn = request.POST.get("withdraw", "")
        channel = (withdrawn or request.POST.get("request", "")).replace("\0", "")
        try:
            end_requests.request(run, user, channel, is_wanted=not withdrawn)
        except end_requests.NotOpen:
            text = _("No message will be sent: the run has ended or the channel is gone.")
            if is_htmx(request):
                return text_response(text, 409)
            messages.info(request, text, extra_tags="info")
    if not is_htmx(request):
        return redirect(links.run_url(run))
    part = "card" if request.method == "POST" else "end-requests"
    return HttpResponse(RunCard.load(run, user_permissions, user.pk).render(request, part))
