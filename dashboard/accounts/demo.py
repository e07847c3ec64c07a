"""Demo accounts: they exist and sign in only while the upstream is the sandbox.

Their passwords equal their names and are stored nowhere. Only `DemoBackend` accepts them, and the
settings contain it only for the sandbox. Without it Django rejects their sessions as well, and the
start deactivates them, so none of them gets in where a database later mirrors a real Northflank.
"""

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest

from dashboard.accounts import permissions

# Demo accounts have one of the names below and are in this group: a real user may be called
# "manager", and in a database of the sandbox a real account may be in the group.
GROUP = "Demo accounts"
GROUPS_BY_ACCOUNT = {
    "manager": [permissions.RELEASE_MANAGERS],
    "viewer": [],
    "admin": [],
}
ADMINISTRATOR = "admin"


class DemoBackend(BaseBackend):
    """Sign in demo accounts, whose password equals their name."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **credentials: Any,
    ) -> User | None:
        """Return the active demo account of this name, or None."""
        if username is None or username != password:
            return None
        return _active_accounts().filter(username=username).first()

    def get_user(self, user_id: int) -> User | None:
        """Return the active demo account of a session, or None."""
        return _active_accounts().filter(pk=user_id).first()


def _active_accounts() -> QuerySet[User]:
    return _accounts().filter(is_active=True)


def _accounts() -> QuerySet[User]:
    return User.objects.filter(groups__name=GROUP, username__in=GROUPS_BY_ACCOUNT)


def enable() -> None:
    """Create or reactivate the demo accounts."""
    demo_group, _ = Group.objects.get_or_create(name=GROUP)
    for name, groups in GROUPS_BY_ACCOUNT.items():
        user, created = User.objects.get_or_create(username=name)
        if not created and not user.groups.filter(pk=demo_group.pk).exists():
            continue  # a real user's account with the same name
        # Only then: a new unusable password would end the account's sessions.
        if created or user.has_usable_password():
            user.set_unusable_password()
        user.is_active = True
        user.is_superuser = name == ADMINISTRATOR
        user.save()
        user.groups.set([demo_group, *Group.objects.filter(name__in=groups)])


def disable() -> None:
    """Deactivate demo accounts left over from sandbox use; this also ends their sessions."""
    for user in _accounts():
        user.set_unusable_password()
        user.is_active = user.is_superuser = False
        user.save()
