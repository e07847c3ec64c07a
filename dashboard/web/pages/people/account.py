"""An account: its groups, rights and changes; change it, set its password, revoke its tokens."""

from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.accounts import demo, permissions, rights_changes
from dashboard.accounts.administration import account_changes, administrators
from dashboard.accounts.administration.administrators import Conflict
from dashboard.accounts.authentication import auth_proxy, external_groups
from dashboard.models import ApiToken
from dashboard.web.components import api_tokens
from dashboard.web.components.rights import changes, table
from dashboard.web.components.rights.account_form import AccountForm
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication import password_checks
from dashboard.web.http.authentication.sign_in import signed_in_user


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def account(request: HttpRequest, key: int) -> HttpResponse:
    """Show an account (GET), or change it (POST)."""
    if request.method != "POST":
        return _render(request, key)
    lookup.get_account_or_404(key)
    form, version = AccountForm(request.POST), request.POST.get("version", "")
    if not form.is_valid():
        return _render(request, key, status=422, form=form)

    def refuse(error: str, status: int) -> HttpResponse:
        chosen = {} if status == Conflict.status else {"form": form}
        return _render(request, key, error, status, **chosen)

    return make_change(
        request,
        lambda author: account_changes.change_account(author, key, form.settings, version),
        _("Saved. It applies from the next request."),
        reverse("account", args=[key]),
        refuse,
    )


@require_POST
@for_administrators
@sensitive_post_parameters("password")
def account_password(request: HttpRequest, key: int) -> HttpResponse:
    """Set the password of an account, which ends its sessions."""
    password = request.POST.get("password", "")
    try:
        validate_password(password, lookup.get_account_or_404(key))
    except ValidationError as error:
        return _render(request, key, status=422, password_errors=error.messages)

    def save(hashed: str) -> HttpResponse:
        return make_change(
            request,
            lambda author: account_changes.set_password(author, key, hashed),
            _("Password set."),
            reverse("account", args=[key]),
            partial(_render, request, key),
        )

    return password_checks.queue_check(
        password_checks.own_attempt(request),
        partial(make_password, password),
        then=save,
        render=lambda text: _render(request, key, status=503, password_errors=[text]),
    )


@require_POST
@for_administrators
def account_token_revoke(request: HttpRequest, key: int, token_key: int) -> HttpResponse:
    """Revoke an API token of an account for good."""
    token = get_object_or_404(ApiToken.objects.select_related("user"), user=key, pk=token_key)
    return make_change(
        request,
        lambda author: account_changes.revoke_token(author, token),
        _("Token “%(name)s” revoked.") % {"name": token.name},
        reverse("account", args=[key]),
        partial(_render, request, key),
    )


def _render(
    request: HttpRequest, key: int, error: str = "", status: int = 200, **shown: Any
) -> HttpResponse:
    """Render the page; `error` says what was not changed, and why, and `shown` what was entered.

    Raise PageNotFound if there is no such account: it may have been deleted during the request.
    """
    user = lookup.get_account_or_404(key)
    subject = rights_changes.account(user.pk)
    administrator = signed_in_user(request)
    password_permission = account_changes.password_permission(administrator, user)
    source, decides_groups = external_groups.find_source(user)
    context = {
        "account": user,
        "is_demo": user.groups.filter(name=demo.GROUP).exists(),
        "source": source,
        "source_decides_groups": decides_groups,
        "is_own": user.pk == administrator.pk,
        "edit_permission": administrators.change_permission(),
        "password_permission": password_permission,
        "can_hand_over": bool(settings.AUTH_PROXY_HEADER)
        and source != external_groups.PROXY
        and auth_proxy.handover_permission(user).allowed,
        "form": AccountForm.of(user),
        "error": error,
        "version": rights_changes.version(subject),
        **api_tokens.context(
            user, lambda token: reverse("account_token_revoke", args=[user.pk, token.pk])
        ),
        "table": table.load(permissions.for_user(user)),
        **changes.recent(subject),
        **shown,
    }
    return render(request, "pages/people/account.html", context, status=status)
