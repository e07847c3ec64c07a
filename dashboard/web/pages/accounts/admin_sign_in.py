"""The admin's sign-in page, which redirects to ours."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.web.http import errors


@login_not_required
def admin_sign_in(request: HttpRequest) -> HttpResponseBase:
    """Redirect from the admin's sign-in page to ours, so that passwords are checked in one place.

    The admin sends signed-in users here, too, who may not open it: they get a 403.
    """
    url = LoginView(request=request).get_redirect_url() or reverse("admin:index")
    if admin.site.has_permission(request):
        return redirect(url)
    if request.user.is_authenticated:
        return errors.forbidden(request, _("Your account may not open the admin."))
    return redirect_to_login(url)
