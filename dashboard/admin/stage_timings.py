"""Typical durations of stages, and overrides of them."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db import transaction
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.admin.base import ModelAdmin
from dashboard.models import Run, StageTiming
from dashboard.models.runs import mark_changed
from dashboard.models.typical_duration import TypicalDuration
from dashboard.texts import durations


@admin.register(StageTiming)
class StageTimingAdmin(ModelAdmin):
    """Typical durations: the baseline from successes (docs/use/overdue.md), and overrides of it."""

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

    def has_add_permission(self, request: HttpRequest) -> bool:
        return not settings.READ_ONLY and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return not settings.READ_ONLY and super().has_change_permission(request, obj)

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
        f"{key}: {_format_typical(typical)}"
        for key, typical in durations_by_step.items()
        if typical
    ]
    return "\n".join(lines) or _("none known")


def _format_typical(typical: TypicalDuration | None) -> str:
    return durations.format_typical(typical) if typical else ""
