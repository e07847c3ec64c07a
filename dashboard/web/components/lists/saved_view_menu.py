"""The menu of saved views on a stage's page: links, and the actions that the user may take."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User

from dashboard.accounts.permissions import Permissions
from dashboard.models import SavedView
from dashboard.runs import saved_views
from dashboard.web.components.lists.filters import RunFilter


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
        "has_content": bool(items) or may_save,
        "has_actions": may_save or can_manage,
    }
