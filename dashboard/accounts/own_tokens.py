"""The API tokens of an account, which its user may revoke."""

from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction

from dashboard.accounts import access_log
from dashboard.models import ApiToken
from dashboard.models.accounts.access import AccessKind

MAX_LISTED = 100


def unrevoked_tokens(user: User) -> list[ApiToken]:
    """Return up to MAX_LISTED tokens of `user`, expired ones included, the newest first."""
    return list(user.api_tokens.filter(revoked_at=None).order_by("-pk")[:MAX_LISTED])


def revoke(user: User, pk: int, at: datetime, *, client_address: str | None) -> ApiToken | None:
    """Revoke a token of `user` for good, record that, and return it; None: they have no such one.

    One that was revoked before is returned, too.
    """
    with transaction.atomic():
        token = user.api_tokens.select_for_update().filter(pk=pk).first()
        if token is not None and token.revoked_at is None:
            token.revoked_at = at
            token.save(update_fields=["revoked_at"])
            access_log.record(
                AccessKind.TOKEN_REVOKED,
                at,
                user=user,
                changed_by=user,
                client_address=client_address,
                token_name=token.name,
                detail="On My account.",
            )
    return token
