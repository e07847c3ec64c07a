"""Saving filters of a stage's page under a name, for oneself or for everybody.

A view is everybody's own matter, and of little worth: who shares one, or takes one away that others
may use, is somebody whom others trust with runs. Nothing of this is shown in anybody's runs.
"""

from collections.abc import Sequence

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permissions
from dashboard.models import DefaultView, SavedView

MAX_VIEWS_PER_USER = 30  # views of one person


class SavedViewError(Exception):
    """It was not done; the sentence says why."""


class NotAllowed(SavedViewError):
    """The person may not do that."""


def visible_to(user: User) -> Sequence[SavedView]:
    """Return a person's own views and those that are shared, by name."""
    return list(SavedView.objects.visible_to(user.pk))


def default_for(user: User) -> SavedView | None:
    """Return the view that stage pages open with for a person, as long as they see it."""
    return SavedView.objects.visible_to(user.pk).filter(defaults__user=user).first()


def may_share(user: User, user_permissions: Permissions) -> bool:
    """Say whether a person's views may be shared: who aborts somewhere, and administrators."""
    return user.is_staff or user_permissions.can_abort_anywhere


def may_delete(user: User, view: SavedView) -> bool:
    """Say whether a person may delete a view: their own; an administrator any that is shared."""
    return view.owner_id == user.pk or (user.is_staff and view.shared)


def save(
    user: User, user_permissions: Permissions, name: str, query: str, *, shared: bool
) -> SavedView:
    """Keep a filter under a name; a person's view of that name is replaced. Raises Refused."""
    _check_writable()
    name = " ".join(name.replace("\0", "").split())
    if not name:
        raise SavedViewError(_("Give the view a name."))
    if len(name) > SavedView.NAME_LENGTH:
        template = _("A name has at most %(n)d characters.")
        raise SavedViewError(template % {"n": SavedView.NAME_LENGTH})
    if not query:
        raise SavedViewError(_("This page is not filtered: there is nothing to save."))
    if len(query) > SavedView.QUERY_LENGTH:
        raise SavedViewError(_("This filter is too long to be saved."))
    if shared and not may_share(user, user_permissions):
        raise NotAllowed(_("Only people who may abort runs somewhere can share a view."))
    with transaction.atomic():
        # One after another: two forms sent at once must not make one too many.
        User.objects.select_for_update().get(pk=user.pk)
        own_views = SavedView.objects.filter(owner=user)
        if not own_views.filter(name=name).exists() and own_views.count() >= MAX_VIEWS_PER_USER:
            raise SavedViewError(
                _("You have %(n)d views: delete one first.") % {"n": MAX_VIEWS_PER_USER}
            )
        view, _created = SavedView.objects.update_or_create(
            owner=user, name=name, defaults={"query": query, "shared": shared}
        )
    return view


def delete(user: User, view_pk: int) -> str:
    """Delete a view, also where it is somebody's default, and return its name. Raises Refused."""
    _check_writable()
    view = _get_visible(user, view_pk)
    if not may_delete(user, view):
        template = _("“%(view)s” is not yours: only %(owner)s can delete it.")
        raise NotAllowed(template % {"view": view.name, "owner": view.owner})
    view.delete()
    return view.name


def set_default(user: User, view_pk: int) -> SavedView:
    """Have stage pages open with a view for a person. Raises Refused."""
    _check_writable()
    view = _get_visible(user, view_pk)
    try:
        DefaultView.objects.update_or_create(user=user, defaults={"view": view})
    except IntegrityError:
        raise SavedViewError(_("There is no such view any more.")) from None
    return view


def clear_default(user: User) -> None:
    """Have stage pages open with all runs for a person. Raises Refused."""
    _check_writable()
    DefaultView.objects.filter(user=user).delete()


def _get_visible(user: User, view_pk: int) -> SavedView:
    view = SavedView.objects.visible_to(user.pk).filter(pk=view_pk).first()
    if view is None:
        raise SavedViewError(_("There is no such view any more."))
    return view


def _check_writable() -> None:
    if settings.READ_ONLY:
        raise NotAllowed(_("This dashboard is switched to read-only: nothing can be changed here."))
