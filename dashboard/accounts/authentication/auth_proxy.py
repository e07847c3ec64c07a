"""Users whom a proxy in front of the dashboard has signed in, by its header (docs/run/sign-in.md).

Their sessions hold a digest of what the proxy sent, so that one comparison for each request shows
whether the proxy still sends it.
"""

import contextlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network

from django.conf import settings
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from dashboard.accounts import demo, rights_changes, usernames
from dashboard.accounts.authentication import break_glass
from dashboard.accounts.authentication.external_groups import synchronise_groups
from dashboard.accounts.permissions import Permission
from dashboard.models import ProxyAccount
from dashboard.texts.rich_text import MessageTable

BACKEND = "dashboard.accounts.authentication.auth_proxy.ProxyBackend"
SOURCE = "the proxy"  # of sign-ins and of groups
SESSION_DIGEST = "auth_proxy"  # the session's key for the digest

_text = MessageTable(
    {
        "invalid_name": gettext_lazy("The proxy sent an invalid user name."),
        "header_twice": gettext_lazy("The proxy sent the header %(name)s twice."),
        "header_unreadable": gettext_lazy("The header %(name)s of the proxy is not readable text."),
        "break_glass": gettext_lazy("The break-glass account cannot be handed over to the proxy."),
        "demo": gettext_lazy("Demo accounts cannot be handed over to the proxy."),
        "not_handed_over": gettext_lazy(
            "“%(name)s” is a local account. Ask an administrator to allow proxy sign-in for it."
        ),
        "invalid_account": gettext_lazy("The proxy signed you in as “%(name)s”. %(problem)s"),
        "inactive": gettext_lazy("Your account “%(name)s” is inactive."),
    }
)

type Headers = Sequence[tuple[bytes, bytes]]  # as they were sent, names in lower case


class Refused(Exception):
    """The proxy's header names nobody for certain, or nobody whom it may sign in."""


@dataclass(frozen=True)
class ProxyUser:
    """What the proxy sent about a user; `groups` is None if it reports none."""

    name: str
    groups: frozenset[str] | None = None

    @cached_property
    def digest(self) -> str:
        """A text that differs for another name, for other groups and for another group map."""
        groups = None if self.groups is None else sorted(self.groups)
        text = repr((self.name, groups, sorted(settings.AUTH_PROXY_GROUP_MAP.items())))
        return blake2b(text.encode(), digest_size=16).hexdigest()


class ProxyBackend(BaseBackend):
    """Sessions that the proxy has begun; `AUTH_PROXY_HEADER` adds it. It checks no password."""

    source = SOURCE

    def get_user(self, user_id: int) -> User | None:
        """Return the active account of a session, or None."""
        user = User.objects.filter(pk=user_id, is_active=True).first()
        return None if user is None or break_glass.is_name(user.username) else user


def user_of(request: HttpRequest) -> ProxyUser | None:
    """Return the user whom the proxy sent with a request, if any (web/http/authentication)."""
    user: ProxyUser | None = getattr(request, "proxy_user", None)
    return user


def digest_of(request: HttpRequest) -> str:
    """Return the digest that the session of a request must have; empty: none."""
    user = user_of(request)
    return user.digest if user is not None else ""


def is_trusted(peer: str | None) -> bool:
    """Return whether the header is believed from the peer of a connection; None: unknown."""
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:  # to a socket for both
        address = address.ipv4_mapped
    return any(address in ip_network(text) for text in settings.AUTH_PROXY_TRUSTED)


def has_user_header(headers: Headers) -> bool:
    """Return whether a request names a user; an empty header names none."""
    return any(_values(headers, settings.AUTH_PROXY_HEADER))


def read_user(headers: Headers) -> ProxyUser | None:
    """Return the user in the headers of the trusted proxy, None if it named none.

    Raise Refused for a header that was sent twice, or with a name that no account can have.
    """
    name = _single_value(headers, settings.AUTH_PROXY_HEADER)
    if not name:
        return None
    # The names of two accounts must not be equal to the eye: Django's form normalises them, too.
    if len(name) > usernames.MAX_LENGTH or unicodedata.normalize("NFKC", name) != name:
        raise Refused(_text("invalid_name"))
    if not settings.AUTH_PROXY_GROUPS_HEADER:
        return ProxyUser(name)
    groups = _single_value(headers, settings.AUTH_PROXY_GROUPS_HEADER).split(",")
    return ProxyUser(name, frozenset(filter(None, map(str.strip, groups))))


def _values(headers: Headers, name: str) -> list[bytes]:
    key = name.lower().encode()
    return [value.strip() for header, value in headers if header == key]


def _single_value(headers: Headers, name: str) -> str:
    values = _values(headers, name)
    if len(values) > 1:
        # One of them may be the client's, which the proxy should have removed.
        raise Refused(_text("header_twice", name=name))
    try:
        text = b"".join(values).decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise Refused(_text("header_unreadable", name=name))
    return text


def handover_permission(account: User) -> Permission:
    """Return whether the proxy may be allowed to sign in to an account."""
    if break_glass.is_name(account.username):
        return Permission(False, _text("break_glass"))
    if account.groups.filter(name=demo.GROUP).exists():
        return Permission(False, _text("demo"))
    return Permission(True)


def find_account(user: ProxyUser, at: datetime, client_address: str | None) -> User:
    """Return the account of the proxy's user, added if there is none of this name.

    Raise Refused for the break-glass account and demo accounts, for one that was made in the
    dashboard and not handed over (`ProxyAccount`), for a new name that would be read as another
    account's (usernames.py), and for an inactive account.
    """
    account = _stored(user) or _add_account(user, at, client_address)
    is_proxys = account is not None and ProxyAccount.objects.filter(user=account).exists()
    if account is None or not is_proxys or not handover_permission(account).allowed:
        raise Refused(_text("not_handed_over", name=user.name))
    if not account.is_active:
        raise Refused(_text("inactive", name=user.name))
    return account


def _stored(user: ProxyUser) -> User | None:
    return User.objects.filter(username=user.name).first()


def _add_account(user: ProxyUser, at: datetime, client_address: str | None) -> User | None:
    """Return a new account, or the one that another request has just added.

    None for the break-glass account's name in other case: the answer does not say that it exists.
    """
    if break_glass.is_name(user.name):
        return None
    if (problem := usernames.problem(user.name)) is None:
        with contextlib.suppress(IntegrityError), transaction.atomic():
            account = User.objects.create_user(user.name)
            ProxyAccount.objects.create(user=account)
            rights_changes.record_changes(
                {rights_changes.account(account.pk): None},
                "Added by the proxy.",
                at,
                changed_by=None,
                client_address=client_address,
            )
            return account
    if (added := _stored(user)) is None:
        raise Refused(_text("invalid_account", name=user.name, problem=problem or ""))
    return added


def update_groups(account: User, user: ProxyUser, at: datetime, client_address: str | None) -> None:
    """Give an account the groups that the proxy reports, if it reports any."""
    if user.groups is not None:
        synchronise_groups(
            account,
            user.groups,
            settings.AUTH_PROXY_GROUP_MAP,
            at,
            source=SOURCE,
            client_address=client_address,
        )
