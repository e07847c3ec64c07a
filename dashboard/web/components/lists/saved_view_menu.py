"""The menu of saved views on a stage's page: links, and the actions that the user may take."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User

from dashboard.accounts.permissions import Permissions
from dashboard.models import SavedView
from dashboard.runs import saved_views
from dashboard.web.components.lists.filters import RunFilter


@dataclass(frozen=True, slots=True)
class SavedViewItem:
    """One saved view in the menu."""

    view: SavedView
    owner: str  # user name; empty: the user's own view
    is_current: bool  # its filter equals the page's
    is_default: bool  # stage pages open with it for this user
    may_delete: bool


@dataclass(frozen=True, slots=True)
class SavedViewMenu:
    """All views that the user may see, and the available actions."""

    items: list[SavedViewItem]
    may_change: bool
    may_share: bool
    may_save: bool  # the page is filtered, and the user has no view with this filter

    @property
    def has_content(self) -> bool:
        """Whether the menu contains a view or a view can be saved."""
        return bool(self.items) or self.may_save

    @property
    def can_manage(self) -> bool:
        """Whether there are views that the user may change."""
        return self.may_change and bool(self.items)

    @property
    def has_actions(self) -> bool:
        """Whether the user may save a view or change one."""
        return self.may_save or self.can_manage


def build_menu(
    person: User, permissions: Permissions, run_filter: RunFilter, default: SavedView | None
) -> SavedViewMenu:
    """Return the menu for a page with `run_filter`; `default` is the user's default view."""
    items = [
        SavedViewItem(
            view,
            owner="" if view.owner_id == person.pk else view.owner.get_username(),
            is_current=view.query == run_filter.query_string,
            is_default=view == default,
            may_delete=saved_views.may_delete(person, view),
        )
        for view in saved_views.visible_to(person)
    ]
    has_current_own = any(view.is_current and not view.owner for view in items)
    return SavedViewMenu(
        items=items,
        may_change=not settings.READ_ONLY,
        may_share=saved_views.may_share(person, permissions),
        may_save=bool(run_filter.query_string) and not has_current_own and not settings.READ_ONLY,
    )
