"""Saved views."""

from django.contrib import admin
from django.http import HttpRequest

from dashboard.admin.base import ModelAdmin
from dashboard.models import SavedView


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
