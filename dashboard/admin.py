"""Django's admin: accounts and rights are managed there, what was mirrored or done is read."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db import transaction
from django.db.models import Field, Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.db import threads as db_threads
from dashboard.models import (
    Abort,
    AbortBatch,
    AbortEvent,
    ApiToken,
    BatchItem,
    Grant,
    Pipeline,
    Project,
    Run,
    SavedView,
    Stage,
    StageTiming,
)
from dashboard.models.grants import Right
from dashboard.models.runs import touch
from dashboard.models.typical_duration import Usual
from dashboard.runs import durations

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Model]
    TabularInline = admin.TabularInline[Model, Model]
else:
    ModelAdmin = admin.ModelAdmin  # generic in the stubs only
    TabularInline = admin.TabularInline


class ReadOnly:
    """Rows to look at: the sync writes the mirror, and an abort is a fact."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Grant)
class GrantAdmin(ModelAdmin):
    """The rights: a person may do what any one of them allows (docs/access.md)."""

    MAY: dict[str, Promise] = {
        Right.SEE: gettext_lazy("see runs"),
        Right.ABORT: gettext_lazy("see and abort runs"),
    }

    list_display = ("who", "in_project", "in_stage", "may")
    list_display_links = ("who", "may")
    list_filter = ("right", "group", "stage")
    list_select_related = ("group", "project")
    ordering = ("group__name", "project__slug", "stage", "right")
    fieldsets = [
        (
            None,
            {
                "fields": ("group", "project", "stage", "right"),
                "description": gettext_lazy(
                    "A person may do what any one of these rights allows. An "
                    "administrator (superuser) sees everything and aborts everywhere without one."
                ),
            },
        )
    ]

    @admin.display(ordering="group__name")
    def who(self, grant: Grant) -> str:
        return grant.group.name if grant.group else _("everybody who is signed in")

    @admin.display(
        description=gettext_lazy("project"),
        ordering="project__slug",
    )
    def in_project(self, grant: Grant) -> str:
        return str(grant.project or _("all projects"))

    @admin.display(
        description=gettext_lazy("stage"),
        ordering="stage",
    )
    def in_stage(self, grant: Grant) -> str:
        return grant.stage or _("all stages")

    @admin.display(ordering="right")
    def may(self, grant: Grant) -> str:
        return str(self.MAY[grant.right])

    def formfield_for_choice_field(
        self, db_field: "Field[Any, Any]", request: HttpRequest | None, **kwargs: Any
    ) -> Any:
        if db_field.name == "right":
            kwargs["choices"] = [("", "---------"), *self.MAY.items()]
        return super().formfield_for_choice_field(db_field, request, **kwargs)  # type: ignore[arg-type]


class TrailInline(ReadOnly, TabularInline):
    model = AbortEvent
    fields = ("at", "what", "detail")
    verbose_name_plural = gettext_lazy("Its trail")


@admin.register(Abort)
class AbortAdmin(ReadOnly, ModelAdmin):
    list_display = ("requested_at", "username", "run", "state", "outcome", "reason")
    list_filter = ("state", "via", "username")
    search_fields = ("run__run_id", "run__name", "username", "reason")
    date_hierarchy = "requested_at"
    list_select_related = ("run",)
    inlines = (TrailInline,)


class ItemInline(ReadOnly, TabularInline):
    model = BatchItem
    fields = ("position", "run", "result", "note", "abort")
    verbose_name_plural = gettext_lazy("Its list")


