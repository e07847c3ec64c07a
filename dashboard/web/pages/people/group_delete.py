"""Delete a group, after a confirmation that says what the deletion would do."""

from functools import partial

from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import permissions
from dashboard.accounts.administration import group_changes
from dashboard.web.components.rights import grants, texts
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication.sign_in import signed_in_user


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def group_delete(request: HttpRequest, key: int) -> HttpResponse:
    """Show what the deletion would do (GET), or delete a group (POST)."""
    group = get_object_or_404(Group, pk=key)
    if request.method == "POST":
        version = request.POST.get("version", "")
        return make_change(
            request,
            lambda author: group_changes.delete_group(author, group, version),
            _("Group deleted."),
            lambda _changed: reverse("groups"),
            partial(_render, request, key),
        )
    return _render(request, key)


def _render(request: HttpRequest, key: int, error: str = "", status: int = 200) -> HttpResponse:
    group = get_object_or_404(Group, pk=key)
    own_rules = {rule for rule in permissions.load_rules() if rule.group == group.name}
    effect = group_changes.effect(group, removed=own_rules)
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "grants": grants.texts_by_key(group),
        "django_permissions": grants.django_permissions(group),
        "member_count": group.user_set.count(),
        "effect_text": texts.loss_text(effect),
        "hides_everything": effect.hides_everything,
        "permission": group_changes.edit_permission(signed_in_user(request), group),
        "version": group_changes.deletion_version(group),
        "error": error,
    }
    return render(request, "pages/people/group_delete.html", context, status=status)
