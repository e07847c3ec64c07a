"""Django's admin: accounts are managed there; what was mirrored and what was done is read there."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from dashboard.models import Abort, Pipeline, Project, Stage

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Model]
else:
    ModelAdmin = admin.ModelAdmin  # generic in the stubs only


class ReadOnlyAdmin(ModelAdmin):
    """Rows to look at: the sync writes the mirror, and an abort is a fact."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Abort)
class AbortAdmin(ReadOnlyAdmin):
    list_display = ("requested_at", "username", "run", "state", "outcome", "reason")
    list_filter = ("state", "username")
    search_fields = ("run__run_id", "run__name", "username", "reason")
    date_hierarchy = "requested_at"
    list_select_related = ("run",)


@admin.register(Project)
class ProjectAdmin(ReadOnlyAdmin):
    list_display = ("slug", "name", "seen_at", "gone_at")


@admin.register(Pipeline)
class PipelineAdmin(ReadOnlyAdmin):
    list_display = ("slug", "project", "name", "seen_at", "gone_at")
    list_filter = ("project",)
    list_select_related = ("project",)


@admin.register(Stage)
class StageAdmin(ReadOnlyAdmin):
    list_display = ("pipeline", "name", "has_flow", "synced_at", "next_sync_at", "error")
    list_filter = ("has_flow", "error", "name")
    list_select_related = ("pipeline",)
