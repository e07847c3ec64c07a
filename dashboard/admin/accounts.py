"""Accounts, groups, accounts of the proxy, and grants."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    AdminUserCreationForm,
    UserChangeForm,
)
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Field, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts import demo, usernames
from dashboard.accounts.administration import account_changes, administrators, group_changes
from dashboard.accounts.administration.administrators import Conflict, NotAllowed
from dashboard.admin.rights_log import EditLimitMixin, RightsLogMixin, VersionForm
from dashboard.models import Grant, ProxyAccount
from dashboard.models.accounts.grants import Action
from dashboard.web.http import errors
from dashboard.web.http.administrators import author
from dashboard.web.http.authentication.sign_in import signed_in_user

if TYPE_CHECKING:
    DjangoUserAdmin = UserAdmin[User]
    DjangoAddForm = AdminUserCreationForm[User]
    DjangoChangeForm = UserChangeForm[User]
    DjangoPasswordForm = AdminPasswordChangeForm[User]
    ProxyAccountModelForm = forms.ModelForm[ProxyAccount]
else:
    DjangoUserAdmin = UserAdmin  # generic in the stubs only
    DjangoAddForm = AdminUserCreationForm
    DjangoChangeForm = UserChangeForm
    DjangoPasswordForm = AdminPasswordChangeForm
    ProxyAccountModelForm = forms.ModelForm

admin.site.unregister([User, Group])


class AccountNameMixin:
    """Refuse names that would be read as another account's, and the break-glass account's.

    The latter not to superusers. `LoggedUserAdmin.get_form` sets the administrator.
    """

    administrator: User
    cleaned_data: dict[str, Any]
    changed_data: list[str]
    instance: User

    def clean_username(self) -> str:
        username: str = self.cleaned_data["username"]
        if "username" not in self.changed_data:
            return username
        problem = usernames.problem(username, except_key=self.instance.pk or 0)
        if problem is not None:
            raise ValidationError(str(problem))
        permission = account_changes.name_permission(self.administrator, username)
        if not permission.allowed:
            raise ValidationError(str(permission.denied_reason))
        return username


class AccountAddForm(AccountNameMixin, DjangoAddForm):
    """The form of a new account; only one that can use a password gets one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not settings.PASSWORD_SIGN_IN:
            self.fields["usable_password"].initial = "false"

    def clean(self) -> dict[str, Any] | None:
        cleaned_data = super().clean()
        account = User(username=self.cleaned_data.get("username", ""))
        permission = account_changes.password_use_permission(account)
        if self.cleaned_data["set_usable_password"] and not permission.allowed:
            self.add_error("usable_password", str(permission.denied_reason))
        return cleaned_data


