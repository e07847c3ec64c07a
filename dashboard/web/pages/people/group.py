"""A group, or all signed-in users: grants, members and changes; rename it, change its members."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.accounts import demo, rights_changes
from dashboard.accounts.administration import account_changes, group_changes
from dashboard.accounts.administration.administrators import Conflict
from dashboard.accounts.authentication import external_groups
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
    if request.method != "POST" or key == lookup.EVERYBODY_KEY:
        return render_group(request, key)
    group = get_object_or_404(Group, pk=key)
    name, version = (request.POST.get(field, "") for field in ("name", "version"))

    def show(text: str, status: int) -> HttpResponse:
        typed = {} if status == Conflict.status else {"name": name}
        return render_group(request, key, status, name_error=text, **typed)

    return make_change(
        request,
        lambda author: group_changes.rename_group(author, group, name, version),
        _("Renamed."),
        reverse("group", args=[key]),
        show,
    )


@require_POST
@for_administrators
def group_members(request: HttpRequest, key: int) -> HttpResponse:
    """Add the account named `username`, or remove that with the key `remove`."""
    group = get_object_or_404(Group, pk=key)
    username, removed = request.POST.get("username", "").strip(), request.POST.get("remove", "")
    if removed:
        user = get_object_or_404(User, pk=removed) if removed.isdecimal() else None
    else:
        user = User.objects.filter(username=User.normalize_username(username)).first()

    def show(text: str, status: int) -> HttpResponse:
        return render_group(request, key, status, member_error=text, typed_member=username)

    if user is None:
        return show(_("No account has this name."), 422)
    added = _("Added. Its next sign-in updates its groups.")
    if not external_groups.find_source(user)[1]:
        added = _("Added. It applies from the next request.")
    return make_change(
        request,
        lambda author: account_changes.set_membership(
            author, user.pk, group, is_member=not removed
        ),
        _("Removed.") if removed else added,
        reverse("group", args=[key]),
        show,
    )


def render_group(request: HttpRequest, key: int, status: int = 200, **shown: Any) -> HttpResponse:
    """Render the page; `shown` says what was not changed, why, and what was entered."""
    group = lookup.get_group_or_404(key)
    subject = rights_changes.group(key)
    members = group.user_set.order_by("username") if group else User.objects.none()
    context = {
        "group": group,
        "key": key,
        "name": group.name if group else "",
        "holders": texts.holders(group),
        "permission": group and group_changes.edit_permission(group),
        "version": rights_changes.version(subject),
        "grants": texts.grants_by_key(group),
        "django_permissions": texts.django_permissions(group) if group else "",
        "form": PlaceForm(holders=texts.holders(group)),
        "members": members[:SHOWN_MEMBERS],
        "member_count": members.count(),
        "can_change_members": group is not None
        and group.name != demo.GROUP
        and not settings.READ_ONLY,
        "other_accounts": _other_accounts(group) if group else [],
        **changes.recent(subject),
        **shown,
    }
    return render(request, "pages/people/group.html", context, status=status)


def _other_accounts(group: Group) -> Iterable[str]:
    """Return the names of the first active accounts that are not in a group, as suggestions."""
    others = User.objects.filter(is_active=True).exclude(groups=group).order_by("username")
    return others.values_list("username", flat=True)[:SUGGESTED_ACCOUNTS]
