"""The groups with their members and grants; add a group."""

from functools import partial

from django.contrib.auth.models import Group
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts.administration import group_changes
from dashboard.web.components.rights import texts
from dashboard.web.http.administrators import for_administrators, make_change


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def groups(request: HttpRequest) -> HttpResponse:
    """Show all groups with their grants (GET), or add a group (POST)."""
    if request.method != "POST":
        return _render(request)
    name = request.POST.get("name", "")
    return make_change(
        request,
        lambda author: group_changes.add_group(author, name),
        _("Group added."),
        lambda group: reverse("group", args=[group.pk]),
        partial(_render, request, name=name),
    )


def _render(
    request: HttpRequest, error: str = "", status: int = 200, *, name: str = ""
) -> HttpResponse:
    grants = texts.grants_by_group()
    stored = Group.objects.annotate(member_count=Count("user")).order_by("name", "pk")
    context = {
        "everybody": grants.get(None, []),
        "groups": [(group, grants.get(group.pk, [])) for group in stored],
        "new_name": name,
        "error": error,
    }
    return render(request, "pages/people/groups.html", context, status=status)
