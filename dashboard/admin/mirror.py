"""The mirror of Northflank: projects, pipelines and stages."""

from django.contrib import admin

from dashboard.admin.base import ModelAdmin, ReadOnlyMixin
from dashboard.models import Pipeline, Project, Stage


@admin.register(Project)
class ProjectAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("slug", "name", "synced_at", "removed_at")


@admin.register(Pipeline)
class PipelineAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("slug", "project", "name", "synced_at", "removed_at")
    list_filter = ("project",)
    list_select_related = ("project",)


@admin.register(Stage)
class StageAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ("pipeline", "name", "has_flow", "synced_at", "next_sync_at", "error")
    list_filter = ("has_flow", "error", "name")
    list_select_related = ("pipeline",)
