"""Saving filters of a stage's page under a name, for oneself or for everybody.

A view is everybody's own matter, and of little worth: who shares one, or takes one away that others
may use, is somebody whom others trust with runs. Nothing of this is shown in anybody's runs.
"""

from collections.abc import Sequence

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Rights
from dashboard.models import DefaultView, SavedView

MOST = 30  # views of one person


class Refused(Exception):
    """It was not done; the sentence says why."""


class NotAllowed(Refused):
    """The person may not do that."""


def seen_by(person: User) -> Sequence[SavedView]:
    """Return a person's own views and those that are shared, by name."""
    return list(SavedView.objects.seen_by(person.pk))


def default_of(person: User) -> SavedView | None:
    """Return the view that stage pages open with for a person, as long as they see it."""
    return SavedView.objects.seen_by(person.pk).filter(defaults__user=person).first()


def may_share(person: User, rights: Rights) -> bool:
    """Say whether a person's views may be shared: who aborts somewhere, and administrators."""
    return person.is_staff or rights.may_abort_somewhere


def may_delete(person: User, view: SavedView) -> bool:
    """Say whether a person may delete a view: their own; an administrator any that is shared."""
    return view.owner_id == person.pk or (person.is_staff and view.shared)


def save(person: User, rights: Rights, name: str, query: str, *, shared: bool) -> SavedView:
    """Keep a filter under a name; a person's view of that name is replaced. Raises Refused."""
    _changeable()
    name = " ".join(name.replace("\0", "").split())
    if not name:
        raise Refused(_("Give the view a name."))
    if len(name) > SavedView.NAME_LENGTH:
        said = _("A name has at most %(n)d characters.")
        raise Refused(said % {"n": SavedView.NAME_LENGTH})
    if not query:
        raise Refused(_("This page is not filtered: there is nothing to save."))
    if len(query) > SavedView.QUERY_LENGTH:
        raise Refused(_("This filter is too long to be saved."))
    if shared and not may_share(person, rights):
        raise NotAllowed(_("Only people who may abort runs somewhere can share a view."))
    with transaction.atomic():
        # One after another: two forms sent at once must not make one too many.
        User.objects.select_for_update().get(pk=person.pk)
        own = SavedView.objects.filter(owner=person)
        if not own.filter(name=name).exists() and own.count() >= MOST:
            raise Refused(_("You have %(n)d views: delete one first.") % {"n": MOST})
        view, _created = SavedView.objects.update_or_create(
            owner=person, name=name, defaults={"query": query, "shared": shared}
        )
    return view


def delete(person: User, key: int) -> str:
    """Delete a view, also where it is somebody's default, and return its name. Raises Refused."""
    _changeable()
    view = _seen(person, key)
    if not may_delete(person, view):
        said = _("“%(view)s” is not yours: only %(owner)s can delete it.")
        raise NotAllowed(said % {"view": view.name, "owner": view.owner})
    view.delete()
    return view.name


def open_with(person: User, key: int) -> SavedView:
    """Have stage pages open with a view for a person. Raises Refused."""
    _changeable()
    view = _seen(person, key)
    try:
        DefaultView.objects.update_or_create(user=person, defaults={"view": view})
    except IntegrityError:
        raise Refused(_("There is no such view any more.")) from None
    return view


def open_with_all(person: User) -> None:
    """Have stage pages open with all runs for a person. Raises Refused."""
    _changeable()
    DefaultView.objects.filter(user=person).delete()


def _seen(person: User, key: int) -> SavedView:
    view = SavedView.objects.seen_by(person.pk).filter(pk=key).first()
    if view is None:
        raise Refused(_("There is no such view any more."))
    return view


def _changeable() -> None:
    if settings.READ_ONLY:
        raise NotAllowed(_("This dashboard is switched to read-only: nothing can be changed here."))
