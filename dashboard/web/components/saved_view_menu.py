"""Saved views as a stage's page offers them: each a link, and what the person may do with it."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User

from dashboard.accounts.permissions import Rights
from dashboard.models import SavedView
from dashboard.runs import saved_views
from dashboard.web.components.filters import RunFilter


@dataclass(frozen=True, slots=True)
class View:
    """One saved view."""

    key: int
    name: str
    url: str
    owner: str  # empty: it is the person's own
    shared: bool
    current: bool  # the page shows what it asks for
    default: bool  # stage pages open with it
    may_delete: bool


@dataclass(frozen=True, slots=True)
class Views:
    """All views that a person sees, and what can be done from the page as it is."""

    each: list[View]
    may_change: bool
    may_share: bool
    may_save: bool  # the page is filtered, in a way that no view of the person's is

    @property
    def default(self) -> View | None:
        """The view that stage pages open with for the person, if any."""
        return next((view for view in self.each if view.default), None)

    @property
    def some(self) -> bool:
        """Whether there is anything to show or to do."""
        return bool(self.each) or self.may_save


def of(person: User, rights: Rights, asked: RunFilter, default: SavedView | None) -> Views:
    """Prepare the views that a person sees on the page of a filter; pages open with `default`."""
    each = [
        View(
            key=view.pk,
            name=view.name,
            url=f"?{view.query}",
            owner="" if view.owner_id == person.pk else view.owner.get_username(),
            shared=view.shared,
            current=view.query == asked.query,
            default=view == default,
            may_delete=saved_views.may_delete(person, view),
        )
        for view in saved_views.seen_by(person)
    ]
    own = any(view.current and not view.owner for view in each)
    return Views(
        each=each,
        may_change=not settings.READ_ONLY,
        may_share=saved_views.may_share(person, rights),
        may_save=bool(asked.query) and not own and not settings.READ_ONLY,
    )
