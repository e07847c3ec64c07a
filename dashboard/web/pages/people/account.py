"""An account: its groups, rights and changes; add an account, change it, set its password."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.accounts import demo, permissions, usernames
from dashboard.accounts.administration import account_changes, administrators, rights
from dashboard.accounts.administration.account_changes import AccountSettings
from dashboard.accounts.administration.administrators import AdministrationError, Conflict
from dashboard.accounts.authentication import identity_sources
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import changes, table, texts
from dashboard.web.http import keys, lookup
from dashboard.web.http.administrators import (
    author,
    for_administrators,
    redirect_after_change,
    refuse_change,
)
from dashboard.web.http.authentication import password_checks
from dashboard.web.http.authentication.sign_in import signed_in_user

RECENT_CHANGES = 10


@dataclass
class AccountForm:
    """What the form of an account shows and has sent."""

    username: str = ""
    is_active: bool = True
    is_staff: bool = False
    is_superuser: bool = False
    group_keys: frozenset[int] = frozenset()
    errors: dict[str, list[str]] = field(default_factory=dict)  # by field; "": of the whole form

    @property
    def settings(self) -> AccountSettings:
        """What the administrator has chosen."""
        return AccountSettings(self.is_active, self.is_staff, self.is_superuser, self.group_keys)


def _read_form(form: QueryDict) -> AccountForm:
    return AccountForm(
        username=form.get("username", "").strip(),
        is_active="active" in form,
        is_staff="staff" in form,
        is_superuser="superuser" in form,
        group_keys=frozenset(keys.parse_pks(form.getlist("group"))),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
@sensitive_post_parameters("password")
def add_account(request: HttpRequest) -> HttpResponse:
    """Show the form (GET), or add an account (POST)."""
    if request.method != "POST":
        return _render_new(request, AccountForm())
    form = _read_form(request.POST)
    password = request.POST.get("password", "")
    if problems := _username_problems(form.username):
        form.errors["username"] = problems
    if password and (problems := _password_problems(password, User(username=form.username))):
        form.errors["password"] = problems
    if form.errors:
        return _render_new(request, form, status=422)

    def add(hashed: str) -> HttpResponse:
        try:
            user = account_changes.add_account(
                author(request), form.username, hashed, form.settings
            )
        except AdministrationError as error:
            return refuse_change(request, error, show)
        return redirect_after_change(request, _("Account added."), "account", key=user.pk)

    def show(text: str, status: int) -> HttpResponse:
        form.errors[""] = [text]
        return _render_new(request, form, status)

    if not password:
        return add("")
    return password_checks.queue_check(
        partial(make_password, password),
        is_reserved=True,
        then=add,
        render=lambda text: show(text, 503),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def account(request: HttpRequest, key: int) -> HttpResponse:
    """Show an account (GET), or change it (POST)."""
    user = get_object_or_404(User, pk=key)
    if request.method != "POST":
        return _render_account(request, user)
    form = _read_form(request.POST)
    try:
        account_changes.change_account(
            author(request), key, form.settings, request.POST.get("version", "")
        )
    except AdministrationError as error:
        typed_form = None if isinstance(error, Conflict) else form

        def show(text: str, status: int) -> HttpResponse:
            return _render_account(request, user, {"": [text]}, status, typed_form)

        return refuse_change(request, error, show)
    return redirect_after_change(
        request, _("Saved. It applies from the next request."), "account", key=key
    )


@require_POST
@for_administrators
@sensitive_post_parameters("password")
def account_password(request: HttpRequest, key: int) -> HttpResponse:
    """Set the password of an account, which ends its sessions."""
    user = get_object_or_404(User, pk=key)
    password = request.POST.get("password", "")
    problems = _password_problems(password, user)
    if problems:
        return _render_account(request, user, {"password": problems}, status=422)

    def save(hashed: str) -> HttpResponse:
        try:
            account_changes.set_password(author(request), key, hashed)
        except AdministrationError as error:
            return refuse_change(request, error, lambda text, status: show("", text, status))
        return redirect_after_change(request, _("Password set."), "account", key=key)

    def show(field: str, text: str, status: int) -> HttpResponse:
        return _render_account(request, user, {field: [text]}, status)

    return password_checks.queue_check(
        partial(make_password, password),
        is_reserved=True,
        then=save,
        render=lambda text: show("password", text, 503),
    )


def _username_problems(username: str) -> list[str]:
    if not 0 < len(username) <= usernames.MAX_LENGTH:
        text = _("A user name has 1 to %(max)d characters.")
        return [text % {"max": usernames.MAX_LENGTH}]
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError as error:
        return error.messages
    return []


def _password_problems(password: str, user: User) -> list[str]:
    try:
        validate_password(password, user)
    except ValidationError as error:
        return error.messages
    return []


def _render_new(request: HttpRequest, form: AccountForm, status: int = 200) -> HttpResponse:
    context = {
        "nav": "status",
        "tab": "people",
        "form": form,
        "form_errors": form.errors.get("", []),
        "groups": account_changes.choosable_groups(),
        "is_superuser": signed_in_user(request).is_superuser,
    }
    return render(request, "pages/people/account_new.html", context, status=status)


def _render_account(
    request: HttpRequest,
    user: User,
    form_errors: dict[str, list[str]] | None = None,
    status: int = 200,
    form: AccountForm | None = None,
) -> HttpResponse:
    user.refresh_from_db()
    subject = rights.account(user.pk)
    administrator = signed_in_user(request)
    problems = form_errors or {}
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
        "password_permission": account_changes.password_permission(administrator, user),
        "is_superuser": administrator.is_superuser,
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
        "version": rights.version(rights.snapshot(subject)[subject]),
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
    right = user_permissions.right_at(project.pk if project else 0, stage)
    project_text = texts.project_text(str(project) if project else "")
    return {
        "question": texts.place_text(stage, project_text),
        "label": texts.action_label(right.action),
        "reasons": texts.reasons(user_permissions, right, project_text),
    }
