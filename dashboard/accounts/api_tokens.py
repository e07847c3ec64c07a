"""API tokens of accounts: list a user's own, and revoke one, whoever does it."""

from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Case, QuerySet, When

from dashboard.accounts import access_log
from dashboard.models import ApiToken
from dashboard.models.accounts.access import AccessKind


def unrevoked_tokens(user: User, at: datetime) -> QuerySet[ApiToken]:
    """Return the tokens of `user`: those that have expired by `at` come last; the newest first."""
    is_expired = Case(When(expires_at__lte=at, then=1), default=0)
    return user.api_tokens.filter(revoked_at=None).order_by(is_expired, "-pk")


def revoke(
    token: ApiToken,
    at: datetime,
    *,
    changed_by: User | None,
    client_address: str | None,
    detail: str = "",
) -> bool:
    """Revoke a token for good and record that; return False if it was revoked before.

    `token.revoked_at` is when it was revoked, in either case.
    """
    with transaction.atomic():
        is_revoked = bool(
            ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=at)
        )
        if is_revoked:
            access_log.record(
                AccessKind.TOKEN_REVOKED,
                at,
                user=token.user,
                changed_by=changed_by,
                client_address=client_address,
                token_name=token.name,
                detail=detail,
            )
    if is_revoked:
        token.revoked_at = at  # not read: an outage now must not hide that it is revoked
    else:
        token.refresh_from_db(fields=["revoked_at"])
    return is_revoked
