"""Who may view, see logs or abort anywhere in a project and stage, where exactly, and why."""

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.accounts import permissions
from dashboard.accounts.administration import rights_overview
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import texts
from dashboard.web.components.rights.place_form import PlaceForm
from dashboard.web.http.administrators import for_administrators

PER_PAGE = 50


@require_safe
@for_administrators
def who_may(request: HttpRequest) -> HttpResponse:
    """Show who may do what in a place, where in it, and why; invalid parameters mean any."""
    query = {name: request.GET.get(name, "").strip() for name in PlaceForm.base_fields}
    query["action"] = query["action"] or Action.ABORT
    if (stage := query["stage"].capitalize()) in StageName.values:
        query["stage"] = stage
    form = PlaceForm(query)
    warnings = [text for errors in form.errors.values() for text in errors]
    project, stage = form.cleaned_data.get("project"), form.cleaned_data.get("stage", "")
    action = form.cleaned_data.get("action", Action.ABORT.value)
    place = {"project": project.slug if project else "", "stage": stage, "action": action}
    project_key = project.pk if project else 0
    users = rights_overview.accounts_with(action, project_key, stage)
    page = Paginator(users, PER_PAGE).get_page(request.GET.get("page"))
    users_shown = list(page)
    by_key = permissions.for_users([user.pk for user in users_shown])
    rules_by_user = {
        user: rights_overview.rules_for(own.rules, action, project_key, stage)
        for user in users_shown
        if (own := by_key.get(user.pk)) is not None
    }
    names = texts.project_names(rule for rules in rules_by_user.values() for rule in rules)
    context = {
        "form": PlaceForm(initial=place),
        "question": texts.question(action, stage, str(project) if project else ""),
        "warnings": warnings,
        "holders": [
            (user, texts.places(rules, names, is_superuser=user.is_superuser))
            for user, rules in rules_by_user.items()
        ],
        "page": page,
    }
    return render(request, "pages/people/who_may.html", context)
