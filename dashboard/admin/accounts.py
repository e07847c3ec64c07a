"""Accounts, groups, accounts of the proxy, and grants."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Field, Model
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts import usernames
from dashboard.accounts.administration import account_changes, administrators
from dashboard.admin.rights_log import EditLimitMixin, RightsLogMixin
from dashboard.models import Grant, ProxyAccount
from dashboard.models.accounts.grants import Action
from dashboard.web.http.authentication.sign_in import signed_in_user

if TYPE_CHECKING:
    DjangoUserAdmin = UserAdmin[User]
    DjangoAddForm = AdminUserCreationForm[User]
    DjangoChangeForm = UserChangeForm[User]
    ProxyAccountModelForm = forms.ModelForm[ProxyAccount]
else:
    DjangoUserAdmin = UserAdmin  # generic in the stubs only
    DjangoAddForm = AdminUserCreationForm
    DjangoChangeForm = UserChangeForm
    ProxyAccountModelForm = forms.ModelForm

admin.site.unregister([User, Group])


class AccountNameMixin:
    """Refuse names that differ from another account's only in case, and the break-glass account's.

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
        if usernames.is_taken(username, except_key=self.instance.pk or 0):
            raise ValidationError(_("An account with this name already exists."))
        permission = account_changes.name_permission(self.administrator, username)
        if not permission.allowed:
            raise ValidationError(str(permission.denied_reason))
        return username


class AccountAddForm(AccountNameMixin, DjangoAddForm):
    pass


class AccountChangeForm(AccountNameMixin, DjangoChangeForm):
    pass


@admin.register(User)
class LoggedUserAdmin(EditLimitMixin, DjangoUserAdmin):
    """Accounts, with the limits of /people/; superusers also give permissions."""

    form = AccountChangeForm  # type: ignore[assignment]  # the stubs name no form but Django's
    add_form = AccountAddForm

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
            permission = account_changes.password_permission(signed_in_user(request), account)
            if not permission.allowed:
                raise PermissionDenied(permission.denied_reason)
        return super().user_change_password(request, id, form_url)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        if signed_in_user(request).is_superuser:
            return fields
        # By its name the proxy finds an account.
        name = ("username",) if obj is not None else ()
        return (*fields, *name, "is_superuser", "is_staff", "groups", "user_permissions")

    @staticmethod
    def may_edit(administrator: User, obj: Model) -> bool:
        return isinstance(obj, User) and (
            account_changes.edit_permission(administrator, obj).allowed
        )


@admin.register(Group)
class LoggedGroupAdmin(EditLimitMixin, GroupAdmin):
    """Groups, with the limits of /people/; only superusers give them Django permissions."""

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if signed_in_user(request).is_superuser else (*fields, "permissions")

    @staticmethod
    def may_edit(administrator: User, obj: Model) -> bool:
        return isinstance(obj, Group) and administrators.holds_permissions_of(administrator, obj)


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
    """Grants: a user may do whatever any one of them allows (docs/access.md)."""

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
                    "may view and abort everything without a grant."
                ),
            },
        )
    ]

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
