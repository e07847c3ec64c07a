"""The matrix of rights, by groups, projects and stages; add a group."""

from functools import partial

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts.administration import group_changes
from dashboard.web.components.rights import matrix
from dashboard.web.http.administrators import for_administrators, make_change


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def groups(request: HttpRequest) -> HttpResponse:
    """Show the matrix of rights (GET), or add a group (POST)."""
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
    context = {
        "nav": "my_account",
        "tab": "groups",
        "matrix": matrix.load(request.GET),
        "new_name": name,
        "error": error,
    }
    return render(request, "pages/people/groups.html", context, status=status)
