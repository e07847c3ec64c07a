"""What the admin's pages share."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import Model
from django.http import Http404, HttpRequest

if TYPE_CHECKING:
    DjangoModelAdmin = admin.ModelAdmin[Model]
    TabularInline = admin.TabularInline[Model, Model]
else:
    DjangoModelAdmin = admin.ModelAdmin  # generic in the stubs only
    TabularInline = admin.TabularInline


class ModelAdmin(DjangoModelAdmin):
    """Answers 404 where there is no object; Django forwards to the index of the admin."""

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Model:
        found = super().get_object(request, object_id, from_field)
        if found is None:
            raise Http404
        return found


class ReadOnlyMixin:
    """Make rows read-only: only the sync writes the mirror, and aborts are an audit."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
