"""A group, or all signed-in users: grants, members and changes; rename it."""

from collections.abc import Iterable

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import demo, rights_changes
from dashboard.accounts.administration import group_changes
from dashboard.accounts.administration.administrators import Conflict
from dashboard.web.components.rights import changes, texts
from dashboard.web.components.rights.place_form import PlaceForm
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change

SHOWN_MEMBERS = 50
SUGGESTED_ACCOUNTS = 500


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
    member_error: str = "",
    status: int = 200,
    grant_form: PlaceForm | None = None,
    name: str = "",
) -> HttpResponse:
    """Render the page; the errors say what was not changed, and why.

    `grant_form` is what was chosen for a grant.
    """
    subject = rights_changes.group(group.pk if group else None)
    members = group.user_set.order_by("username") if group else User.objects.none()
    context = {
        "nav": "my_account",
        "tab": "groups",
        "group": group,
        "key": subject.key,
        "name": name or (group.name if group else ""),
        "name_error": name_error,
        "grant_error": grant_error,
        "member_error": member_error,
        "typed_member": request.POST.get("username", "") if member_error else "",
        "holders": texts.holders(group),
        "permission": group and group_changes.edit_permission(group),
        "version": rights_changes.version(subject),
        "grants": texts.grants_by_key(group),
        "django_permissions": texts.django_permissions(group) if group else "",
        "form": grant_form or PlaceForm(holders=texts.holders(group)),
        "members": members[:SHOWN_MEMBERS],
        "member_count": members.count(),
        "can_change_members": group is not None
        and group.name != demo.GROUP
        and not settings.READ_ONLY,
        "other_accounts": _other_accounts(group) if group else [],
        **changes.recent(subject),
    }
    return render(request, "pages/people/group.html", context, status=status)


def _other_accounts(group: Group) -> Iterable[str]:
    """Return the names of the first active accounts that are not in a group, as suggestions."""
    others = User.objects.filter(is_active=True).exclude(groups=group).order_by("username")
    return others.values_list("username", flat=True)[:SUGGESTED_ACCOUNTS]
