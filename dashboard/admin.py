"""Django's admin: manages accounts, grants and overrides; mirror and aborts are read-only."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Field, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.accounts import access_log, usernames
from dashboard.accounts.administration import account_changes, administrators, rights
from dashboard.db import threads as db_threads
from dashboard.models import (
    Abort,
    AbortEvent,
    AccessEvent,
    ApiToken,
    BulkAbort,
    BulkAbortItem,
    Grant,
    Pipeline,
    Project,
    ProxyAccount,
    RightsChange,
    Run,
    SavedView,
    Stage,
    StageTiming,
)
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.grants import Action
from dashboard.models.runs import mark_changed
from dashboard.models.typical_duration import TypicalDuration
from dashboard.runs import durations
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Model]
    DjangoUserAdmin = UserAdmin[User]
    TabularInline = admin.TabularInline[Model, Model]
    DjangoAddForm = AdminUserCreationForm[User]
    DjangoChangeForm = UserChangeForm[User]
    ProxyAccountModelForm = forms.ModelForm[ProxyAccount]
else:
    ModelAdmin = admin.ModelAdmin  # generic in the stubs only
    DjangoUserAdmin = UserAdmin
    TabularInline = admin.TabularInline
    DjangoAddForm = AdminUserCreationForm
    DjangoChangeForm = UserChangeForm
    ProxyAccountModelForm = forms.ModelForm


type Before = dict[rights.Subject, rights.State | None]


class ReadOnlyMixin:
    """Make rows read-only: only the sync writes the mirror, and aborts are an audit."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class RightsLogMixin(ModelAdmin):
    """Record each change of rights, with the state before and after."""

    def save_model(
        self, request: HttpRequest, obj: Model, form: "forms.ModelForm[Any]", change: bool
    ) -> None:
        """Save, and keep the state before for `log_addition` and `log_change`."""
        self._remember(request, rights.snapshot(*rights.subjects_of(obj)))
        super().save_model(request, obj, form, change)

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        entry = super().log_addition(request, obj, message)
        before = dict.fromkeys(rights.subjects_of(obj)) | self._remembered(request)
        self._record(request, before, entry.get_change_message())
        return entry

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        entry = super().log_change(request, obj, message)
        before = self._remembered(request) or rights.snapshot(*rights.subjects_of(obj))
        # A new password changes no state.
        self._record(request, before, entry.get_change_message(), even_unchanged=True)
        return entry

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Delete, and record it."""
        before = rights.snapshot(*rights.subjects_of_deletion([obj]))
        super().delete_model(request, obj)
        self._record(request, before, "Deleted.")

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        """Delete, and record each."""
        before = rights.snapshot(*rights.subjects_of_deletion(queryset))
        super().delete_queryset(request, queryset)
        self._record(request, before, "Deleted.")

    @staticmethod
    def _remember(request: HttpRequest, before: Before) -> None:
        request._rights_before = before  # type: ignore[attr-defined]

    @staticmethod
    def _remembered(request: HttpRequest) -> Before:
        before: Before = getattr(request, "_rights_before", {})
        return before

    @staticmethod
    def _record(request: HttpRequest, before: Before, detail: str, **options: bool) -> None:
        rights.record_changes(
            before,
            detail,
            db_threads.now(),
            changed_by=signed_in_user(request),
            client_address=client_address(request),
            **options,
        )


class EditLimitMixin(RightsLogMixin):
    """Refuse to change or delete what the administrator may not edit on /people/ either."""

    @staticmethod
    def may_edit(administrator: User, obj: Model) -> bool:
        """Return whether an administrator may change an object."""
        raise NotImplementedError

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_edit(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._may_edit(request, obj)

    def _may_edit(self, request: HttpRequest, obj: Model | None) -> bool:
        return obj is None or self.may_edit(signed_in_user(request), obj)


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
            raise ValidationError(_("An account with this name exists."))
        permission = account_changes.name_permission(self.administrator, username)
        if not permission.allowed:
            raise ValidationError(permission.denied_reason)
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
            raise ValidationError(permission.denied_reason)
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


class AbortEventInline(ReadOnlyMixin, TabularInline):
    model = AbortEvent
    fields = ("occurred_at", "event_type", "detail")
    verbose_name_plural = gettext_lazy("Timeline")


@admin.register(RightsChange)
class RightsChangeAdmin(ReadOnlyMixin, ModelAdmin):
    """Changes of rights; /people/changes/ has exports."""

    list_display = ("occurred_at", "subject_kind", "subject", "changed_by", "detail")
    list_filter = ("subject_kind",)
    search_fields = ("=subject", "=changed_by")
    date_hierarchy = "occurred_at"
    show_full_result_count = False


@admin.register(Abort)
class AbortAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("requested_at", "username", "run", "state", "outcome", "reason")
    list_filter = ("state", "via", "username")
    search_fields = ("run__run_id", "run__name", "username", "reason")
    date_hierarchy = "requested_at"
    list_select_related = ("run",)
    inlines = (AbortEventInline,)


@admin.register(AccessEvent)
class AccessEventAdmin(ReadOnlyMixin, ModelAdmin):
    """The access log; /access/ has exports."""

    list_display = ("occurred_at", "kind", "username", "changed_by", "client_address", "detail")
    list_filter = ("kind",)
    search_fields = ("=username", "=client_address")
    date_hierarchy = "occurred_at"
    show_full_result_count = False


class BulkAbortItemInline(ReadOnlyMixin, TabularInline):
    model = BulkAbortItem
    fields = ("position", "run", "result", "note", "abort")
    verbose_name_plural = gettext_lazy("Runs")


@admin.register(BulkAbort)
class BulkAbortAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("requested_at", "username", "via", "reason", "settled_at")
    list_filter = ("via", "username")
    search_fields = ("username", "reason")
    date_hierarchy = "requested_at"
    inlines = (BulkAbortItemInline,)


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyMixin, ModelAdmin):
    """API tokens, for revoking only: `manage.py token` makes them and prints their secret."""

    list_display = (
        "name",
        "prefix",
        "user",
        "scope",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )
    list_filter = ("scope", ("revoked_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "prefix", "user__username")
    list_select_related = ("user",)
    fields = list_display
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dashboard.change_apitoken")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Only as part of deleting its account.
        page = request.resolver_match.url_name if request.resolver_match else None
        return (page or "").startswith("auth_user_") and request.user.has_perm(
            "dashboard.delete_apitoken"
        )

    @admin.action(description=gettext_lazy("Revoke the selected tokens"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, tokens: QuerySet[Model]) -> None:
        """Revoke the selected tokens permanently."""
        at = db_threads.now()
        valid = list(ApiToken.objects.filter(pk__in=tokens, revoked_at=None).select_related("user"))
        for token in valid:
            self.log_change(request, token, _("Revoked."))
            access_log.record(
                AccessKind.TOKEN_REVOKED,
                at,
                user=token.user,
                changed_by=signed_in_user(request),
                client_address=client_address(request),
                token_name=token.name,
            )
        tokens.filter(revoked_at=None).update(revoked_at=at)
        revoked = ngettext("%(n)d token revoked.", "%(n)d tokens revoked.", len(valid))
        self.message_user(request, revoked % {"n": len(valid)})


@admin.register(SavedView)
class SavedViewAdmin(ModelAdmin):
    """Saved views, made on stage pages; here they are renamed, shared and deleted."""

    list_display = ("name", "owner", "shared", "query")
    list_filter = ("shared",)
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username")
    ordering = ("owner__username", "name")
    fields = ("owner", "name", "query", "shared")
    readonly_fields = ("owner", "query")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(Project)
class ProjectAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("slug", "name", "synced_at", "removed_at")


@admin.register(Pipeline)
class PipelineAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("slug", "project", "name", "synced_at", "removed_at")
    list_filter = ("project",)
    list_select_related = ("project",)


@admin.register(StageTiming)
class StageTimingAdmin(ModelAdmin):
    """Typical durations: the baseline from successes (docs/overdue.md), and overrides of it."""

    list_display = (
        "stage",
        "typical_run",
        "typical_queue",
        "has_override",
        "success_count",
        "observed_at",
    )
    list_filter = ("stage__pipeline__project", "stage__name")
    list_select_related = ("stage__pipeline",)
    search_fields = ("stage__pipeline__slug", "stage__pipeline__name")
    ordering = ("stage__pipeline__slug", "stage__name")
    fieldsets = [
        (
            None,
            {
                "fields": ("stage",),
                "description": gettext_lazy(
                    "Overrides replace the baseline. Pages show them at once, and runs in flight "
                    "are checked against them within seconds."
                ),
            },
        ),
        (
            gettext_lazy("Run duration"),
            {
                "fields": ("observed_run", "override_run_median", "override_run_p95"),
                "description": gettext_lazy(
                    "From start to end, without approval time. While it is overridden, steps are "
                    "not checked separately: their baseline is ignored too."
                ),
            },
        ),
        (
            gettext_lazy("Queue time"),
            {
                "fields": ("observed_queue", "override_queue_median", "override_queue_p95"),
                "description": gettext_lazy("From a run’s creation to its start."),
            },
        ),
        (
            gettext_lazy("Approval time"),
            {
                "fields": (
                    "observed_approvals",
                    "override_approval_median",
                    "override_approval_p95",
                ),
                "description": gettext_lazy(
                    "From when an approval is requested until it is given. An override applies to "
                    "all approvals of the stage."
                ),
            },
        ),
        (
            gettext_lazy("Other baselines"),
            {"fields": ("observed_steps_text", "success_count", "detail_count", "observed_at")},
        ),
    ]
    readonly_fields = (
        "stage",
        "observed_run",
        "observed_queue",
        "observed_approvals",
        "observed_steps_text",
        "success_count",
        "detail_count",
        "observed_at",
    )

    def get_readonly_fields(
        self, request: HttpRequest, obj: Model | None = None
    ) -> tuple[str, ...]:
        # An override may be added for a stage before its first success.
        return self.readonly_fields if obj else self.readonly_fields[1:]

    def save_model(
        self, request: HttpRequest, obj: Model, form: "forms.ModelForm[Any]", change: bool
    ) -> None:
        """Save the override, and mark the stage's runs in flight as changed."""
        with transaction.atomic():
            # Only changed fields: the sync may have updated others since the form was shown.
            obj.save(update_fields=form.changed_data if change else None)
            mark_changed(
                Run.objects.in_flight().filter(stage__timing=obj.pk).values_list("pk", flat=True)
            )

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description=gettext_lazy("run duration"))
    def typical_run(self, timing: StageTiming) -> str:
        return _format_typical(timing.typical_run) or _("unknown")

    @admin.display(description=gettext_lazy("queue time"))
    def typical_queue(self, timing: StageTiming) -> str:
        return _format_typical(timing.typical_queue) or _("unknown")

    @admin.display(boolean=True)
    def has_override(self, timing: StageTiming) -> bool:
        return timing.has_override

    @admin.display(description=gettext_lazy("baseline"))
    def observed_run(self, timing: StageTiming) -> str:
        return _format_typical(timing.observed_run) or _("too few successes so far")

    @admin.display(description=gettext_lazy("baseline"))
    def observed_queue(self, timing: StageTiming) -> str:
        return _format_typical(timing.observed_queue) or _("too few successes so far")

    @admin.display(description=gettext_lazy("baseline"))
    def observed_approvals(self, timing: StageTiming) -> str:
        return _step_durations(timing, timing.approval_keys)

    @admin.display(description=gettext_lazy("steps"))
    def observed_steps_text(self, timing: StageTiming) -> str:
        return _step_durations(timing, timing.observed_steps.keys() - timing.approval_keys)


def _step_durations(timing: StageTiming, keys: Iterable[str]) -> str:
    durations_by_step = {key: timing.observed_step(key) for key in sorted(keys)}
    lines = [
        f"{key}: {_format_typical(usual)}" for key, usual in durations_by_step.items() if usual
    ]
    return "\n".join(lines) or _("none known")


def _format_typical(usual: TypicalDuration | None) -> str:
    return durations.format_typical(usual) if usual else ""


@admin.register(Stage)
class StageAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("pipeline", "name", "has_flow", "synced_at", "next_sync_at", "error")
    list_filter = ("has_flow", "error", "name")
    list_select_related = ("pipeline",)


if settings.OIDC_ISSUER:
    # An account's provider is not administered: a row of theirs would open an account, unrecorded.
    for model in list(admin.site._registry):
        if model._meta.app_label in {"account", "socialaccount"}:
            admin.site.unregister(model)
