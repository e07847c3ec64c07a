"""Add an account."""

from functools import partial

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from dashboard.accounts import usernames
from dashboard.accounts.administration import account_changes
from dashboard.accounts.authentication import break_glass
from dashboard.web.components.rights import account_form
from dashboard.web.components.rights.account_form import AccountForm
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication import password_checks
from dashboard.web.http.authentication.sign_in import signed_in_user


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
@sensitive_post_parameters("password")
def account_new(request: HttpRequest) -> HttpResponse:
    """Show the form (GET), or add an account (POST)."""
    if request.method != "POST":
        return _render(request, AccountForm())
    form = account_form.parse(request.POST)
    password = request.POST.get("password", "")
    if problems := _username_problems(form.username):
        form.errors["username"] = problems
    if password and (
        problems := account_form.password_problems(password, User(username=form.username))
    ):
        form.errors["password"] = problems
    if form.errors:
        return _render(request, form, status=422)

    def add(hashed: str) -> HttpResponse:
        return make_change(
            request,
            lambda author: account_changes.add_account(
                author, form.username, hashed, form.settings
            ),
            _("Account added."),
            lambda user: reverse("account", args=[user.pk]),
            show,
        )

    def show(text: str, status: int) -> HttpResponse:
        form.errors[""] = [text]
        return _render(request, form, status)

    if not password:
        return add("")
    return password_checks.queue_check(
        partial(make_password, password),
        then=add,
        render=lambda text: show(text, 503),
    )


def _username_problems(username: str) -> list[str]:
    if not 0 < len(username) <= usernames.MAX_LENGTH:
        text = _("User names must have 1 to %(max)d characters.")
        return [text % {"max": usernames.MAX_LENGTH}]
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError as error:
        return error.messages
    return []


def _render(request: HttpRequest, form: AccountForm, status: int = 200) -> HttpResponse:
    context = {
        "nav": "status",
        "tab": "people",
        "form": form,
        "form_errors": form.errors.get("", []),
        "groups": account_changes.choosable_groups(),
        "has_password_field": settings.PASSWORD_SIGN_IN or break_glass.is_name(form.username),
        "is_superuser": signed_in_user(request).is_superuser,
    }
    return render(request, "pages/people/account_new.html", context, status=status)
