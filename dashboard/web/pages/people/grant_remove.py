"""Remove a grant, after a confirmation that says what the removal would do."""

from functools import partial

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard.accounts import rights_changes
from dashboard.accounts.administration import group_changes
from dashboard.models import Grant
from dashboard.web.components.rights import grants, texts
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.pages.people.group import render_group, render_refused_grant


@require_http_methods(["GET", "HEAD", "POST"])
@for_administrators
def grant_remove(request: HttpRequest, key: int, grant_key: int) -> HttpResponse:
    """Show what the removal of a grant would do (GET), or remove it (POST)."""
    group = lookup.get_group_or_404(key)
    own_grants = Grant.objects.select_related("project").filter(group=group)
    grant = own_grants.filter(pk=grant_key).first()
    if grant is None:
        text = _("The grant has already been removed.")
        return render_group(request, group, grant_error=text, status=404)
    if request.method == "POST":
        version = request.POST.get("version", "")
        return make_change(
            request,
            lambda author: group_changes.remove_grant(author, grant, version),
            _("Grant removed. It applies from the next request."),
            lambda _changed: reverse("group", args=[key]),
            partial(render_refused_grant, request, key),
        )
    subject = rights_changes.group(grant.group_id)
    effect = group_changes.effect_of_removal(grant)
    context = {
        "nav": "status",
        "tab": "groups",
        "group": group,
        "version": rights_changes.version(rights_changes.snapshot(subject)[subject]),
        "grant": grants.grant_text(grant),
        "effect_texts": texts.effect_texts(effect, grant.action),
        "hides_everything": effect.hides_everything,
    }
    return render(request, "pages/people/grant_remove.html", context)
