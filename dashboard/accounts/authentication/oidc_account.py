"""The account of a user who signs in through the OpenID provider.

It is found by issuer and subject only. A name or an e-mail address that another account has opens
nothing: anybody may be able to choose theirs at the provider.
"""

import contextlib
from datetime import datetime

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from dashboard.accounts import rights_changes, usernames
from dashboard.accounts.authentication import break_glass, external_groups
from dashboard.accounts.authentication.oidc_claims import Claims, OIDCFailure, Reason

SOURCE = "OpenID Connect"


class OIDCBackend(BaseBackend):
    """Keeps sessions of the provider's users valid, while the settings have its issuer."""

    source = SOURCE

    def get_user(self, user_id: int) -> User | None:
        """Return the active account of a session, or None; also if it is of another issuer."""
        accounts = SocialAccount.objects.filter(
            provider=settings.OIDC_ISSUER, user=user_id, user__is_active=True
        )
        account = accounts.select_related("user").first()
        if account is None or break_glass.is_name(account.user.username):
            return None
        user: User = account.user
        return user


def identify(claims: Claims, at: datetime, client_address: str | None) -> User:
    """Return the account of these claims, with its groups as the claims have them.

    It is created at the first sign-in. Raise OIDCFailure if the user may not sign in.
    """
    domains = settings.OIDC_ALLOWED_DOMAINS
    if domains and not claims.has_verified_email(domains):
        raise OIDCFailure(Reason.DOMAIN, f"Subject {claims.subject}.")
    user = _find_or_create(claims, at, client_address)
    if break_glass.is_name(user.username):
        raise OIDCFailure(Reason.RESERVED, user=user)
    if not user.is_active:
        raise OIDCFailure(Reason.INACTIVE, user=user)
    if claims.email and user.email != claims.email:
        user.email = claims.email
        user.save(update_fields=["email"])
    if settings.OIDC_GROUPS_CLAIM:
        external_groups.synchronise_groups(
            user,
            claims.groups(settings.OIDC_GROUPS_CLAIM),
            settings.OIDC_GROUP_MAP,
            at,
            source=SOURCE,
            client_address=client_address,
        )
    return user


def _find_or_create(claims: Claims, at: datetime, client_address: str | None) -> User:
    key = {"provider": settings.OIDC_ISSUER, "uid": claims.subject}
    accounts = SocialAccount.objects.filter(**key).select_related("user")
    if (account := accounts.first()) is not None:
        user: User = account.user
        return user
    # Another first sign-in may take the name, or be of the same subject.
    with contextlib.suppress(IntegrityError), transaction.atomic():
        user = User.objects.create_user(_unique(claims.username), claims.email)
        SocialAccount.objects.create(user=user, **key)
        rights_changes.record_changes(
            {rights_changes.account(user.pk): None},
            f"Added by {SOURCE} for {claims.subject} of {settings.OIDC_ISSUER}.",
            at,
            changed_by=None,
            client_address=client_address,
        )
        return user
    return _find_or_create(claims, at, client_address)


def _unique(username: str) -> str:
    number, candidate = 1, username
    while break_glass.is_name(candidate) or usernames.is_taken(candidate):
        number += 1
        candidate = f"{username}-{number}"
    return candidate
