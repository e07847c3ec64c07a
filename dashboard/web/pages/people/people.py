"""The list of accounts, by name, with a filter by name and group."""

from django.contrib.auth.models import Group, User
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.accounts import demo
from dashboard.web.http import keys
from dashboard.web.http.administrators import for_administrators

PER_PAGE = 50


@require_safe
@for_administrators
def people(request: HttpRequest) -> HttpResponse:
    """Show the accounts whose name contains `q`, of the group `group` if given, by name."""
    text = request.GET.get("q", "").replace("\0", "").strip()
    users = User.objects.order_by("username").prefetch_related("groups")
    users = users.filter(username__icontains=text) if text else users
    group_key = keys.parse_pk(request.GET.get("group", ""))
    group = Group.objects.filter(pk=group_key).first() if group_key else None
    users = users.filter(groups=group) if group else users
    context = {
        "q": text,
        "group": group,
        "demo_group": demo.GROUP,
        "page": Paginator(users, PER_PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "pages/people/people.html", context)
