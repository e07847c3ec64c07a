"""The page of a sign-in link: one button, since a link preview must not use it up."""

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts.authentication import sign_in_link as links
from dashboard.web.http import errors
from dashboard.web.http.authentication import known_browsers


@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    """Show whom the link signs in; a POST does so. One that is not valid gets a 403."""
    is_used = request.method == "POST"
    account = links.find_account(token)
    if account is None or (is_used and not links.use(account)):
        text = _(
            "This sign-in link has been used, is older than ten minutes, or is incomplete. Ask "
            "whoever operates the dashboard for another one."
        )
        return errors.forbidden(request, text, [(_("Sign in"), reverse("login"))])
    if not is_used:
        return render(request, "pages/accounts/sign_in_link.html", {"account": account})
    login(request, account, backend=links.BACKEND)
    response = redirect("now")
    known_browsers.remember(request, response, account.get_username())
    return response
