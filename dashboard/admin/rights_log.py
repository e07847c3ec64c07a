"""Changes of rights in the admin: recorded, and limited as on /people/."""

from typing import TYPE_CHECKING, Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from dashboard.accounts import rights_changes
from dashboard.admin.base import ModelAdmin
from dashboard.db import threads as db_threads
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address

if TYPE_CHECKING:
    from django import forms

type Before = dict[rights_changes.Subject, rights_changes.State | None]


class RightsLogMixin(ModelAdmin):
    """Record each change of rights, with the state before and after."""

    def save_model(
        self, request: HttpRequest, obj: Model, form: "forms.ModelForm[Any]", change: bool
    ) -> None:
        """Save, and keep the state before for `log_addition` and `log_change`."""
        self._remember(request, rights_changes.snapshot(*rights_changes.subjects_of(obj)))
        super().save_model(request, obj, form, change)

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        entry = super().log_addition(request, obj, message)
        before = dict.fromkeys(rights_changes.subjects_of(obj)) | self._remembered(request)
        self._record(request, before, entry.get_change_message())
        return entry

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        entry = super().log_change(request, obj, message)
        subjects = rights_changes.subjects_of(obj)
        before = self._remembered(request) or rights_changes.snapshot(*subjects)
        # A new password changes no state.
        self._record(request, before, entry.get_change_message(), even_unchanged=True)
        return entry

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Delete, and record it."""
        before = rights_changes.snapshot(*rights_changes.subjects_of_deletion([obj]))
        super().delete_model(request, obj)
        self._record(request, before, "Deleted.")

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        """Delete, and record each."""
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
