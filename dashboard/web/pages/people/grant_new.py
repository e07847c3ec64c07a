"""Add a grant, after a confirmation that says what it would do."""

from functools import partial

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts.administration import group_changes
from dashboard.accounts.administration.group_changes import GrantScope
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import texts
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.pages.people.group import render_refused_grant


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def grant_new(request: HttpRequest, key: int) -> HttpResponse:
    """Show what a grant would do (GET), or add it (POST)."""
    group = lookup.get_group_or_404(key)
    query = request.POST if request.method == "POST" else request.GET
    fields = {name: query.get(name, "") for name in ("project", "stage", "action")}
    refuse = partial(render_refused_grant, request, key, grant_fields=fields)
    project = lookup.find_project(fields["project"])
    scope = GrantScope(project.pk if project else None, fields["stage"], fields["action"])
    is_known = scope.action in Action.values and scope.stage in {"", *StageName.values}
    if not is_known or (fields["project"] and project is None):
        return refuse(_("Choose a project, a stage and a permission that exist."), 422)
    if group_changes.find_grant(group, scope) is not None:
        return refuse(_("This grant already exists."), 422)
    if request.method == "POST":
        return make_change(
            request,
            lambda author: group_changes.add_grant(author, group, scope),
            _("Grant added. It applies from the next request."),
            lambda _changed: reverse("group", args=[key]),
            refuse,
        )
    project_text = texts.project_text(str(project) if project else "")
    rule = group_changes.rule_of(group, scope)
    effect = group_changes.effect(group, added=[rule])
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "grant": texts.grant_text(scope.action, scope.stage, project_text),
        "fields": fields,
        "effect_texts": texts.effect_texts(effect, scope.action),
    }
    return render(request, "pages/people/grant_new.html", context)
