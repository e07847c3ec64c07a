"""Add an account to a group, or remove it; the group's page shows why that was refused."""

from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from dashboard.accounts.administration import account_changes
from dashboard.accounts.authentication import identity_sources
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.pages.people.group import render_group


@require_POST
@for_administrators
def group_members(request: HttpRequest, key: int) -> HttpResponse:
    """Add the account named `username`, or remove that with the key `remove`."""
    group = lookup.get_group_or_404(key)
    if group is None:
        raise Http404
    username, removed = request.POST.get("username", "").strip(), request.POST.get("remove", "")
    if removed:
        user = get_object_or_404(User, pk=removed) if removed.isdecimal() else None
    else:
        user = User.objects.filter(username=User.normalize_username(username)).first()

    def show(text: str, status: int) -> HttpResponse:
        current_group = lookup.get_group_or_404(key)
        return render_group(request, current_group, member_error=text, status=status)

    if user is None:
        return show(_("No account has this name."), 422)
    added = _("Added. Its next sign-in updates its groups.")
    if not identity_sources.find(user)[1]:
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
