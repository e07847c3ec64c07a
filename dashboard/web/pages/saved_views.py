"""Create and delete saved views of the stage page, and set the default view."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.models import SavedView, Stage
from dashboard.runs import saved_views
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components.lists import filters
from dashboard.web.components.lists.filters import RunFilter
from dashboard.web.http import links, lookup
from dashboard.web.http.authentication import sign_in

_text = MessageTable(
    {
        "saved": gettext_lazy("“%(name)s” saved."),
        "deleted": gettext_lazy("“%(name)s” deleted."),
        "default": gettext_lazy("“%(name)s” is now your default view."),
        "default_removed": gettext_lazy("Default view removed; stage pages open with all runs."),
        "nothing_changed": gettext_lazy("Nothing was changed."),
    }
)


@require_POST
def create_saved_view(request: HttpRequest, **ids: str) -> HttpResponse:
    """Save the page's filter under a name."""
    user, user_permissions = sign_in.signed_in_user(request), permissions.for_user(request.user)
    stage = lookup.get_stage_or_404(user_permissions, **ids)
    run_filter = _form_filter(request, stage, user)

    def save() -> Message:
        name, shared = request.POST.get("name", ""), request.POST.get("shared") == "1"
        view = saved_views.save(
            user, user_permissions, name, run_filter.query_string, shared=shared
        )
        if request.POST.get("default") == "1":
            saved_views.set_default(user, view.pk)
        return _text("saved", name=view.name)

    return _respond(request, stage, run_filter, save)


@require_POST
def update_saved_view(request: HttpRequest, key: int, **ids: str) -> HttpResponse:
    """Delete a view, make it the user's default, or clear the default."""
    user = sign_in.signed_in_user(request)
    stage = lookup.get_stage_or_404(permissions.for_user(user), **ids)

    def update() -> Message:
        match request.POST.get("action"):
            case "delete":
                return _text("deleted", name=saved_views.delete(user, key))
            case "set-default":
                return _text("default", name=saved_views.set_default(user, key).name)
            case "clear-default":
                saved_views.clear_default(user)
                return _text("default_removed")
            case _:
                return _text("nothing_changed")

    return _respond(request, stage, _form_filter(request, stage, user), update)


def _form_filter(request: HttpRequest, stage: Stage, user: User) -> RunFilter:
    """Return the filter of the page that contained the form."""
    return filters.parse(QueryDict(request.POST.get("query", "")), stage, user)


def _respond(
    request: HttpRequest, stage: Stage, run_filter: RunFilter, change: Callable[[], Message]
) -> HttpResponse:
    """Make a change, and redirect to the stage's page with what was changed, or why it was not."""
    tone = "good"
    try:
        text = str(change())
    except saved_views.SavedViewError as error:
        text, tone = str(error), "warning"
    messages.add_message(request, messages.INFO, text, extra_tags=tone)
    # Django limits the length of a redirect's URL: drop a query that is too long to be saved.
    is_short = len(run_filter.query_string) <= SavedView.QUERY_LENGTH
    query = run_filter.url if is_short else filters.ALL_RUNS_URL
    response = redirect(links.stage_url(stage) + query)
    response.status_code = 303
    return response


def build_menu(
    person: User, permissions: Permissions, run_filter: RunFilter, default: SavedView | None
) -> dict[str, Any]:
    """Return the menu for a page with `run_filter`, as template context.

    `default` is the user's default view. Without a view, or a filter to save, there is no menu.
    """
    items = [
        {
            "view": view,
            "owner": "" if view.owner_id == person.pk else view.owner.get_username(),
            "is_current": view.query == run_filter.query_string,
            "is_default": view == default,
            "may_delete": saved_views.may_delete(person, view),
        }
        for view in saved_views.visible_to(person)
    ]
    has_current_own = any(item["is_current"] and not item["owner"] for item in items)
    may_save = bool(run_filter.query_string) and not has_current_own and not settings.READ_ONLY
    can_manage = bool(items) and not settings.READ_ONLY
    return {
        "items": items,
        "may_share": saved_views.may_share(person, permissions),
        "may_save": may_save,
        "can_manage": can_manage,
    }
