"""People: the list of accounts, the matrix of rights, and who may do what in one place."""

from urllib.parse import urlencode

from django.contrib.auth.models import Group, User
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from dashboard.accounts import demo
from dashboard.accounts.administration import group_changes, rights_overview
from dashboard.accounts.administration.administrators import AdministrationError
from dashboard.models import Project
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import matrix, texts
from dashboard.web.http import keys
from dashboard.web.http.administrators import (
    author,
    for_administrators,
    redirect_after_change,
    refuse_change,
)

PER_PAGE = 50
MAX_LENGTH = 200  # of a filter


@require_safe
@for_administrators
def people(request: HttpRequest) -> HttpResponse:
    """Show the accounts whose name contains `q`, of the group `group` if given, by name."""
    text = request.GET.get("q", "").replace("\0", "").strip()[:MAX_LENGTH]
    users = User.objects.order_by("username").prefetch_related("groups")
    users = users.filter(username__icontains=text) if text else users
    group_key = keys.parse_pk(request.GET.get("group", ""))
    group = Group.objects.filter(pk=group_key).first() if group_key else None
    users = users.filter(groups=group) if group else users
    page = Paginator(users, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "nav": "status",
        "tab": "people",
        "q": text,
        "group": group,
        "demo_group": demo.GROUP,
        **_page_context(page, {"q": text, "group": str(group.pk) if group else ""}),
    }
    return render(request, "pages/people/people.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def groups(request: HttpRequest) -> HttpResponse:
    """Show the matrix of rights (GET), or add a group (POST)."""
    if request.method == "POST":
        name = request.POST.get("name", "")
        try:
            group = group_changes.add_group(author(request), name)
        except AdministrationError as error:
            return refuse_change(request, error, lambda *text: _render_groups(request, name, *text))
        return redirect_after_change(request, _("Group added."), "group", key=group.pk)
    return _render_groups(request)


def _render_groups(
    request: HttpRequest, name: str = "", error: str = "", status: int = 200
) -> HttpResponse:
    context = {
        "nav": "status",
        "tab": "groups",
        "matrix": matrix.load(request.GET),
        "new_name": name,
        "error": error,
    }
    return render(request, "pages/people/groups.html", context, status=status)


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
        text = _("Project “%(project)s” not found; showing all projects.")
        warnings.append(text % {"project": place["project"][:80]})
    stage = place["stage"].capitalize()
    if stage not in {"", *StageName.values}:
        text = _("Unknown stage “%(stage)s” ignored.")
        warnings.append(text % {"stage": place["stage"][:80]})
        stage = ""
    if action not in Action.values:
        text = _("Unknown permission “%(action)s” ignored.")
        warnings.append(text % {"action": action[:80]})
        action = Action.ABORT.value
    users: QuerySet[User] = rights_overview.accounts_with(action, project_key, stage)
    page = Paginator(users, PER_PAGE).get_page(request.GET.get("page"))
    project_name = next((name or slug for slug, name, pk in projects if pk == project_key), "")
    project_text = texts.project_text(project_name)
    holders = rights_overview.holders(page, project_key, stage)
    place = {"project": place["project"] if project_key else "", "stage": stage, "action": action}
    context = {
        "nav": "status",
        "tab": "who_may",
        "projects": [(slug, name or slug) for slug, name, _pk in projects],
        "stages": StageName.values,
        "actions": [(value, texts.action_label(value)) for value in Action.values],
        "place": place,
        "question": texts.grant_text(action, stage, project_text),
        "warnings": warnings,
        "account_query": f"?{urlencode(place)}" if project_key or stage else "",
        "holders": [
            (
                holder.user,
                texts.action_label(holder.right.action),
                texts.reasons(holder.permissions, holder.right, project_text),
            )
            for holder in holders
        ],
        **_page_context(page, place),
    }
    return render(request, "pages/people/who_may.html", context)


def _page_context(page: Page[User], parameters: dict[str, str]) -> dict[str, object]:
    """Return a page of accounts with the addresses of its neighbours, for a template."""

    def url(number: int) -> str:
        values = {**parameters, "page": str(number)}
        return f"?{urlencode({name: value for name, value in values.items() if value})}"

    return {
        "page": page,
        "previous_url": url(page.number - 1) if page.has_previous() else "",
        "next_url": url(page.number + 1) if page.has_next() else "",
    }
