"""An account's API tokens on a page, each with its button to revoke it."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy

from dashboard.accounts import api_tokens
from dashboard.db.threads import now
from dashboard.models import ApiToken
from dashboard.models.accounts.api_tokens import Scope, TokenStatus

SCOPE_LABELS = {
    Scope.READ: gettext_lazy("May read"),
    Scope.LOGS: gettext_lazy("May read and see logs"),
    Scope.ABORT: gettext_lazy("May read, see logs and abort"),
}


def context(user: User, revoke_url: Callable[[ApiToken], str]) -> dict[str, Any]:
    """Return what components/api_tokens.html shows; `revoke_url` is where the button posts to."""
    at = now()
    return {
        "tokens": [
            {
                "token": token,
                "scope": SCOPE_LABELS[Scope(token.scope)],
                "is_expired": token.status(at) == TokenStatus.EXPIRED,
                "revoke_url": revoke_url(token),
            }
            for token in api_tokens.unrevoked_tokens(user, at)
        ],
    }