class AccountChangeForm(AccountNameMixin, VersionForm, DjangoChangeForm):
    """The account's form; nobody joins the group of the demo accounts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Names from the proxy may have characters that Django's rule excludes, also if it sends
        # them in another case.
        self.is_known_name = False
        if (username := self.fields.get("username")) and self.is_bound:
            name: str = username.to_python(self["username"].data) or ""
            self.is_known_name = name.casefold() == self.instance.username.casefold()

    def _get_validation_exclusions(self) -> set[str]:
        # Not in the stubs.
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return excluded | ({"username"} if self.is_known_name else set())

    def clean_groups(self) -> QuerySet[Group]:
        groups: QuerySet[Group] = self.cleaned_data["groups"]
        if groups.filter(name=demo.GROUP).exists() and not _is_demo(self.instance):
            raise ValidationError(
                _("Only the sandbox adds accounts to “%(group)s”.") % {"group": demo.GROUP}
            )
        return groups

    def clean(self) -> dict[str, Any] | None:
        cleaned_data = super().clean()  # locks the account
        if "groups" in self.cleaned_data:
            # Without one that was deleted meanwhile, which would fail the commit. All are locked
            # before a new name is saved: after that no other transaction can refer to the account.
            keys = {group.pk for group in self.cleaned_data["groups"]}
            current_keys = self.instance.groups.values_list("pk", flat=True)
            groups = Group.objects.filter(pk__in=keys.union(current_keys)).order_by("pk")
            locked_groups = groups.select_for_update(no_key=True)
            self.cleaned_data["groups"] = [group for group in locked_groups if group.pk in keys]
        return cleaned_data


class AccountPasswordForm(DjangoPasswordForm):
    """The form of a new password, which it only hashes: `log_change` saves it."""

    usable_password = ""  # Django's template reads it, even if there is no such field

    @property
    def changed_data(self) -> list[str]:
        return ["password"]  # Django's names none if the account shall have none

    def save(self, commit: bool = True) -> User:
        return super().save(commit=False)


def _is_demo(account: User) -> bool:
    return account.groups.filter(name=demo.GROUP).exists()


@admin.register(User)
class LoggedUserAdmin(EditLimitMixin, DjangoUserAdmin):
    """Accounts, with the limits of /people/; superusers also give permissions."""

    form = AccountChangeForm
    add_form = AccountAddForm
    change_password_form = AccountPasswordForm

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.administrator = signed_in_user(request)
        return form

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        """Show and take the form of a new password, if the administrator may set it."""
        account = self.get_object(request, unquote(id))
        if isinstance(account, User):
            administrator = signed_in_user(request)
            permission = account_changes.password_permission(administrator, account)
            if not permission.allowed:
                is_there = account_changes.is_on_my_account(permission)
                links = [(_("My account"), reverse("my_account"))] if is_there else []
                return errors.forbidden(request, str(permission.denied_reason), links)
        try:
            return super().user_change_password(request, id, form_url)
        except Conflict:  # deleted meanwhile
            raise Http404 from None
        except NotAllowed as refusal:  # either account has changed meanwhile
            return errors.forbidden(request, str(refusal))

    @transaction.atomic
    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        """Log a change; first save and record a new password. Raise AdministrationError."""
        page = request.resolver_match.url_name if request.resolver_match else None
        if isinstance(obj, User) and page == "auth_user_password_change":
            # Only now is it hashed, which takes a second.
            account_changes.set_password(author(request), obj.pk, obj.password)
        return super().log_change(request, obj, message)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete, unless other data refers to the account, such as a table that is not in use."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except IntegrityError:
            text = _(
                "Nothing was deleted: data of an identity provider, or new data, refers to this "
                "account. Try again, or deactivate it instead."
            )
            address = reverse("admin:auth_user_change", args=[object_id])
            return _refuse_deletion(request, text, address)

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **options: Any
    ) -> HttpResponse | None:
        """Delete several, or none if other data refers to one of them."""
        try:
            with transaction.atomic():
                return super().response_action(request, queryset, *args, **options)
        except IntegrityError:
            text = _(
                "Nothing was deleted: data of an identity provider, or new data, refers to one of "
                "these accounts. Try again, or deactivate them instead."
            )
            return _refuse_deletion(request, text, request.get_full_path())

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = {*super().get_readonly_fields(request, obj), "last_login", "date_joined"}
        administrator = signed_in_user(request)
        if not administrator.is_superuser:
            fields |= {"is_superuser", "is_staff", "groups", "user_permissions"}
        if not isinstance(obj, User):
            return tuple(fields)
        # By its name the proxy finds an account, and `demo` its own ones.
        if not administrator.is_superuser or _is_demo(obj):
            fields.add("username")
        if obj.pk == administrator.pk:
            fields |= {"is_active", "is_superuser"}
        return tuple(fields)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        is_own = obj is not None and obj.pk == request.user.pk
        return not is_own and super().has_delete_permission(request, obj)

    @staticmethod
    def may_edit(administrator: User, obj: Model) -> bool:
        return isinstance(obj, User) and (
            account_changes.edit_permission(administrator, obj).allowed
        )


def _refuse_deletion(request: HttpRequest, text: str, address: str) -> HttpResponse:
    """Say why nothing was deleted, on the page at an address."""
    list(messages.get_messages(request))  # drops Django's, which says that it was
    messages.error(request, text)
    response = redirect(address)
    response.status_code = 303
    return response


class GroupForm(VersionForm):
    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if "name" not in self.changed_data:
            return name
        try:
            return group_changes.clean_name(name, except_key=self.instance.pk or 0)
        except administrators.AdministrationError as error:
            raise ValidationError(str(error)) from None


@admin.register(Group)
class LoggedGroupAdmin(EditLimitMixin, GroupAdmin):
    """Groups, with the limits of /people/; only superusers give them Django permissions."""

    form = GroupForm
    fields = ("name", "permissions")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        name = () if self._may_rename_and_delete(request, obj) else ("name",)
        permissions = () if signed_in_user(request).is_superuser else ("permissions",)
        return (*fields, *name, *permissions)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (
            self._may_rename_and_delete(request, obj)
        )

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Delete, unless the administrator would no longer be one."""
        super().delete_model(request, obj)
        _require_administrator_still(request)

    @transaction.atomic
    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **options: Any
    ) -> HttpResponse | None:
        """Delete several, unless the administrator would no longer be one."""
        response = super().response_action(request, queryset, *args, **options)
        _require_administrator_still(request)
        return response

    @staticmethod
    def _may_rename_and_delete(request: HttpRequest, obj: Model | None) -> bool:
        return not isinstance(obj, Group) or (
            group_changes.edit_permission(signed_in_user(request), obj).allowed
        )

    @staticmethod
    def may_edit(administrator: User, obj: Model) -> bool:
        return isinstance(obj, Group) and administrators.holds_permissions_of(administrator, obj)