@admin.register(AbortBatch)
class AbortBatchAdmin(ReadOnly, ModelAdmin):
    list_display = ("requested_at", "username", "via", "reason", "settled_at")
    list_filter = ("via", "username")
    search_fields = ("username", "reason")
    date_hierarchy = "requested_at"
    inlines = (ItemInline,)


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly, ModelAdmin):
    """Tokens are made by `manage.py token`, which alone can tell the secret."""

    list_display = (
        "name", "hint", "user", "scope", "created_at", "expires_at", "used_at", "revoked_at",
    )  # fmt: skip
    list_filter = ("scope", ("revoked_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "hint", "user__username")
    list_select_related = ("user",)
    fields = list_display
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dashboard.change_apitoken")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Only together with the account that it belongs to.
        page = request.resolver_match.url_name if request.resolver_match else None
        return (page or "").startswith("auth_user_") and request.user.has_perm(
            "dashboard.delete_apitoken"
        )

    @admin.action(description=gettext_lazy("Revoke the selected tokens"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, tokens: QuerySet[Model]) -> None:
        """Have them open nothing any more, for good."""
        valid = list(tokens.filter(revoked_at=None))
        for token in valid:
            self.log_change(request, token, _("Revoked."))
        tokens.filter(revoked_at=None).update(revoked_at=db_threads.now())
        revoked = ngettext("%(n)d token was revoked.", "%(n)d tokens were revoked.", len(valid))
        self.message_user(request, revoked % {"n": len(valid)})


@admin.register(SavedView)
class SavedViewAdmin(ModelAdmin):
    """Views are saved on stage pages; here they are looked through, renamed, shared and deleted."""

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
class ProjectAdmin(ReadOnly, ModelAdmin):
    list_display = ("slug", "name", "seen_at", "gone_at")


@admin.register(Pipeline)
class PipelineAdmin(ReadOnly, ModelAdmin):
    list_display = ("slug", "project", "name", "seen_at", "gone_at")
    list_filter = ("project",)
    list_select_related = ("project",)


@admin.register(StageTiming)
class StageTimingAdmin(ModelAdmin):
    """What is usual: learned from successes (docs/overdue.md), unless people say otherwise here."""

    list_display = ("stage", "usual", "wait", "said", "successes", "learned_at")
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
                    "What you say here comes before what was learned: it shows at "
                    "once, and runs in flight are judged by it within seconds."
                ),
            },
        ),
        (
            gettext_lazy("A run"),
            {
                "fields": ("learned_run", "said_median", "said_p95"),
                "description": gettext_lazy(
                    "From its start to its end, less what people took to approve. While "
                    "you say it, its steps are not judged by themselves: what was learned of them "
                    "is set aside, too."
                ),
            },
        ),
        (
            gettext_lazy("The wait for its turn"),
            {
                "fields": ("learned_queue", "said_queue_median", "said_queue_p95"),
                "description": gettext_lazy("From when a run was made until it starts."),
            },
        ),
        (
            gettext_lazy("The wait for people"),
            {
                "fields": ("learned_approvals", "said_approval_median", "said_approval_p95"),
                "description": gettext_lazy(
                    "From when an approval is asked for until it is given. What you "
                    "say holds for all approvals of the stage."
                ),
            },
        ),
        (
            gettext_lazy("Also learned"),
            {"fields": ("learned_steps", "successes", "details", "learned_at")},
        ),
    ]
    readonly_fields = (
        "stage", "learned_run", "learned_queue", "learned_approvals", "learned_steps", "successes",
        "details", "learned_at",
    )  # fmt: skip

    def get_readonly_fields(
        self, request: HttpRequest, obj: Model | None = None
    ) -> tuple[str, ...]:
        # Something can be said of a stage before its first success.
        return self.readonly_fields if obj else self.readonly_fields[1:]

    def save_model(
        self, request: HttpRequest, obj: Model, form: "forms.ModelForm[Any]", change: bool
    ) -> None:
        """Keep what was said, and have the rows of the stage's runs in flight made anew."""
        with transaction.atomic():
            # Not more than was said: the sync may have learned something since the form was shown.
            obj.save(update_fields=form.changed_data if change else None)
            touch(Run.objects.in_flight().filter(stage__timing=obj.pk).values_list("pk", flat=True))

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description=gettext_lazy("a run"))
    def usual(self, timing: StageTiming) -> str:
        return _in_words(timing.usual_run) or _("not known")

    @admin.display(description=gettext_lazy("the wait for its turn"))
    def wait(self, timing: StageTiming) -> str:
        return _in_words(timing.usual_queue) or _("not known")

    @admin.display(boolean=True)
    def said(self, timing: StageTiming) -> bool:
        return timing.said

    @admin.display(description=gettext_lazy("as learned"))
    def learned_run(self, timing: StageTiming) -> str:
        return _in_words(timing.learned_run) or _("too few successes so far")

    @admin.display(description=gettext_lazy("as learned"))
    def learned_queue(self, timing: StageTiming) -> str:
        return _in_words(timing.learned_queue) or _("too few successes so far")

    @admin.display(description=gettext_lazy("as learned"))
    def learned_approvals(self, timing: StageTiming) -> str:
        return _each(timing, timing.approvals)

    @admin.display(description=gettext_lazy("steps"))
    def learned_steps(self, timing: StageTiming) -> str:
        return _each(timing, timing.steps.keys() - timing.approvals)


def _each(timing: StageTiming, keys: Iterable[str]) -> str:
    known = {key: timing.learned_step(key) for key in sorted(keys)}
    lines = [f"{key}: {_in_words(usual)}" for key, usual in known.items() if usual]
    return "\n".join(lines) or _("none is known")


def _in_words(usual: Usual | None) -> str:
    return durations.usually(usual) if usual else ""


@admin.register(Stage)
class StageAdmin(ReadOnly, ModelAdmin):
    list_display = ("pipeline", "name", "has_flow", "synced_at", "next_sync_at", "error")
    list_filter = ("has_flow", "error", "name")
    list_select_related = ("pipeline",)
