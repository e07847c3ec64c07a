"""Demo accounts, active only while the upstream is the sandbox."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher, get_hasher, make_password
from django.contrib.auth.models import Group, User

from dashboard.accounts import permissions

# Demo accounts are identified by this group, not by name: a real user may be called "manager".
GROUP = "Demo accounts"
GROUPS_BY_ACCOUNT = {
    "manager": [permissions.RELEASE_MANAGERS],
    "viewer": [],
}  # the password equals the name


def enable() -> None:
    """Create or reactivate the demo accounts."""
    demo_group, _ = Group.objects.get_or_create(name=GROUP)
    for name, groups in GROUPS_BY_ACCOUNT.items():
        user, created = User.objects.get_or_create(username=name)
        if not created and not user.groups.filter(pk=demo_group.pk).exists():
            continue  # a real user's account with the same name
        if created or not user.is_active or not user.has_usable_password():
            user.password = _hash_password(name)
            user.is_active = True
            user.save()
        user.groups.set([demo_group, *Group.objects.filter(name__in=groups)])


def _hash_password(password: str) -> str:
    # These passwords are public: a costly hash would only delay the first start.
    hasher = get_hasher()
    if isinstance(hasher, PBKDF2PasswordHasher):
        return hasher.encode(password, hasher.salt(), iterations=1)
    return make_password(password)


def disable() -> None:
    """Deactivate demo accounts left over from sandbox use; this also ends their sessions."""
    for user in User.objects.filter(groups__name=GROUP, is_active=True):
        user.set_unusable_password()
        user.is_active = False
        user.save()
