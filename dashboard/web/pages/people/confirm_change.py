"""Confirm a change of a group or its grants: what it would do, then make it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib.auth.models import Group
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import rights_changes
from dashboard.accounts.administration import group_changes
from dashboard.accounts.administration.administrators import Author
from dashboard.models import Grant
from dashboard.web.components.rights import texts
from dashboard.web.components.rights.place_form import PlaceForm
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.pages.people.group import render_group

# How a change is made, and what its page shows: with its `effect`, what to say when it is `done`,
# and the `next_url`.
type Change = tuple[Callable[[Author], object], dict[str, Any]]


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def confirm_change(request: HttpRequest, key: int, kind: str, grant_key: int = 0) -> HttpResponse:
    """Show what a change would do (GET), or make it (POST); `kind` is the name of the address."""

    def show(error: str, status: int) -> HttpResponse:
        group = lookup.get_group_or_404(key)
        change = _change(request, group, kind, grant_key)
        if isinstance(change, HttpResponse):
            return change
        _apply, shown = change
        context = {
            "kind": kind,
            "group": group,
            "version": rights_changes.version(rights_changes.group(key)),
            "error": error,
            **shown,
        }
        if grant := shown.get("grant"):
            context["grant"] = texts.stored_grant_text(grant)
            context["effect_texts"] = texts.effect_texts(shown["effect"], grant.action)
        return render(request, "pages/people/confirm_change.html", context, status=status)

    if request.method != "POST":
        return show("", 200)
    change = _change(request, lookup.get_group_or_404(key), kind, grant_key)
    if isinstance(change, HttpResponse):
        return change
    apply, shown = change
    return make_change(request, apply, shown["done"], shown["next_url"], show)


def _change(
    request: HttpRequest, group: Group | None, kind: str, grant_key: int
) -> Change | HttpResponse:
    """Return the change that a request asks for, as of now; else the group's page that says why."""
    if kind == "grant_new":
        return _addition(request, group)
    if kind == "grant_remove":
        return _removal(request, group, grant_key)
    if group is None:
        raise Http404
    return _deletion(request, group)


def _addition(request: HttpRequest, group: Group | None) -> Change | HttpResponse:
    query = request.POST if request.method == "POST" else request.GET
    form = PlaceForm(query, holders=texts.holders(group))
    refuse = partial(render_group, request, _key(group), 422, form=form)
    if not form.is_valid():
        form.keep_unlisted_project()
        return refuse(grant_error=_("Choose project, stage and permission from the lists."))
    grant = Grant(group=group, **form.cleaned_data)
    if group_changes.same_grants(grant).exists():
        return refuse(grant_error=_("This grant already exists."))
    return (
        lambda author: group_changes.add_grant(author, grant),
        {
            "effect": group_changes.effect_of_addition(grant),
            "done": _("Grant added. It applies from the next request."),
            "next_url": _group_url(group),
            "action": _("Add grant"),
            "form": form,
            "grant": grant,
        },
    )


def _removal(request: HttpRequest, group: Group | None, grant_key: int) -> Change | HttpResponse:
    version = request.POST.get("version", "")
    own_grants = Grant.objects.select_related("project").filter(group=group)
    grant = own_grants.filter(pk=grant_key).first()
    if grant is None:
        text = _("The grant has already been removed.")
        return render_group(request, _key(group), 404, grant_error=text)
    return (
        lambda author: group_changes.remove_grant(author, grant, version),
        {
            "effect": group_changes.effect_of_removal(grant),
            "done": _("Grant removed. It applies from the next request."),
            "next_url": _group_url(group),
            "action": _("Remove grant"),
            "grant": grant,
        },
    )


def _deletion(request: HttpRequest, group: Group) -> Change:
    version = request.POST.get("version", "")
    effect = group_changes.effect_of_deletion(group)
    return (
        lambda author: group_changes.delete_group(author, group, version),
        {
            "effect": effect,
            "done": _("Group deleted."),
            "next_url": reverse("groups"),
            "action": _("Delete group"),
            "grants": texts.grants_by_key(group),
            "django_permissions": texts.django_permissions(group),
            "member_count": group.user_set.count(),
            "effect_texts": [texts.loss_text(effect)],
            "permission": group_changes.edit_permission(group),
        },
    )


def _group_url(group: Group | None) -> str:
    return reverse("group", args=[_key(group)])


def _key(group: Group | None) -> int:
    return group.pk if group else lookup.EVERYBODY_KEY
