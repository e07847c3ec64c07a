"""A group, or everybody who is signed in: grants, members and changes; rename it."""

from collections.abc import Mapping

from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions, rights_changes
from dashboard.accounts.administration import group_changes
from dashboard.accounts.administration.administrators import Conflict
from dashboard.models import Project
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import changes, table, texts
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication.sign_in import signed_in_user

SHOWN_MEMBERS = 50


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def group(request: HttpRequest, key: int) -> HttpResponse:
    """Show a group (GET), or rename it (POST)."""
    group = lookup.get_group_or_404(key)
    if request.method != "POST" or group is None:
        return render_group(request, group)
    name, version = (request.POST.get(field, "") for field in ("name", "version"))

    def show(text: str, status: int) -> HttpResponse:
        typed_name = "" if status == Conflict.status else name
        current_group = lookup.get_group_or_404(key)
        return render_group(request, current_group, text, status=status, name=typed_name)

    return make_change(
        request,
        lambda author: group_changes.rename_group(author, group, name, version),
        _("Renamed."),
        reverse("group", args=[key]),
        show,
    )


def render_group(
    request: HttpRequest,
    group: Group | None,
    name_error: str = "",
    grant_error: str = "",
    status: int = 200,
    grant_fields: Mapping[str, str] | None = None,
    name: str = "",
) -> HttpResponse:
    """Render the page; `name_error` and `grant_error` say what was not changed, and why.

    `grant_fields` is what was chosen for a grant: `project`, `stage` and `action`.
    """
    subject = rights_changes.group(group.pk if group else None)
    members = group.user_set.order_by("username") if group else User.objects.none()
    projects = Project.objects.filter(removed_at=None).order_by("name", "slug")
    chosen = grant_fields or {"project": "", "stage": "", "action": ""}
    is_listed = chosen["project"] in {"", *(project.slug for project in projects)}
    names = [group.name] if group else []
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "key": subject.key,
        "name": name or (group.name if group else ""),
        "name_error": name_error,
        "grant_error": grant_error,
        "permission": group and group_changes.edit_permission(signed_in_user(request), group),
        "version": rights_changes.version(subject),
        "grants": texts.grants_by_key(group),
        "django_permissions": texts.django_permissions(group) if group else "",
        "projects": projects,
        "chosen": chosen,
        # Or the choice would become all projects.
        "unlisted_project": "" if is_listed else chosen["project"],
        "stages": StageName.values,
        "actions": [
            (Action.VIEW.value, _("view runs")),
            (Action.ABORT.value, _("view and abort runs")),
        ],
        "table": table.load(permissions.for_groups(names, permissions.load_rules())),
        "members": members[:SHOWN_MEMBERS],
        "member_count": members.count(),
        **changes.recent(subject),
    }
    return render(request, "pages/people/group.html", context, status=status)
