"""Who may change accounts, groups, grants and notice rules, and the frame of each such change."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import transaction
from django.utils.translation import gettext_lazy

from dashboard.accounts import rights_changes
from dashboard.accounts.permissions import Permission, read_only_reason
from dashboard.accounts.rights_changes import State, Subject
from dashboard.db.threads import now
from dashboard.texts.rich_text import MessageTable

_text = MessageTable(
    {
        "administrator_no_longer": gettext_lazy(
            "You are no longer an administrator. Nothing was changed."
        ),
        "deleted": gettext_lazy("Nothing was changed: it has been deleted meanwhile."),
        "changed": gettext_lazy(
            "Not saved: somebody else has changed this. Check it and try again."
        ),
    }
)


class AdministrationError(Exception):
    """The change was not made; the text says why, and `status` is that of the answer."""

    status = 422


class NotAllowed(AdministrationError):
    """The administrator may not make this change."""

    status = 403


class Conflict(AdministrationError):
    """Somebody else has changed the subject since it was shown."""

    status = 409


def require(permission: Permission) -> None:
    """Raise NotAllowed with the reason unless it is allowed."""
    if not permission.allowed:
        raise NotAllowed(permission.denied_reason)


@dataclass(slots=True)
class Author:
    """Who makes a change, and from which address; within `recorded_change`, `user` as stored."""

    user: User
    client_address: str | None


def may_administer(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Return whether a user is an administrator: a superuser."""
    return isinstance(user, User) and user.is_active and user.is_superuser


def change_permission() -> Permission:
    """Return whether administrators can change anything."""
    return Permission(False, read_only_reason()) if settings.READ_ONLY else Permission(True)


@contextmanager
def recorded_change(
    author: Author,
    detail: str,
    *subjects: Subject,
    version: str | None = None,
    even_unchanged: bool = False,
) -> Iterator[dict[Subject, State | None]]:
    """Make a change in one transaction, and record it; yield the subjects' states before.

    Subjects that the change creates are added to the yielded states, as None. Raise NotAllowed if
    the author may not administer; Conflict if a subject does not exist any more, or is not as a
    form with this `rights_changes.version` has shown it.
    """
    require(change_permission())
    with transaction.atomic():
        rights_changes.lock()
        current = User.objects.filter(pk=author.user.pk).first()
        if current is None or not may_administer(current):
            raise NotAllowed(_text("administrator_no_longer"))
        author.user = current  # the change is checked against what they may do now
        before = rights_changes.snapshot(*subjects)
        if None in before.values():
            raise Conflict(_text("deleted"))
        if version is not None and version != rights_changes.version(*subjects):
            raise Conflict(_text("changed"))
        yield before
        rights_changes.record_changes(
            before,
            detail,
            now(),
            changed_by=author.user,
            client_address=author.client_address,
            even_unchanged=even_unchanged,
        )
