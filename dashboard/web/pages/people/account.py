"""An account: its groups, rights and changes; change it."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import demo, permissions, rights_changes
from dashboard.accounts.administration import account_changes, administrators, rights_overview
from dashboard.accounts.administration.administrators import Conflict
from dashboard.accounts.authentication import auth_proxy, identity_sources
from dashboard.accounts.authentication.identity_sources import IdentitySource
from dashboard.models.catalog import StageName
from dashboard.web.components import api_tokens
from dashboard.web.components.rights import account_form, changes, table, texts
from dashboard.web.components.rights.account_form import AccountForm
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication.sign_in import signed_in_user

RECENT_CHANGES = 10


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def account(request: HttpRequest, key: int) -> HttpResponse:
    """Show an account (GET), or change it (POST)."""
    if request.method != "POST":
        return render_account(request, key)
    lookup.get_account_or_404(key)
    form = account_form.parse(request.POST)
    version = request.POST.get("version", "")

    def show(text: str, status: int) -> HttpResponse:
        typed_form = None if status == Conflict.status else form
        return render_account(request, key, {"": [text]}, status, typed_form)

    return make_change(
        request,
        lambda author: account_changes.change_account(author, key, form.settings, version),
        _("Saved. It applies from the next request."),
        lambda _changed: reverse("account", args=[key]),
        show,
    )


def render_account(
    request: HttpRequest,
    key: int,
    form_errors: dict[str, list[str]] | None = None,
    status: int = 200,
    form: AccountForm | None = None,
) -> HttpResponse:
    """Render the page; `form_errors` are those of fields, or of "", the whole form.

    Raise PageNotFound if there is no such account: it may have been deleted during the request.
    """
    user = lookup.get_account_or_404(key)
    subject = rights_changes.account(user.pk)
    administrator = signed_in_user(request)
    problems = form_errors or {}
    password_permission = account_changes.password_permission(administrator, user)
    user_permissions = permissions.for_user(user)
    source = identity_sources.find(user)
    context = {
        "nav": "status",
        "tab": "people",
        "account": user,
        "is_demo": user.groups.filter(name=demo.GROUP).exists(),
        "source": source,
        "is_administrator": administrators.may_administer(user),
        "is_own": user.pk == administrator.pk,
        "edit_permission": account_changes.edit_permission(administrator, user),
        "password_permission": password_permission,
        "is_password_on_my_account": account_changes.is_on_my_account(password_permission),
        "is_superuser": administrator.is_superuser,
        "can_hand_over": bool(settings.AUTH_PROXY_HEADER)
        and source != IdentitySource.PROXY
        and auth_proxy.handover_permission(user).allowed,
        "form": form
        or AccountForm(
            user.username,
            user.is_active,
            user.is_staff,
            user.is_superuser,
            frozenset(user.groups.values_list("pk", flat=True)),
        ),
        "form_errors": problems.get("", []),
        "password_errors": problems.get("password", []),
        "groups": account_changes.choosable_groups(),
        "version": rights_changes.version(rights_changes.snapshot(subject)[subject]),
        **api_tokens.context(
            user, lambda token: reverse("account_token_revoke", args=[user.pk, token.pk])
        ),
        "table": table.load(user_permissions),
        "answer": _answer(request.GET, user, user_permissions),
        "changes": changes.load_page(changes.ChangeFilter(subject=subject), RECENT_CHANGES),
        "subject_id": subject.id,
    }
    return render(request, "pages/people/account.html", context, status=status)


def _answer(
    query: QueryDict, user: User, user_permissions: permissions.Permissions
) -> dict[str, Any] | None:
    """Return what the account may do in the project and stage of the query string, if given."""
    slug, stage = query.get("project", ""), query.get("stage", "").capitalize()
    if not slug and not stage:
        return None
    project = lookup.find_project(slug)
    if (slug and project is None) or stage not in {"", *StageName.values}:
        return {"problem": _("This project or stage does not exist.")}
    right = rights_overview.right_in(user_permissions, project.pk if project else 0, stage)
    project_text = texts.project_text(str(project) if project else "")
    return {
        "question": texts.place_text(stage, project_text),
        "label": texts.action_label(right.action),
        "reasons": texts.reasons(user_permissions, right, project_text),
    }
