"""Set the password of an account; its page shows why a password was refused."""

from functools import partial

from django.contrib.auth.hashers import make_password
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from dashboard.accounts.administration import account_changes
from dashboard.web.components.rights import account_form
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication import password_checks
from dashboard.web.pages.people.account import render_account


@require_POST
@for_administrators
@sensitive_post_parameters("password")
def account_password(request: HttpRequest, key: int) -> HttpResponse:
    """Set the password of an account, which ends its sessions."""
    user = lookup.get_account_or_404(key)
    password = request.POST.get("password", "")
    problems = account_form.password_problems(password, user)
    if problems:
        return render_account(request, key, {"password": problems}, status=422)

    def save(hashed: str) -> HttpResponse:
        return make_change(
            request,
            lambda author: account_changes.set_password(author, key, hashed),
            _("Password set."),
            lambda _changed: reverse("account", args=[key]),
            partial(show, ""),
        )

    def show(field: str, text: str, status: int) -> HttpResponse:
        return render_account(request, key, {field: [text]}, status)

    return password_checks.queue_check(
        partial(make_password, password),
        then=save,
        render=lambda text: show("password", text, 503),
    )
