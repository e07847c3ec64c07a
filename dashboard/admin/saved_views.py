"""Saved views."""

from typing import TYPE_CHECKING

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext as _

from dashboard.admin.base import ModelAdmin
from dashboard.models import SavedView

if TYPE_CHECKING:
    SavedViewModelForm = forms.ModelForm[SavedView]
else:
    SavedViewModelForm = forms.ModelForm  # generic in the stubs only


class SavedViewForm(SavedViewModelForm):
    """Refuse the name of another view of the owner, whom the form does not have as a field."""

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        view = self.instance
        if SavedView.objects.filter(owner=view.owner, name=name).exclude(pk=view.pk).exists():
            text = _("%(owner)s already has a view with this name.")
            raise ValidationError(text % {"owner": view.owner})
        return name


@admin.register(SavedView)
class SavedViewAdmin(ModelAdmin):
    """Saved views, made on stage pages; here they are renamed, shared and deleted."""

    list_display = ("name", "owner", "shared", "query")
    list_filter = ("shared",)
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username")
    ordering = ("owner__username", "name")
    form = SavedViewForm  # type: ignore[assignment]  # the stubs name no form but Django's
    fields = ("owner", "name", "query", "shared")
    readonly_fields = ("owner", "query")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False
