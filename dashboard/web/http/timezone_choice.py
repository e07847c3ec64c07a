"""The switch at the foot of every page: in which zone its times are written."""

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from dashboard.web.http import timezones


@require_POST
def choose(request: HttpRequest) -> HttpResponse:
    """Keep the zone that this browser wants, and lead back to the page it came from."""
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}):
        back = reverse("now")
    response = redirect(back)
    wanted = request.POST.get("zone", "")
    if wanted == settings.TIME_ZONE:
        response.delete_cookie(
            timezones.COOKIE, settings.SESSION_COOKIE_PATH
        )  # who goes with the dashboard goes where it goes
    elif timezones.known(wanted):
        response.set_cookie(
            timezones.COOKIE,
            wanted,
            max_age=timezones.KEPT_FOR,
            path=settings.SESSION_COOKIE_PATH,
            secure=settings.HTTPS,
            httponly=True,
            samesite="Lax",
        )
    else:
        said = _("This dashboard knows no time zone “%(name)s”.") % {"name": wanted[:40]}
        messages.warning(request, said, extra_tags="warning")
    return response
