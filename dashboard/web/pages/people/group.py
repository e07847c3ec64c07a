"""A group, or everybody who is signed in: grants, members and changes; confirm each change."""

from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.accounts.administration import group_changes, rights
from dashboard.accounts.administration.administrators import AdministrationError, Conflict
from dashboard.accounts.administration.group_changes import GrantScope
from dashboard.models import Grant, Project
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import changes, table, texts
from dashboard.web.http import lookup
from dashboard.web.http.administrators import (
    author,
    for_administrators,
    redirect_after_change,
    refuse_change,
)
from dashboard.web.http.authentication.sign_in import signed_in_user

EVERYBODY_KEY = 0  # in addresses
SHOWN_MEMBERS = 50
RECENT_CHANGES = 10


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def group(request: HttpRequest, key: int) -> HttpResponse:
    """Show a group (GET), or rename it (POST)."""
    group = _find_group(key)
    if request.method != "POST" or group is None:
        return _render_group(request, group)
    name = request.POST.get("name", "")
    try:
        group_changes.rename_group(author(request), group, name, request.POST.get("version", ""))
    except AdministrationError as error:
        typed_name = "" if isinstance(error, Conflict) else name

        def show(text: str, status: int) -> HttpResponse:
            return _render_group(request, _find_group(key), text, typed_name, status=status)

        return refuse_change(request, error, show)
    return redirect_after_change(request, _("Renamed."), "group", key=key)


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def delete_group(request: HttpRequest, key: int) -> HttpResponse:
    """Show what the deletion would do (GET), or delete a group (POST)."""
    group = get_object_or_404(Group, pk=key)
    if request.method == "POST":
        try:
            version = request.POST.get("version", "")
            group_changes.delete_group(author(request), group, version)
        except AdministrationError as error:
            return refuse_change(
                request, error, lambda *text: _render_deletion(request, key, *text)
            )
        return redirect_after_change(request, _("Group deleted."), "groups")
    return _render_deletion(request, key)


def _render_deletion(
    request: HttpRequest, key: int, error: str = "", status: int = 200
) -> HttpResponse:
    group = get_object_or_404(Group, pk=key)
    subject = rights.group(group.pk)
    own_rules = {rule for rule in permissions.load_rules() if rule.group == group.name}
    effect = group_changes.effect(group, removed=own_rules)
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "grants": _grants(group),
        "django_permissions": _django_permissions(group),
        "member_count": group.user_set.count(),
        "effect_text": texts.loss_text(effect),
        "hides_everything": effect.hides_everything,
        "permission": group_changes.edit_permission(signed_in_user(request), group),
        "version": rights.version(rights.snapshot(subject)[subject]),
        "error": error,
    }
    return render(request, "pages/people/group_delete.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def add_grant(request: HttpRequest, key: int) -> HttpResponse:
    """Show what a grant would do (GET), or add it (POST)."""
    group = _find_group(key)
    query = request.POST if request.method == "POST" else request.GET
    slug = query.get("project", "")
    project = lookup.find_project(slug)
    scope = GrantScope(
        project.pk if project else None, query.get("stage", ""), query.get("action", "")
    )
    is_known = scope.action in Action.values and scope.stage in {"", *StageName.values}
    if not is_known or (slug and project is None):
        text = _("Choose a project, a stage and a permission that exist.")
        return _render_group(request, group, grant_error=text, status=422)
    if group_changes.find_grant(group, scope) is not None:
        return _render_group(request, group, grant_error=_("This grant exists."), status=422)
    if request.method == "POST":
        try:
            group_changes.add_grant(author(request), group, scope)
        except AdministrationError as error:
            return refuse_change(request, error, lambda *text: _render_grants(request, key, *text))
        text = _("Grant added. It applies from the next request.")
        return redirect_after_change(request, text, "group", key=key)
    rule = group_changes.rule_of(group, scope)
    effect = group_changes.effect(group, added=[rule])
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "grant": texts.grant_text(scope.action, scope.stage, texts.project_text(_name(project))),
        "fields": {"project": slug, "stage": scope.stage, "action": scope.action},
        "effect_texts": texts.effect_texts(effect, scope.action),
    }
    return render(request, "pages/people/grant.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def remove_grant(request: HttpRequest, key: int, grant_key: int) -> HttpResponse:
    """Show what the removal of a grant would do (GET), or remove it (POST)."""
    group = _find_group(key)
    grants = Grant.objects.select_related("project").filter(group=group)
    grant = grants.filter(pk=grant_key).first()
    if grant is None:
        text = _("The grant has been removed meanwhile.")
        return _render_group(request, group, grant_error=text, status=404)
    if request.method == "POST":
        try:
            group_changes.remove_grant(author(request), grant)
        except AdministrationError as error:
            return refuse_change(request, error, lambda *text: _render_grants(request, key, *text))
        text = _("Grant removed. It applies from the next request.")
        return redirect_after_change(request, text, "group", key=key)
    effect = group_changes.effect_of_removal(grant)
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "grant": _grant_text(grant),
        "is_removal": True,
        "effect_texts": texts.effect_texts(effect, grant.action),
        "hides_everything": effect.hides_everything,
    }
    return render(request, "pages/people/grant.html", context)


def _find_group(key: int) -> Group | None:
    """Return a group; None is everybody. Raise Http404."""
    return None if key == EVERYBODY_KEY else get_object_or_404(Group, pk=key)


def _render_grants(request: HttpRequest, key: int, error: str, status: int) -> HttpResponse:
    return _render_group(request, _find_group(key), grant_error=error, status=status)


def _render_group(
    request: HttpRequest,
    group: Group | None,
    name_error: str = "",
    name: str = "",
    grant_error: str = "",
    status: int = 200,
) -> HttpResponse:
    subject = rights.group(group.pk if group else None)
    members = group.user_set.order_by("username") if group else None
    rules = permissions.load_rules()
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "key": subject.key,
        "name": name or (group.name if group else ""),
        "name_error": name_error,
        "grant_error": grant_error,
        "permission": group_changes.edit_permission(signed_in_user(request), group)
        if group
        else None,
        "version": rights.version(rights.snapshot(subject)[subject]),
        "grants": _grants(group),
        "django_permissions": _django_permissions(group) if group else "",
        "projects": Project.objects.filter(removed_at=None).order_by("name", "slug"),
        "stages": StageName.values,
        "actions": [
            (Action.VIEW.value, _("view runs")),
            (Action.ABORT.value, _("view and abort runs")),
        ],
        "table": table.load(permissions.for_groups([group.name] if group else [], rules)),
        "members": members[:SHOWN_MEMBERS] if members is not None else (),
        "member_count": members.count() if members is not None else 0,
        "changes": changes.load_page(changes.ChangeFilter(subject=subject), RECENT_CHANGES),
        "subject_id": subject.id,
    }
    return render(request, "pages/people/group.html", context, status=status)


def _grants(group: Group | None) -> list[tuple[int, str]]:
    """Return the key and the text of each grant of a group."""
    grants = Grant.objects.filter(group=group).select_related("project")
    ordered = grants.order_by("project__slug", "stage", "action", "pk")
    return [(grant.pk, _grant_text(grant)) for grant in ordered]


def _grant_text(grant: Grant) -> str:
    projects = texts.project_text(_name(grant.project))
    return texts.grant_text(grant.action, grant.stage, projects)


def _name(project: Project | None) -> str:
    return str(project) if project else ""


def _django_permissions(group: Group) -> str:
    names = group.permissions.values_list("content_type__app_label", "codename")
    return ", ".join(sorted(f"{app}.{name}" for app, name in names))
