"""Append-only records: aborts, changes of rights, the access log."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from dashboard.admin.base import ModelAdmin, ReadOnlyMixin, TabularInline
from dashboard.models import Abort, AbortEvent, AccessEvent, BulkAbort, BulkAbortItem, RightsChange


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
    list_display = ("requested_at", "username", "run", "work", "state", "outcome", "reason")
    list_filter = ("state", "via", "username")
    search_fields = ("run__run_id", "run__name", "username", "reason")
    date_hierarchy = "requested_at"
    list_select_related = ("run", "work")
    inlines = (AbortEventInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Abort]:
        return Abort.every.all()


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
