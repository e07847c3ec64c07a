"""Add and change accounts, as an administrator."""

from collections.abc import Collection
from dataclasses import dataclass

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy

from dashboard.accounts import api_tokens, demo, rights_changes, usernames
from dashboard.accounts.administration.administrators import (
    AdministrationError,
    Author,
    NotAllowed,
    change_permission,
    recorded_change,
    require,
)
from dashboard.accounts.authentication import auth_proxy, break_glass
from dashboard.accounts.permissions import Permission
from dashboard.db.threads import now
from dashboard.models import ApiToken, ProxyAccount
from dashboard.texts.rich_text import MessageTable

_text = MessageTable(
    {
        "own_password": gettext_lazy("Change your own password on My account."),
        "own_no_password": gettext_lazy(
            "Your account has no password. Another administrator can set one."
        ),
        "demo_password": gettext_lazy("The password of a demo account is its name."),
        "no_password_sign_in": gettext_lazy("Password sign-in is disabled."),
        "own_flags": gettext_lazy("You cannot deactivate yourself, or stop being a superuser."),
        "group_missing": gettext_lazy("One of the groups no longer exists."),
    }
)
GROUP_MISSING = _text("group_missing")


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What an administrator decides about an account."""

    is_active: bool
    is_superuser: bool
    group_keys: frozenset[int]
    hand_over: bool = False  # the proxy may sign in to it from now on


def password_permission(administrator: User, account: User) -> Permission:
    """Return whether an administrator may set an account's password, and so sign in to it.

    Not their own, which takes the current one: a stolen session does not have it.
    """
    if not (permission := change_permission()).allowed:
        return permission
    if account.groups.filter(name=demo.GROUP).exists():
        return Permission(False, _text("demo_password"))
    if not break_glass.may_use_password(account):
        return Permission(False, _text("no_password_sign_in"))
    if account.pk == administrator.pk:
        key = "own_password" if account.has_usable_password() else "own_no_password"
        return Permission(False, _text(key))
    return Permission(True)


def choosable_groups() -> QuerySet[Group]:
    """Return the groups that an administrator can add accounts to, by name."""
    return Group.objects.exclude(name=demo.GROUP).order_by("name", "pk")


def add_account(
    author: Author, username: str, password: str, account_settings: AccountSettings
) -> User:
    """Add an account and return it.

    `password` is hashed; empty: the account cannot sign in with a password. Raise
    AdministrationError, also for a password that could not be used.
    """
    username = User.normalize_username(username)  # as the sign-in form does
    with recorded_change(author, "Added.") as before:
        if (problem := usernames.problem(username)) is not None:
            raise AdministrationError(problem)
        user = User.objects.create(username=username, password=password or make_password(None))
        before[rights_changes.account(user.pk)] = None
        _apply(author.user, user, account_settings)
        if password:
            require(password_permission(author.user, user))
    return user


def add_first_administrator(username: str, password: str) -> None:
    """Add an administrator if there is no account at all; recorded as by no account.

    Raise Django's ValidationError for a name or a password that a form would refuse.
    """
    with transaction.atomic():
        rights_changes.lock()  # of processes that start together one adds it
        if User.objects.exists():
            return
        username = User.normalize_username(username)
        user = User(username=username, is_superuser=True)
        user.set_password(password)
        user.full_clean()
        validate_password(password, user)
        user.save()
        before = {rights_changes.account(user.pk): None}
        rights_changes.record_changes(
            before, "Added by ADMIN_PASSWORD.", now(), changed_by=None, client_address=None
        )


def change_account(
    author: Author, key: int, account_settings: AccountSettings, version: str
) -> None:
    """Change an account; raise AdministrationError.

    Conflict if it is not as `version` (`rights_changes.version`) any more.
    """
    with recorded_change(author, "Changed.", rights_changes.account(key), version=version):
        _apply(author.user, User.objects.get(pk=key), account_settings)


def set_membership(author: Author, key: int, group: Group, *, is_member: bool) -> None:
    """Add an account to a group, or remove it from there; raise AdministrationError."""
    with recorded_change(author, "Changed.", rights_changes.account(key)):
        user = User.objects.get(pk=key)
        others = user.groups.exclude(name=demo.GROUP).exclude(pk=group.pk)
        keys = set(others.values_list("pk", flat=True))
        _set_groups(user, keys | {group.pk} if is_member else keys)


def set_password(author: Author, key: int, password: str) -> None:
    """Replace a password by a hashed one, which ends the account's sessions."""
    subject = rights_changes.account(key)
    with recorded_change(author, "Changed password.", subject, even_unchanged=True):
        user = User.objects.get(pk=key)
        require(password_permission(author.user, user))
        user.password = password
        user.save(update_fields=["password"])


def revoke_token(author: Author, token: ApiToken) -> None:
    """Revoke an API token of an account for good; raise AdministrationError."""
    with recorded_change(author, "", rights_changes.account(token.user_id)):
        api_tokens.revoke(
            token, now(), changed_by=author.user, client_address=author.client_address
        )


def _apply(administrator: User, user: User, account_settings: AccountSettings) -> None:
    is_own = user.pk == administrator.pk
    if is_own and (account_settings.is_active, account_settings.is_superuser) != (
        user.is_active,
        user.is_superuser,
    ):
        raise NotAllowed(_text("own_flags"))
    user.is_active = account_settings.is_active
    user.is_superuser = account_settings.is_superuser
    user.save(update_fields=["is_active", "is_superuser"])
    if account_settings.hand_over:
        require(auth_proxy.handover_permission(user))
        ProxyAccount.objects.get_or_create(user=user)
    _set_groups(user, account_settings.group_keys)


def _set_groups(user: User, chosen_keys: Collection[int]) -> None:
    """Make an account a member of these groups only; it stays in that of the demo accounts."""
    demo_groups = set(user.groups.filter(name=demo.GROUP).values_list("pk", flat=True))
    chosen_groups = choosable_groups().filter(pk__in=chosen_keys)
    group_keys = set(chosen_groups.values_list("pk", flat=True))
    if set(chosen_keys) - group_keys:
        raise AdministrationError(GROUP_MISSING)
    user.groups.set(group_keys | demo_groups)
