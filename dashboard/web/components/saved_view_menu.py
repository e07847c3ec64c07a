"""Saved views as a stage's page offers them: each a link, and what the person may do with it."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User

from dashboard.accounts.permissions import Permissions
from dashboard.models import SavedView
from dashboard.runs import saved_views
from dashboard.web.components.filters import RunFilter


@dataclass(frozen=True, slots=True)
class SavedViewItem:
    """One saved view."""

    key: int
    name: str
    url: str
    owner: str  # empty: it is the person's own
    is_shared: bool
    is_current: bool  # the page shows what it asks for
    is_default: bool  # stage pages open with it
    may_delete: bool


@dataclass(frozen=True, slots=True)
class SavedViewMenu:
    """All views that a person sees, and what can be done from the page as it is."""

    items: list[SavedViewItem]
    may_change: bool
    may_share: bool
    may_save: bool  # the page is filtered, in a way that no view of the person's is

    @property
    def default(self) -> SavedViewItem | None:
        """The view that stage pages open with for the person, if any."""
        return next((view for view in self.items if view.is_default), None)

    @property
    def has_content(self) -> bool:
        """Whether there is anything to show or to do."""
        return bool(self.items) or self.may_save


def build_menu(
    person: User, permissions: Permissions, run_filter: RunFilter, default: SavedView | None
) -> SavedViewMenu:
    """Prepare the views that a person sees on the page of a filter; pages open with `default`."""
    items = [
        SavedViewItem(
            key=view.pk,
            name=view.name,
            url=f"?{view.query}",
            owner="" if view.owner_id == person.pk else view.owner.get_username(),
            is_shared=view.shared,
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
