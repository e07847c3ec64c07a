"""Changes of rights in the admin: recorded, and limited as on /people/."""

from itertools import chain
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.shortcuts import redirect

from dashboard.accounts import rights_changes
from dashboard.accounts.administration import administrators
from dashboard.accounts.administration.administrators import Conflict
from dashboard.admin.base import ModelAdmin
from dashboard.db import threads as db_threads
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[Any]
else:
    ModelForm = forms.ModelForm  # generic in the stubs only

type Before = dict[rights_changes.Subject, rights_changes.State | None]


class RightsLogMixin(ModelAdmin):
    """Let administrators change rights, and record it with the state before and after."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return administrators.may_administer(request.user) and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        is_administrator = administrators.may_administer(request.user)
        return is_administrator and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        is_administrator = administrators.may_administer(request.user)
        return is_administrator and super().has_delete_permission(request, obj)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show and take the form; after a Conflict, show the new state and say that."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except Conflict as conflict:
            messages.error(request, str(conflict))
            response = redirect(request.get_full_path())
            response.status_code = 303
            return response

    def save_model(
        self, request: HttpRequest, obj: Model, form: "forms.ModelForm[Any]", change: bool
    ) -> None:
        """Save, and keep the state before for `log_addition` and `log_change`.

        Of a change, only the columns that the form changes: others may have changed meanwhile.
        """
        subjects = rights_changes.subjects_of(obj)
        administrators.lock(*subjects)
        before = rights_changes.snapshot(*subjects)
        for state in before.values():
            administrators.require_existence(state)
        self._remember(request, before)
        if change:
            obj.save(update_fields=_columns(obj) & {*form.changed_data})
        else:
            super().save_model(request, obj, form, change)

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        entry = super().log_addition(request, obj, message)
        before = dict.fromkeys(rights_changes.subjects_of(obj)) | self._remembered(request)
        self._record(request, before, entry.get_change_message())
        return entry

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        entry = super().log_change(request, obj, message)
        before, detail = self._remembered(request), entry.get_change_message()
        # A new e-mail address changes no state.
        self._record(request, before, detail, even_unchanged=True)
        return entry

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Delete, and record it."""
        administrators.lock(*rights_changes.subjects_of(obj))  # nobody joins a group any more
        before = rights_changes.snapshot(*rights_changes.subjects_of_deletion([obj]))
        super().delete_model(request, obj)
        self._record(request, before, "Deleted.")

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        """Delete, and record each."""
        administrators.lock(*chain.from_iterable(map(rights_changes.subjects_of, queryset)))
        before = rights_changes.snapshot(*rights_changes.subjects_of_deletion(queryset))
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
        rights_changes.record_changes(
            before,
            detail,
            db_threads.now(),
            changed_by=signed_in_user(request),
            client_address=client_address(request),
            **options,
        )


def _columns(obj: Model) -> set[str]:
    return {field.name for field in obj._meta.concrete_fields}


class VersionForm(ModelForm):
    """The form of an account or a group with its version, for `EditLimitMixin`.

    The version is that of its rights and of the form's other fields. Its check raises Conflict if
    somebody else has changed the account or group since it was shown.
    """

    version = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["version"] = rights_changes.version(self._state())

    def clean(self) -> dict[str, Any] | None:
        if self.instance.pk:
            rows = type(self.instance)._default_manager.filter(pk=self.instance.pk)
            rows.select_for_update(no_key=True).first()  # until it is saved
            administrators.require_version(self._state(), self.cleaned_data.get("version", ""))
        return super().clean()

    def _state(self) -> rights_changes.State | None:
        [state] = rights_changes.snapshot(*rights_changes.subjects_of(self.instance)).values()
        if state is None:
            return None
        names = [name for name, field in self.fields.items() if not field.disabled]
        rows = type(self.instance)._default_manager.filter(pk=self.instance.pk)
        row = rows.values("pk", *_columns(self.instance).intersection(names)).first()
        return state | {"row": row}


class EditLimitMixin(RightsLogMixin):
    """Refuse to change or delete what the administrator may not edit on /people/ either.

    The form is a `VersionForm`: a change that another one has overtaken saves nothing.
    """

    @staticmethod
    def may_edit(administrator: User, obj: Model) -> bool:
        """Return whether an administrator may change an object."""
        raise NotImplementedError

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or not self.has_change_permission(request, obj):
            return fieldsets
        (name, options), *others = fieldsets
        return [(name, {**options, "fields": ("version", *options["fields"])}), *others]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_edit(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._may_edit(request, obj)

    def _may_edit(self, request: HttpRequest, obj: Model | None) -> bool:
        return obj is None or self.may_edit(signed_in_user(request), obj)
