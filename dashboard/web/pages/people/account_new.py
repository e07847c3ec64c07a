"""Add an account."""

from functools import partial

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from dashboard.accounts.administration import account_changes
from dashboard.accounts.authentication import break_glass
from dashboard.web.components.rights.account_form import NewAccountForm
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication import password_checks


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
@sensitive_post_parameters("password")
def account_new(request: HttpRequest) -> HttpResponse:
    """Show the form (GET), or add an account (POST)."""
    if request.method != "POST":
        return _render(request, NewAccountForm())
    form = NewAccountForm(request.POST)
    if not form.is_valid():
        return _render(request, form, status=422)

    def add(hashed: str) -> HttpResponse:
        return make_change(
            request,
            lambda author: account_changes.add_account(
                author, form.cleaned_data["username"], hashed, form.settings
            ),
            _("Account added."),
            lambda user: reverse("account", args=[user.pk]),
            partial(_render, request, form),
        )

    if not (password := form.cleaned_data["password"]):
        return add("")
    return password_checks.queue_check(
        password_checks.own_attempt(request),
        partial(make_password, password),
        then=add,
        render=lambda text: _render(request, form, text, 503),
    )


def _render(
    request: HttpRequest, form: NewAccountForm, error: str = "", status: int = 200
) -> HttpResponse:
    username = form["username"].value() or ""
    context = {
        "form": form,
        "error": error,
        "has_password_field": settings.PASSWORD_SIGN_IN or break_glass.is_name(username),
    }
    return render(request, "pages/people/account_new.html", context, status=status)
