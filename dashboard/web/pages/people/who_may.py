"""Who may abort or view in a project and stage, and why."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.accounts.administration import rights_overview
from dashboard.models import Project
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from dashboard.texts.rich_text import MessageTable
from dashboard.web.components.lists import numbered_pages
from dashboard.web.components.rights import texts
from dashboard.web.http.administrators import for_administrators

_text = MessageTable(
    {
        "project_missing": gettext_lazy("Project “%(project)s” not found; showing all projects."),
        "unknown_stage": gettext_lazy("Unknown stage “%(stage)s” ignored."),
        "unknown_action": gettext_lazy("Unknown permission “%(action)s” ignored."),
    }
)


@require_safe
@for_administrators
def who_may(request: HttpRequest) -> HttpResponse:
    """Show who may abort or view in a project and stage, and why."""
    projects = list(Project.objects.order_by("name", "slug").values_list("slug", "name", "pk"))
    place = {name: request.GET.get(name, "").strip() for name in ("project", "stage", "action")}
    project_key = next((pk for slug, _name, pk in projects if slug == place["project"]), 0)
    action = place["action"] or Action.ABORT.value
    warnings = []
    if place["project"] and not project_key:
        warnings.append(_text("project_missing", project=place["project"][:80]))
    stage = place["stage"].capitalize()
    if stage not in {"", *StageName.values}:
        warnings.append(_text("unknown_stage", stage=place["stage"][:80]))
        stage = ""
    if action not in Action.values:
        warnings.append(_text("unknown_action", action=action[:80]))
        action = Action.ABORT.value
    place = {"project": place["project"] if project_key else "", "stage": stage, "action": action}
    users = rights_overview.accounts_with(action, project_key, stage)
    list_context = numbered_pages.load(users, request.GET.get("page"), place)
    project_name = next((name or slug for slug, name, pk in projects if pk == project_key), "")
    project_text = texts.project_text(project_name)
    users_shown = list(list_context["page"])
    by_key = permissions.for_users([user.pk for user in users_shown])
    context = {
        "nav": "status",
        "tab": "who_may",
        "projects": [(slug, name or slug) for slug, name, _pk in projects],
        "stages": StageName.values,
        "actions": [(value, texts.action_label(value)) for value in Action.values],
        "place": place,
        "question": texts.grant_text(action, stage, project_text),
        "warnings": warnings,
        "holders": [
            (user, texts.action_label(right.action), texts.reasons(own, right, project_text))
            for user in users_shown
            if (own := by_key.get(user.pk)) is not None
            for right in [rights_overview.right_in(own, project_key, stage)]
        ],
        **list_context,
    }
    return render(request, "pages/people/who_may.html", context)
