"""An account: its groups, rights and changes; change it."""

from collections.abc import Collection

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import demo, permissions, rights_changes
from dashboard.accounts.administration import account_changes, administrators
from dashboard.accounts.administration.administrators import Conflict
from dashboard.accounts.authentication import auth_proxy, identity_sources
from dashboard.web.components import api_tokens
from dashboard.web.components.rights import changes, table
from dashboard.web.components.rights.account_form import AccountForm
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication.sign_in import signed_in_user


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def account(request: HttpRequest, key: int) -> HttpResponse:
    """Show an account (GET), or change it (POST)."""
    lookup.get_account_or_404(key)
    if request.method != "POST":
        return render_account(request, key)
    form, version = AccountForm(request.POST), request.POST.get("version", "")
    if not form.is_valid():
        return render_account(request, key, status=422, form=form)
    return make_change(
        request,
        lambda author: account_changes.change_account(author, key, form.settings, version),
        _("Saved. It applies from the next request."),
        reverse("account", args=[key]),
        lambda error, status: render_account(
            request, key, error, status, None if status == Conflict.status else form
        ),
    )


def render_account(
    request: HttpRequest,
    key: int,
    error: str = "",
    status: int = 200,
    form: AccountForm | None = None,
    password_errors: Collection[str] = (),
) -> HttpResponse:
    """Render the page; `error` says what was not changed, and why.

    Raise PageNotFound if there is no such account: it may have been deleted during the request.
    """
    user = lookup.get_account_or_404(key)
    subject = rights_changes.account(user.pk)
    administrator = signed_in_user(request)
    password_permission = account_changes.password_permission(administrator, user)
    source, decides_groups = identity_sources.find(user)
    context = {
        "nav": "my_account",
        "tab": "people",
        "account": user,
        "is_demo": user.groups.filter(name=demo.GROUP).exists(),
        "source": source,
        "source_decides_groups": decides_groups,
        "is_own": user.pk == administrator.pk,
        "edit_permission": administrators.change_permission(),
        "password_permission": password_permission,
        "is_password_on_my_account": account_changes.is_on_my_account(password_permission),
        "can_hand_over": bool(settings.AUTH_PROXY_HEADER)
        and source != identity_sources.PROXY
        and auth_proxy.handover_permission(user).allowed,
        "form": form or AccountForm.of(user),
        "error": error,
        "password_errors": password_errors,
        "version": rights_changes.version(subject),
        **api_tokens.context(
            user, lambda token: reverse("account_token_revoke", args=[user.pk, token.pk])
        ),
        "table": table.load(permissions.for_user(user)),
        **changes.recent(subject),
    }
    return render(request, "pages/people/account.html", context, status=status)
