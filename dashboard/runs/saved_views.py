"""Save the filter of a stage's page under a name, as a private or a shared view.

Owners edit their views; sharing needs a superuser, or abort permission somewhere, and only
superusers delete shared views of others. No run changes with a view, but pages do: it counts as a
visible change.
"""

from collections.abc import Sequence
from functools import cache

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import BigIntegerField
from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Parameter, PreparedModels
from dashboard.models import ChangeCounter, DefaultView, SavedView

MAX_VIEWS_PER_USER = 30

_USER = Parameter("user", BigIntegerField())


class SavedViewError(Exception):
    """The request was refused; the message states why."""


def visible_to(user: User) -> Sequence[SavedView]:
    """Return the user's own and all shared views, by name."""
    return _visible_query().fetch(user=user.pk)


def default_for(user: User) -> SavedView | None:
    """Return the user's default view of stage pages; None if unset or no longer visible."""
    return next(iter(_default_query().fetch(user=user.pk)), None)


@cache
def _visible_query() -> PreparedModels[SavedView]:
    return PreparedModels(SavedView.objects.visible_to(_USER))


@cache
def _default_query() -> PreparedModels[SavedView]:
    return PreparedModels(SavedView.objects.visible_to(_USER).filter(defaults__user=_USER))


def may_share(user: User, user_permissions: Permissions) -> bool:
    """Return whether the user may share views: a superuser, or with abort permission somewhere."""
    return user.is_superuser or user_permissions.can_abort_anywhere


def may_delete(user: User, view: SavedView) -> bool:
    """Return whether the user may delete a view: their own, or as a superuser any shared one."""
    return view.owner_id == user.pk or (user.is_superuser and view.shared)


def save(
    user: User, user_permissions: Permissions, name: str, query: str, *, shared: bool
) -> SavedView:
    """Save a filter, replacing the user's view of the same name; raise SavedViewError."""
    _check_writable()
    name = " ".join(name.replace("\0", "").split())
    if not name:
        raise SavedViewError(_("Enter a name for the view."))
    if len(name) > SavedView.NAME_LENGTH:
        template = _("View names can have at most %(n)d characters.")
        raise SavedViewError(template % {"n": SavedView.NAME_LENGTH})
    if not query:
        raise SavedViewError(_("No filter is set: there is nothing to save."))
    if len(query) > SavedView.QUERY_LENGTH:
        raise SavedViewError(_("This filter is too long to save."))
    if shared and not may_share(user, user_permissions):
        raise PermissionDenied(_("Only superusers and users who can abort runs can share views."))
    with transaction.atomic():
        ChangeCounter.take(1)
        # Locks the user: two concurrent requests must not exceed the limit.
        User.objects.select_for_update().get(pk=user.pk)
        own_views = SavedView.objects.filter(owner=user)
        if not own_views.filter(name=name).exists() and own_views.count() >= MAX_VIEWS_PER_USER:
            raise SavedViewError(
                _("You have %(n)d views, the maximum. Delete one first.")
                % {"n": MAX_VIEWS_PER_USER}
            )
        view, _created = SavedView.objects.update_or_create(
            owner=user, name=name, defaults={"query": query, "shared": shared}
        )
    return view


def delete(user: User, view_pk: int) -> str:
    """Delete a view, even if it is a default, and return its name; raise SavedViewError."""
    _check_writable()
    view = _get_visible(user, view_pk)
    if not may_delete(user, view):
        template = _("Only its owner, %(owner)s, can delete “%(view)s”.")
        raise PermissionDenied(template % {"view": view.name, "owner": view.owner})
    with transaction.atomic():
        ChangeCounter.take(1)
        view.delete()
    return view.name


def set_default(user: User, view_pk: int) -> SavedView:
    """Make a view the user's default for stage pages; raise SavedViewError."""
    _check_writable()
    view = _get_visible(user, view_pk)
    try:
        with transaction.atomic():
            ChangeCounter.take(1)
            DefaultView.objects.update_or_create(user=user, defaults={"view": view})
    except IntegrityError:
        raise SavedViewError(_("This view no longer exists.")) from None
    return view


def clear_default(user: User) -> None:
    """Remove the user's default view, so that stage pages list all runs; raise SavedViewError."""
    _check_writable()
    with transaction.atomic():
        ChangeCounter.take(1)
        DefaultView.objects.filter(user=user).delete()


def _get_visible(user: User, view_pk: int) -> SavedView:
    view = SavedView.objects.visible_to(user.pk).filter(pk=view_pk).first()
    if view is None:
        raise SavedViewError(_("This view no longer exists."))
    return view


def _check_writable() -> None:
    if settings.READ_ONLY:
        raise PermissionDenied(_("This dashboard is read-only."))