def _require_administrator_still(request: HttpRequest) -> None:
    """Raise PermissionDenied, which undoes the change, if it makes the user no administrator."""
    user = signed_in_user(request)  # with the permissions of the start of the request
    if administrators.may_administer(user) and not (
        administrators.may_administer(User.objects.get(pk=user.pk))
    ):
        raise PermissionDenied(
            _(
                "Nothing was changed: you would no longer be an administrator. Ask another "
                "administrator to do it."
            )
        )


class ProxyAccountForm(ProxyAccountModelForm):
    """`ProxyAccountAdmin.get_form` sets the administrator."""

    administrator: User

    def clean_user(self) -> User:
        account: User = self.cleaned_data["user"]
        permission = account_changes.handover_permission(self.administrator, account)
        if not permission.allowed:
            raise ValidationError(str(permission.denied_reason))
        return account


@admin.register(ProxyAccount)
class ProxyAccountAdmin(RightsLogMixin):
    """Accounts that the proxy's header signs in (docs/proxy.md); adding one hands it over."""

    list_display = ("user", "is_active")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    ordering = ("user__username",)
    raw_id_fields = ("user",)
    form = ProxyAccountForm  # type: ignore[assignment]  # the stubs name no form but Django's

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.administrator = signed_in_user(request)
        return form

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Only as part of deleting its account; deactivated, it can no longer sign in.
        page = request.resolver_match.url_name if request.resolver_match else None
        return (page or "").startswith("auth_user_") and request.user.has_perm(
            "dashboard.delete_proxyaccount"
        )

    @admin.display(boolean=True, ordering="user__is_active")
    def is_active(self, account: ProxyAccount) -> bool:
        return account.user.is_active


@admin.register(Grant)
class GrantAdmin(RightsLogMixin):
    """Grants: a user may do whatever any one of them allows (docs/access.md).

    They are added and deleted: a form to change one could widen what somebody else has narrowed.
    """

    ACTION_LABELS: dict[str, Promise] = {
        Action.VIEW: gettext_lazy("view runs"),
        Action.ABORT: gettext_lazy("view and abort runs"),
    }

    list_display = ("group_name", "project_name", "stage_name", "action_label")
    list_display_links = ("group_name", "action_label")
    list_filter = ("action", "group", "stage")
    list_select_related = ("group", "project")
    ordering = ("group__name", "project__slug", "stage", "action")
    fieldsets = [
        (
            None,
            {
                "fields": ("group", "project", "stage", "action"),
                "description": gettext_lazy(
                    "Grants add up: a user may do whatever any of their grants allows. Superusers "
                    "may view and abort everything without a grant. Instead of "
                    "changing a grant, add another and delete the former."
                ),
            },
        )
    ]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(ordering="group__name")
    def group_name(self, grant: Grant) -> str:
        return grant.group.name if grant.group else _("all signed-in users")

    @admin.display(
        description=gettext_lazy("project"),
        ordering="project__slug",
    )
    def project_name(self, grant: Grant) -> str:
        return str(grant.project or _("all projects"))

    @admin.display(
        description=gettext_lazy("stage"),
        ordering="stage",
    )
    def stage_name(self, grant: Grant) -> str:
        return grant.stage or _("all stages")

    @admin.display(ordering="action")
    def action_label(self, grant: Grant) -> str:
        return str(self.ACTION_LABELS[grant.action])

    def formfield_for_choice_field(
        self, db_field: "Field[Any, Any]", request: HttpRequest | None, **kwargs: Any
    ) -> Any:
        if db_field.name == "action":
            kwargs["choices"] = [("", "---------"), *self.ACTION_LABELS.items()]
        return super().formfield_for_choice_field(db_field, request, **kwargs)  # type: ignore[arg-type]
